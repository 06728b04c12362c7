"""Where a plot's lines and labels go; the page's template draws them.

The SVG is made here and not by a plotting library: the curves are plain lines and steps, they take their colours from
the page, in light and in dark, which drawn pictures do not, and a page of a hundred findings stays small. The libraries
that do this well need a hundred megabytes or scripts in the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bnlint.finding import Curve, Plot

WIDTH, HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 10, 42
#: Steps between ticks, times a power of ten.
_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Line:
    name: str
    path: str


@dataclass(frozen=True)
class Drawing:
    """A plot in the units of a ``WIDTH`` by ``HEIGHT`` picture; ``told`` is what it shows, in words."""

    plot: Plot
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    reference: Line | None
    told: str
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


class _Axis:
    """A range of numbers along a stretch of the picture, and round numbers in it."""

    def __init__(self, numbers: Iterable[float], start: float, end: float, most: int, margin: float = 0.0) -> None:
        known = list(numbers) or [0.0, 1.0]
        low, high = min(known), max(known)
        if not high - low > 1e-300:
            room = abs(low) / 2 if abs(low) > 1e-300 else 0.5
            low, high = low - room, high + room
        self.low, self.high = low, high + margin * (high - low)
        self.start, self.end = start, end
        self.most = most

    def at(self, number: float) -> float:
        return round(self.start + (number - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self) -> tuple[Tick, ...]:
        rough = (self.high - self.low) / self.most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in _STEPS if power * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
        return tuple(Tick(self.at(number * step), f"{number * step:.6g}") for number in range(first, last + 1))


def draw(plot: Plot) -> Drawing:
    values = [value for curve in plot.curves for value in curve.values if value is not None]
    if plot.reference is not None:
        values += [value for value in plot.reference.values if value is not None]
    if plot.bins:
        values.append(0.0)
    x = _Axis(plot.x, _LEFT, WIDTH - _RIGHT, 6)
    y = _Axis(values, HEIGHT - _BOTTOM, _TOP, 5, margin=0.05)
    reference = None
    if plot.reference is not None and plot.reference.values[0] is not None:
        height = y.at(plot.reference.values[0])
        reference = Line(plot.reference.name, f"M{_LEFT} {height}H{WIDTH - _RIGHT}")
    path = _steps if plot.bins else _polyline
    lines = tuple(Line(curve.name, path(plot.x, curve.values, x, y)) for curve in plot.curves)
    return Drawing(plot, x.ticks(), y.ticks(), lines, reference, _told(plot))


def _polyline(places: Sequence[float], values: Sequence[float | None], x: _Axis, y: _Axis) -> str:
    parts, pen = [], "M"
    for place, value in zip(places, values, strict=False):
        if value is None:
            pen = "M"
        else:
            parts.append(f"{pen}{x.at(place)} {y.at(value)}")
            pen = "L"
    return "".join(parts)


def _steps(limits: Sequence[float], values: Sequence[float | None], x: _Axis, y: _Axis) -> str:
    parts = [f"M{x.at(limits[0])} {y.at(0.0)}"]
    for value, limit in zip(values, limits[1:], strict=True):
        parts.append(f"V{y.at(value or 0.0)}H{x.at(limit)}")
    return "".join([*parts, f"V{y.at(0.0)}"])


def _told(plot: Plot) -> str:
    parts = [plot.title, *(_of_bins(plot, its) if plot.bins else _of_line(its) for its in plot.curves)]
    if plot.reference is not None and plot.reference.values[0] is not None:
        parts.append(f"{plot.reference.name}: {plot.reference.values[0]:.3g}")
    return "; ".join(parts)


def _of_line(curve: Curve) -> str:
    known = [value for value in curve.values if value is not None]
    if not known:
        return f"{curve.name}: no finite number"
    return f"{curve.name}: from {known[0]:.3g} to {known[-1]:.3g}, between {min(known):.3g} and {max(known):.3g}"


def _of_bins(plot: Plot, curve: Curve) -> str:
    reached = list(_filled(plot, curve))
    if not reached:
        return f"{curve.name}: nothing"
    return f"{curve.name}: from {reached[0][0]:.3g} to {reached[-1][1]:.3g}"


def _filled(plot: Plot, curve: Curve) -> Iterator[tuple[float, float]]:
    for low, high, value in zip(plot.x, plot.x[1:], curve.values, strict=False):
        if value:
            yield low, high
