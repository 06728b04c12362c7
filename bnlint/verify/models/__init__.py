"""Level 2 of the verification: build the project's own models and measure those.

This is the one place where code of the linted project is executed, and only for ``--verify-models``: ``cut`` takes a
class and what it needs out of the sources, ``process`` has it built and measured by ``child`` in a process of its own.
"""
