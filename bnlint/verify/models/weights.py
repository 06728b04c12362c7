"""What stands for weights that a model would read from files or download: nothing.

What is measured does not depend on their values, but on what the layers do in either mode.
"""

from __future__ import annotations

from typing import Any


class NoWeights(dict[str, Any]):
    """What stands for a file of weights, and for whatever is taken out of it."""

    def __missing__(self, key: object) -> NoWeights:
        return self


def no_weights(*arguments: Any, **more: Any) -> NoWeights:
    """Takes the place of what loads a file."""
    return NoWeights()
