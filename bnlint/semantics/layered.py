"""A mapping of which copies are cheap, and which tells fast where two descendants of one mapping differ.

An analysis copies its state at every branch and joins the copies behind it, while most of what a large program has
defined stays the same. So copies share what they were copied from, and each keeps its own changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")
#: Own changes beyond which they are laid down, so that copies share them too.
_MOST_OWN = 64


class _Gone:
    """Stands for a key that was taken out."""


_GONE = _Gone()


class _Layer:
    """What was laid down at one time: the keys that changed since the layer ``below``."""

    __slots__ = ("below", "changed", "height")

    def __init__(self, below: _Layer | None, changed: frozenset[object]) -> None:
        self.below = below
        self.changed = changed
        self.height: int = 0 if below is None else below.height + 1


class Layered(Generic[_K, _V]):
    """A mapping. ``_shared`` is what the layers down from ``_layer`` hold together, and is never changed."""

    __slots__ = ("_layer", "_own", "_shared")

    def __init__(self) -> None:
        self._layer = _Layer(None, frozenset())
        self._shared: dict[_K, _V] = {}
        self._own: dict[_K, _V | _Gone] = {}

    def get(self, key: _K) -> _V | None:
        found = self._own.get(key)
        if found is None:
            return self._shared.get(key)
        return None if isinstance(found, _Gone) else found

    def __contains__(self, key: _K) -> bool:
        return self.get(key) is not None

    def __getitem__(self, key: _K) -> _V:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: _K, value: _V) -> None:
        self._own[key] = value

    def pop(self, key: _K) -> _V | None:
        """Take a key out; None where it is not there."""
        found = self.get(key)
        if found is not None:
            self._own[key] = _GONE
        return found

    def copy(self) -> Layered[_K, _V]:
        if len(self._own) > _MOST_OWN:
            self._lay_down()
        copy: Layered[_K, _V] = Layered.__new__(Layered)
        copy._layer, copy._shared, copy._own = self._layer, self._shared, self._own.copy()
        return copy

    def _lay_down(self) -> None:
        shared = self._shared.copy()
        for key, value in self._own.items():
            if isinstance(value, _Gone):
                shared.pop(key, None)
            else:
                shared[key] = value
        self._layer, self._shared, self._own = _Layer(self._layer, frozenset(self._own)), shared, {}

    def equals(self, other: Layered[_K, _V]) -> bool:
        return all(left == right for _, left, right in self.differing(other))

    def differing(self, other: Layered[_K, _V]) -> Iterator[tuple[_K, _V | None, _V | None]]:
        """The keys under which the two hold different objects, with both; None for what one lacks."""
        own, others = self._own, other._own
        keys: dict[object, None] = {key: None for key, value in own.items() if others.get(key) is not value}
        keys |= {key: None for key in others if key not in own}
        mine, theirs = self._layer, other._layer
        while mine is not theirs:
            higher = mine if mine.height >= theirs.height else theirs
            keys |= dict.fromkeys(higher.changed)
            assert higher.below is not None  # both descend from one mapping
            if higher is mine:
                mine = higher.below
            else:
                theirs = higher.below
        for key in keys:
            left, right = self.get(key), other.get(key)  # type: ignore[arg-type]
            if left is not right:
                yield key, left, right  # type: ignore[misc]
