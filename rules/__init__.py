"""The built-in rules, one per module, each documented by its own docstring (``bnlint --explain CODE``).

The package installs as ``bnlint.rules``.
"""
