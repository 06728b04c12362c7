"""Settings: one dataclass, fed by ``[tool.bnlint]``, by the command line and by flake8's configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, cast

from bnlint.assumptions import NOTHING_TAUGHT, SETTING, Assumptions, Teaching
from bnlint.errors import UsageError
from bnlint.report import FORMATS
from bnlint.verify import DEVICES

_LISTS = ("select", "ignore", "extend-select", "exclude", "extend-exclude", "mode-managers", "managed-classes")
#: How sure findings are at least that are shown; the values of ``finding.Confidence``, the surest first.
CONFIDENCES = ("certain", "likely", "possible")
#: Where Keras 3 computes (``keras.backend.backend()``).
_BACKENDS = ("tensorflow", "torch", "jax")
_CHOICES = {"format": FORMATS, "device": DEVICES, "min-confidence": CONFIDENCES, "keras-backend": _BACKENDS}
_VERSIONS = ("torch-version", "keras-version")
_TABLES = ("batchnorm-classes", "model-factories")


class Selection(NamedTuple):
    """One source's say about which codes are on, each named in full or by a prefix.

    ``select`` replaces what is on by default, ``extend_select`` adds to it, ``ignore`` takes away. The
    longest prefix that fits a code decides about it, ``ignore`` where two are equally long. ``source`` is what a
    message about a wrong one begins with, before the name of the option or key.
    """

    select: tuple[str, ...] | None = None
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    source: str = ""

    def decides(self, code: str) -> bool | None:
        """Whether ``code`` is on; ``None`` where this source does not say."""
        on = _longest((*(self.select or ()), *self.extend_select), code)
        off = _longest(self.ignore, code)
        if not on and not off:
            return None if self.select is None else False
        return on > off

    def check(self, codes: Collection[str]) -> None:
        """Raise ``UsageError`` for what is no code, of those that there are, nor the beginning of one."""
        for option, prefixes in self._prefixes():
            for prefix in prefixes:
                if not prefix or not any(code.startswith(prefix) for code in codes):
                    from bnlint.rule import RETIRED

                    advice = f"; bnlint --explain {prefix} says why" if prefix in RETIRED else suggestion(prefix, codes)
                    raise UsageError(f"{self.source}{option}: no rule has the code or prefix {prefix!r}{advice}")

    @property
    def names_codes(self) -> bool:
        """Whether there is anything to ``check``."""
        return any(prefixes for _, prefixes in self._prefixes())

    def _prefixes(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return ("select", self.select or ()), ("extend-select", self.extend_select), ("ignore", self.ignore)


class Settings(NamedTuple):
    """What a run goes by.

    ``root`` is the project's directory: patterns are relative to it and the cache lies in it. ``selections``
    stand in rising order of precedence; the last that decides about a code counts. ``exclude`` is ``None``
    where the built-in list holds. Versions are as written, empty where the project's requirements tell.
    """

    root: str
    selections: tuple[Selection, ...] = ()
    exclude: tuple[str, ...] | None = None
    extend_exclude: tuple[str, ...] = ()
    format: str = "text"
    device: str = "auto"
    min_confidence: str = "likely"
    torch_version: str = ""
    keras_version: str = ""
    keras_backend: str = ""
    teaching: Teaching = NOTHING_TAUGHT

    def shows(self, confidence: str) -> bool:
        """Whether findings of this confidence are shown."""
        return CONFIDENCES.index(confidence) <= CONFIDENCES.index(self.min_confidence)

    def enabled(self, code: str, default: bool) -> bool:
        """Whether the rule with ``code`` is on, given whether it is on by ``default``."""
        for selection in reversed(self.selections):
            decision = selection.decides(code)
            if decision is not None:
                return decision
        return default

    def assumptions(self) -> Assumptions:
        """What is taken for granted: by these settings, else by the project's own requirements."""
        from bnlint.source.requirements import declared_versions, parse_versions

        torch, keras = declared_versions(self.root)
        return Assumptions(
            parse_versions(self.torch_version, f"{SETTING} torch-version") or torch,
            parse_versions(self.keras_version, f"{SETTING} keras-version") or keras,
            self.keras_backend,
            self.teaching,
        )

    @property
    def names_codes(self) -> bool:
        """Whether there is anything to ``check``."""
        return any(selection.names_codes for selection in self.selections)

    def check(self, codes: Collection[str]) -> None:
        """Raise ``UsageError`` where a selection names what is no code nor the beginning of one."""
        for selection in self.selections:
            selection.check(codes)


