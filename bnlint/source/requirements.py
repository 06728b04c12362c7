"""Which versions of PyTorch and Keras a project asks for, from the files in which it says so.

Lock files tell the version itself, requirements a range. The first of ``_FILES`` that names a framework decides.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from bnlint.assumptions import Version, Versions

_LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml")
_LISTS = ("requirements.txt", "requirements.in", "requirements-dev.txt", "requirements/base.txt",
          "requirements/requirements.txt", "constraints.txt", "setup.cfg", "environment.yml", "environment.yaml",
          "conda.yaml", "Pipfile")  # fmt: skip
_FILES = (*_LOCKS, "pyproject.toml", *_LISTS)
_TENSORFLOW = frozenset({"tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-macos", "tf"})
_TORCH = frozenset({"torch", "pytorch"})
_NAMED = re.compile(r"torch|keras|tensorflow", re.I)
#: A requirement on a line of its own, as pip, conda (one ``=``) and setup.cfg write it.
_LINE = re.compile(r"^[\s\-'\"]*(?:[\w-]+::)?([A-Za-z][\w.-]*)(?:\[[^]]*\])?[\s\"']*=?\s*[\"']?([^#;\"']*)")
_CLAUSE = re.compile(r"(===?|~=|>=|<=|!=|>|<|\^|~|=)?\s*v?(\d+(?:\.\d+)*)(\.\*)?")

#: The first TensorFlow that comes with Keras 3 (its release notes, "Keras 3 will be the default").
_KERAS_3_IN_TENSORFLOW = (2, 16)


def declared_versions(root: str) -> tuple[Versions, Versions]:
    """The versions of PyTorch and of Keras that the project in the folder ``root`` declares."""
    torch, keras, tensorflow = Versions(), Versions(), Versions()
    for file in _FILES:
        for name, text in _requirements(root, file):
            versions = _parse(text)._replace(source=file)
            if name in _TORCH and not torch.source:
                torch = versions
            elif name == "keras" and not keras.source:
                keras = versions
            elif name in _TENSORFLOW and not tensorflow.source:
                tensorflow = versions
    return torch, keras if keras.source else _keras_of(tensorflow)


def parse_versions(text: str, source: str) -> Versions | None:
    """What a setting such as ``3.15`` or ``>=3,<4`` says; None if that is no version."""
    clauses = [clause.strip() for clause in text.split(",")]
    if not all(_CLAUSE.fullmatch(clause) for clause in clauses):
        return None
    return _parse(text)._replace(source=source)


def _keras_of(tensorflow: Versions) -> Versions:
    """The Keras that comes with TensorFlow: up to 2.15 the one of the same number."""
    later = tensorflow.at_least(*_KERAS_3_IN_TENSORFLOW)
    if later:
        return Versions((3,), None, tensorflow.source)
    if later is False:
        return tensorflow
    return Versions(tensorflow.lowest, None, tensorflow.source)


def _requirements(root: str, file: str) -> Iterator[tuple[str, str]]:
    """Names and version texts in a file of requirements; nothing where it is not there or not what it should be."""
    try:
        with open(os.path.join(root, file), encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError):
        return
    if not _NAMED.search(text):
        return
    if file == "pyproject.toml" or file in _LOCKS:
        yield from _in_toml(text, locked=file in _LOCKS)
        return
    for line in text.splitlines():
        if match := _LINE.match(line):
            yield _normal(match[1]), match[2].split(" ;")[0]


def _in_toml(text: str, locked: bool) -> Iterator[tuple[str, str]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # what reads the settings says so, where it matters
    if locked:
        for package in [*_list(data.get("package")), *_list(data.get("packages"))]:
            if isinstance(package, dict) and isinstance(package.get("version"), str):
                yield _normal(str(package.get("name"))), "==" + package["version"]
        return
    project = _dict(data.get("project"))
    groups = [project.get("dependencies"), *_dict(project.get("optional-dependencies")).values(),
              *_dict(data.get("dependency-groups")).values()]  # fmt: skip
    yield from _in_strings(entry for group in groups for entry in _list(group))
    poetry = _dict(_dict(data.get("tool")).get("poetry"))
    tables = [
        poetry.get("dependencies"),
        *(_dict(its).get("dependencies") for its in _dict(poetry.get("group")).values()),
    ]
    for table in tables:
        for name, said in _dict(table).items():
            version = said.get("version") if isinstance(said, dict) else said
            if isinstance(version, str):
                yield _normal(name), version


def _in_strings(entries: Iterable[object]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        if isinstance(entry, str) and (match := _LINE.match(entry)):
            yield _normal(match[1]), match[2]


def _parse(text: str) -> Versions:
    """The range that clauses of PEP 440, conda's ``=`` and poetry's ``^`` and ``~`` leave."""
    lowest: Version | None = None
    below: Version | None = None
    for clause in text.split(","):
        match = _CLAUSE.search(clause)
        if match is None:
            continue
        operator, number = match[1] or "==", tuple(int(part) for part in match[2].split("."))
        if operator in ("==", "===", "=", "~=", "~", "^", ">=", ">"):
            lowest = max(lowest or (), number)
        upper = {"<": number, "<=": _next(number), "^": (number[0] + 1,)}.get(operator)
        if operator in ("==", "===", "="):
            upper = _next(number)
        elif operator in ("~=", "~"):
            upper = _next(number[:-1] if operator == "~=" or len(number) > 2 else number)
        if upper is not None:
            below = min(below, upper) if below is not None else upper
    return Versions(lowest, below)


def _next(version: Version) -> Version:
    return (*version[:-1], version[-1] + 1) if version else version


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
