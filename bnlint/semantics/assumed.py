"""What is assumed of a project, and what one of its files tells by itself."""

from __future__ import annotations

import re

from bnlint.assumptions import Assumptions, Versions
from bnlint.frameworks.keras_evidence import BACKEND, INSTALLED, KERAS_2, KERAS_3
from bnlint.source.parse import Source
from bnlint.source.requirements import parse_versions

_GENERATION = (3,)


def refined(assumptions: Assumptions, source: Source) -> Assumptions:
    """``assumptions``, with what the code of a file, not its comments, tells of Keras."""
    if "keras" not in source.text and "tensorflow" not in source.text:
        return assumptions
    code = "\n".join(segment.code for segment in source.segments)
    keras, backend = assumptions.keras, assumptions.keras_backend
    is_3 = keras.at_least(*_GENERATION)
    if keras.is_set:
        pass  # whoever says so knows better than the code
    elif is_3 is not False and (found := KERAS_2.search(code)):
        # The requirements may be those of another part of the project; what is not in Keras 3 would fail here.
        keras = Versions(None, _GENERATION, f"{_shown(found)} in the file")
    elif not keras.source and (found := INSTALLED.search(code)):
        keras = parse_versions(found[1].strip(","), "what the file installs") or keras
    elif is_3 is None and (found := KERAS_3.search(code)):
        lowest = max(keras.lowest or _GENERATION, _GENERATION)
        keras = Versions(lowest, keras.below, f"{_shown(found)} in the file")
    if not backend and (found := BACKEND.search(code)):
        backend = found[1]
    return assumptions._replace(keras=keras, keras_backend=backend)


def _shown(found: re.Match[str]) -> str:
    return " ".join(found[0].split()).rstrip("(=")