def load_settings(directory: str) -> Settings:
    """The settings of the nearest pyproject.toml, from ``directory`` upward, that has a ``[tool.bnlint]``.

    Raises ``UsageError`` for a file that cannot be read or that says something unknown. Codes are not checked here:
    to know those that there are takes a while.
    """
    root = None
    here = os.path.abspath(directory)
    while True:
        path = os.path.join(here, "pyproject.toml")
        if os.path.isfile(path):
            table = _read_table(path)
            if table is not None:
                return _settings(here, table, os.path.relpath(path))
            root = root or here
        if root is None and os.path.exists(os.path.join(here, ".git")):
            root = here
        parent = os.path.dirname(here)
        if parent == here:
            return Settings(root or os.path.abspath(directory))
        here = parent


def suggestion(wrong: str, known: Iterable[str], otherwise: str = "see bnlint --list-rules") -> str:
    """The end of a message about a ``wrong`` name: the nearest ``known`` one, or what else to do."""
    import difflib

    near = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; {otherwise}"


def _longest(prefixes: Iterable[str], code: str) -> int:
    return max((len(prefix) for prefix in prefixes if code.startswith(prefix)), default=0)


def _read_table(path: str) -> Mapping[str, Any] | None:
    shown = os.path.relpath(path)
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
        if "bnlint" not in text and "\0" not in text:
            return None  # whatever is wrong with it is for other tools to say, and reading it takes a while
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {error.strerror}; check its permissions") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown}: not valid TOML: {error}; mend it") from error
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{shown}: not valid TOML: {error}; mend it") from error
    tools = data.get("tool", {})
    table = tools.get("bnlint") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{shown}: tool.bnlint must be a table; write [tool.bnlint]")
    return cast("Mapping[str, Any] | None", table)


def _settings(root: str, table: Mapping[str, Any], shown: str) -> Settings:
    known = (*_LISTS, *_CHOICES, *_VERSIONS, *_TABLES)
    for key, value in table.items():
        where = f"{shown}: [tool.bnlint] {key}"
        if key not in known:
            raise UsageError(f"{where}: unknown key{suggestion(key, known, 'known are ' + ', '.join(known))}")
        if key in _LISTS and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise UsageError(f'{where}: must be a list of strings, such as ["..."]')
        if key in _CHOICES and value not in _CHOICES[key]:
            raise UsageError(f"{where}: {value!r} is none of {', '.join(_CHOICES[key])}")
        if key in _TABLES:
            _check_taught(key, value, where)
        if key in _VERSIONS:
            _check_version(value, where)
        if key in ("exclude", "extend-exclude"):
            _check_patterns(value, where)

    def strings(key: str) -> tuple[str, ...] | None:
        return tuple(table[key]) if key in table else None

    own = f"{shown}: [tool.bnlint] "
    return Settings(
        root=root,
        selections=(Selection(strings("select"), strings("extend-select") or (), strings("ignore") or (), own),),
        exclude=strings("exclude"),
        extend_exclude=strings("extend-exclude") or (),
        format=table.get("format", "text"),
        device=table.get("device", "auto"),
        min_confidence=table.get("min-confidence", "likely"),
        torch_version=table.get("torch-version", ""),
        keras_version=table.get("keras-version", ""),
        keras_backend=table.get("keras-backend", ""),
        teaching=Teaching(
            strings("mode-managers") or (),
            strings("managed-classes") or (),
            tuple(sorted(table.get("batchnorm-classes", {}).items())),
            tuple(sorted((name, tuple(owned)) for name, owned in table.get("model-factories", {}).items())),
        ),
    )


def _check_taught(key: str, value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: must be a table; write [tool.bnlint.{key}]")
    from bnlint.frameworks.layers import LAYERS

    for name, said in value.items():
        if key == "batchnorm-classes" and said not in ("torch", "keras"):
            raise UsageError(f"{where}: {name}: {said!r} is none of torch, keras")
        if key == "model-factories":
            if not isinstance(said, list) or not all(isinstance(item, str) for item in said):
                raise UsageError(f'{where}: {name}: must be a list of layers, such as ["torch.nn.BatchNorm2d"], or []')
            for item in said:
                if item not in LAYERS:
                    near = suggestion(item, LAYERS, "write it as in torch.nn.BatchNorm2d")
                    raise UsageError(f"{where}: {name}: no layer is known by the name {item!r}{near}")


def _check_version(value: object, where: str) -> None:
    from bnlint.source.requirements import parse_versions

    if not isinstance(value, str) or parse_versions(value, where) is None:
        raise UsageError(f'{where}: {value!r} is no version; write it as "3.15" or ">=3,<4"')


def _check_patterns(patterns: Iterable[str], where: str) -> None:
    from bnlint.source.ignore import is_pattern

    for pattern in patterns:
        if not is_pattern(pattern):
            raise UsageError(f"{where}: {pattern!r} is no valid pattern; write it as in a .gitignore file")
