"""bnlint: the linter that knows what BatchNorm does.

Importing this package imports no framework; only the verifier's child processes do.
"""

__version__ = "0.1.0"
