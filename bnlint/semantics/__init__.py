"""What a file means: names, values, modes, and the events that rules read."""

from bnlint.semantics.analysis import analyse
from bnlint.semantics.events import FileFacts

__all__ = ["FileFacts", "analyse"]
