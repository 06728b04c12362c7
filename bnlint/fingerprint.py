"""What results depend on beside the files: which rules there are, their code and bnlint's, and the Python that runs it.

Code counts by its content, so that editing a rule in a checkout takes effect at once, and so that a cache that was
carried to another machine still serves. But to hash it all, and to load the rules only to ask for their codes, would
take longer than the rest of a run that finds nothing new. So the answer is noted in the cache under a *seal*: names,
sizes and times of bnlint's files, and the times of the folders in which packages are installed.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import bnlint
from bnlint.cache import ResultCache, key
from bnlint.source.dependencies import read

if TYPE_CHECKING:
    from bnlint.rule import Rule

_OWN = ("bnlint", "bnlint.rules")


class Sketch(NamedTuple):
    """What can be said of a rule without loading it. There are no needles where it does not go by them alone."""

    code: str
    default: bool
    needles: list[list[str]] | None
    needle_pattern: str

    def concerns(self, text: str) -> bool | None:
        """What ``Rule.concerns`` says of a file; None where only the rule knows."""
        if self.needles is None:
            return None
        if not all(any(needle in text for needle in group) for group in self.needles):
            return False
        return not self.needle_pattern or re.search(self.needle_pattern, text, re.ASCII) is not None


class Installed(NamedTuple):
    """What is known of all rules without loading them, and a hash of everything that they rest on."""

    rules: tuple[Sketch, ...]
    fingerprint: str


def installed(cache: ResultCache) -> Installed:
    """The rules as they are now. Raises ``UsageError`` where they cannot be loaded."""
    if not cache:
        return Installed(_rules(), "")
    seal = key(sys.version, *sys.path, json.dumps([_times(sys.path), _stamps(_own_folders())]))
    known = _noted(cache.note(seal))
    if known is None:
        rules = _rules()
        packs = _packs()
        known = Installed(rules, _fingerprint([*_own_folders(), *packs]))
        cache.write_down(seal, json.dumps({**known._asdict(), "packs": packs, "stamps": _stamps(packs)}))
    return known


def _rules() -> tuple[Sketch, ...]:
    from bnlint.rule import registry

    return tuple(_sketch(rule) for rule in registry().values())


def _sketch(rule: Rule) -> Sketch:
    from bnlint.rule import Rule

    needles = None
    if type(rule).concerns is Rule.concerns and all(needle.isascii() for group in rule.needles for needle in group):
        needles = [[needle.decode("ascii") for needle in group] for group in rule.needles]
    return Sketch(rule.code, rule.default, needles, rule.needle_pattern)


def _noted(text: str | None) -> Installed | None:
    """What a note says, if the files of the rule packs are still what they were."""
    if text is None:
        return None
    try:
        note = json.loads(text)
        if _stamps(note["packs"]) != note["stamps"]:
            return None
        return Installed(tuple(Sketch(*fields) for fields in note["rules"]), str(note["fingerprint"]))
    except (ValueError, TypeError, KeyError):
        return None


def _own_folders() -> list[str]:
    import bnlint.rules

    return [*bnlint.__path__, *bnlint.rules.__path__]


def _packs() -> list[str]:
    """The folders, and modules that lie in none, of rules that are not bnlint's own."""
    from bnlint.rule import registry

    places: set[str] = set()
    for rule in registry().values():
        module = type(rule).__module__
        package = module.rpartition(".")[0] or module
        if package not in _OWN:
            holder: Any = sys.modules.get(package)
            places.update(getattr(holder, "__path__", None) or [getattr(holder, "__file__", None) or ""])
    return sorted(os.path.abspath(place) for place in places if place)


def _times(folders: Iterable[str]) -> list[int]:
    times = []
    for folder in folders:
        with suppress(OSError):
            times.append(os.stat(folder).st_mtime_ns)
    return times


def _stamps(places: Iterable[str]) -> list[list[str | int]]:
    """Name, size and time of every file at or below these places: data as well as code."""
    return [[path, status.st_size, status.st_mtime_ns] for path, status in _files(places)]


def _files(places: Iterable[str]) -> Iterator[tuple[str, os.stat_result]]:
    for place in places:
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except NotADirectoryError:
            yield place, os.stat(place)
            continue
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    yield from _files([entry.path])
            else:
                with suppress(OSError):
                    yield entry.path, entry.stat()


def _fingerprint(places: Iterable[str]) -> str:
    from importlib.metadata import entry_points, version

    from bnlint.rule import ENTRY_POINT_GROUP

    packs = [(entry.value, entry.dist.version if entry.dist else "") for entry in entry_points(group=ENTRY_POINT_GROUP)]
    facts = repr((bnlint.__version__, sys.version_info[:3], version("libcst"), sorted(packs)))
    return key(facts, *(read(path)[1] for path, _ in _files(places))).hex()
