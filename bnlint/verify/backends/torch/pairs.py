"""Pairs of measurements: the layer as the source has it, and mended.

Both sides get fresh copies of the layer, the same input and the same seed, so that nothing but the mistake tells
them apart. ``gap_to_mended`` is ‖as written - mended‖ / ‖mended‖ of the outputs; other numbers come as
``…_as_written`` and ``…_mended``, and ``mended_by`` says what the difference is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bnlint.verify import fixture
from bnlint.verify.backends import Facts
from bnlint.verify.backends.torch.rebuilt import (
    Module,
    Rebuilt,
    Tensor,
    counted,
    dependence,
    movement,
    relative,
    seed,
    seeded,
    statistics,
)
from bnlint.verify.fixture import plain, raised


def pair(name: str, as_written: Any, mended: Any) -> Facts:
    return {f"{name}_as_written": as_written, f"{name}_mended": mended}


def of_outputs(
    rebuilt: Rebuilt,
    as_written: Callable[[], Module],
    mended: Callable[[], Module],
    mended_by: str,
    x: Tensor | None = None,
) -> Facts:
    """What two modules make of the same input: their gap, and whether a sample's output depends on its batch-mates.

    For Dropout, how far the output is from the input takes the place of the latter. Each module is built anew for
    each call, since a call can change it.
    """
    x = rebuilt.input() if x is None else x
    written, right = seeded(as_written(), x), seeded(mended(), x)
    facts = {
        **rebuilt.facts(x),
        **rebuilt.traits(),
        "mended_by": mended_by,
        "gap_to_mended": plain(relative(written, right)),
    }
    if not rebuilt.normalises:
        return {**facts, **pair("output_change", plain(relative(written, x)), plain(relative(right, x)))}
    part = x[: fixture.SUBSET]
    return {
        **facts,
        **pair(
            "batch_dependence",
            plain(dependence(written, seeded(as_written(), part))),
            plain(dependence(right, seeded(mended(), part))),
        ),
    }


def attempt(as_written: Callable[[], Any], mended: Callable[[], object]) -> tuple[Any, Facts]:
    """What the first returns, or None and what it raises; where it does, also what the second raises."""
    try:
        return as_written(), {}
    except Exception as error:  # whatever it is, it is reported
        facts = {"raises": raised(error)}
    try:
        mended()
    except Exception as error:
        facts["raises_mended"] = raised(error)
    return None, facts


@dataclass(frozen=True)
class Run:
    """What a number of batches made of a layer, and it of the last of them."""

    output: Tensor
    #: Distance of that output from its input.
    change: float
    #: The largest change of a running statistic; None where there are none.
    moved: float | None
    #: ‖statistics after - before‖ / ‖before‖.
    drift: float | None
    counted: int | None


def run(module: Module, layer: Module, batches: Iterable[Tensor]) -> Run:
    """Send the batches through ``module``, in the mode that it is in, and watch the ``layer`` within it."""
    before, count = statistics(layer), counted(layer)
    output = batch = None
    for number, batch in enumerate(batches):
        if not number:
            seed(batch.device.type)
        output = module(batch)
    after, count_after = statistics(layer), counted(layer)
    known = before is not None and after is not None
    return Run(
        output=output,
        change=relative(output, batch),
        moved=movement(before, after) if known else None,
        drift=relative(after, before) if known else None,
        counted=None if count is None or count_after is None else count_after - count,
    )


def of_runs(rebuilt: Rebuilt, as_written: Run, mended: Run, mended_by: str, batches: int) -> Facts:
    """The gap between the last outputs of two runs, what they counted and how far the running statistics moved.

    For Dropout, how far the output is from the input takes the place of the latter two.
    """
    facts = {
        **rebuilt.facts(next(rebuilt.batches(1))),
        **rebuilt.traits(),
        "mended_by": mended_by,
        "batches": batches,
        "gap_to_mended": plain(relative(as_written.output, mended.output)),
    }
    if not rebuilt.normalises:
        return {**facts, **pair("output_change", plain(as_written.change), plain(mended.change))}
    if rebuilt.counts:
        facts |= pair("batches_counted", as_written.counted, mended.counted)
    if facts["tracks_running_stats"]:
        facts |= pair("statistics_moved", plain(as_written.moved), plain(mended.moved))
    return facts
