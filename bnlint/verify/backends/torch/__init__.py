"""PyTorch: rebuild one ``torch.nn`` layer at a time and measure it, each kind of experiment in a module of its own.

Most kinds measure a pair: the layer as the source has it and *mended*, that is as it would be without the
mistake, each on fresh copies. Where the two agree the finding is refuted, whatever the rule believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from bnlint.experiment import Experiment, InputSpec, LayerSpec
from bnlint.finding import Plot
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options, says_out_of_memory
from bnlint.verify.backends.torch import (
    batch_of_one,
    bias_gradient,
    checkpoint_updates,
    container_reach,
    dropout_shift,
    ema_buffers,
    eps_carried,
    eps_gap,
    export_parity,
    freeze_drift,
    fresh_layer,
    functional_flag,
    half_statistics,
    mc_dropout,
    mode_gap,
    mode_in_forward,
    mode_override,
    momentum_memory,
    noise_run,
    norm_fit,
    plots,
    second_epoch,
    shared_statistics,
    stats_dropped,
    swa_buffers,
    trace_parity,
    training_flag,
)
from bnlint.verify.backends.torch.device import passed_over, pick_device
from bnlint.verify.backends.torch.rebuilt import Rebuilt, seeded, torch
from bnlint.verify.fixture import plain

#: The kinds of experiment, each ``measure(layer, device, options)``.
EXPERIMENTS: dict[str, Callable[[LayerSpec, str, Options], Facts]] = {
    "mode-gap": mode_gap.measure,
    "eval-dependence": mode_gap.measure,  # the same measurement, judged otherwise
    "batch-of-one": batch_of_one.measure,
    "momentum-memory": momentum_memory.measure,
    "degenerate-momentum": momentum_memory.measure,  # the same measurement, judged otherwise
    "half-statistics": half_statistics.measure,
    "eps-gap": eps_gap.measure,
    "eps-carried": eps_carried.measure,
    "second-epoch": second_epoch.measure,
    "mode-in-forward": mode_in_forward.measure,
    "freeze-drift": freeze_drift.measure,
    "fresh-layer": fresh_layer.measure,
    "functional-flag": functional_flag.measure,
    "container-reach": container_reach.measure,
    "mode-override": mode_override.measure,
    "training-flag": training_flag.measure,
    "mc-dropout": mc_dropout.measure,
    "trace-parity": trace_parity.measure,
    "export-parity": export_parity.measure,
    "ema-buffers": ema_buffers.measure,
    "swa-buffers": swa_buffers.measure,
    "checkpoint-updates": checkpoint_updates.measure,
    "noise-run": noise_run.measure,
    "shared-statistics": shared_statistics.measure,
    "stats-dropped": stats_dropped.measure,
    "bias-gradient": bias_gradient.measure,
    "dropout-shift": dropout_shift.measure,
    "norm-fit": norm_fit.measure,
}

#: Kinds of which many layers can be measured at once.
TOGETHER: dict[str, Callable[[Sequence[LayerSpec], str], list[Facts | None]]] = {
    "momentum-memory": momentum_memory.measure_together,
}

#: Kinds that are measured on a number of channels of their own, so that layers that differ in theirs alone get the same
#: answer.
OF_ONE_SIZE = frozenset({"momentum-memory", "degenerate-momentum", "swa-buffers", "dropout-shift"})


class TorchBackend:
    def __init__(self, device: str, fallback: str = "") -> None:
        self.device = device
        self.fallback = fallback
        self.versions = {"torch": str(torch.__version__)}
        self._of_one_size: dict[str, Facts] = {}
        # The tensors are so small that a second thread costs more than it saves, many times more on a busy machine.
        torch.set_num_threads(1)

    def measure(self, experiment: Experiment, layer: LayerSpec, device: str) -> Facts:
        if experiment.kind not in EXPERIMENTS:
            raise CannotMeasure(f"there is no experiment of kind {experiment.kind!r} for torch")
        if experiment.kind not in OF_ONE_SIZE:
            return self._measure(experiment, layer, device)
        key = f"{device} {experiment.kind} {sorted(experiment.options.items())} {_but_for_its_size(layer)}"
        if key not in self._of_one_size:
            self._of_one_size[key] = self._measure(experiment, layer, device)
        return dict(self._of_one_size[key])

    def _measure(self, experiment: Experiment, layer: LayerSpec, device: str) -> Facts:
        with torch.no_grad():
            return EXPERIMENTS[experiment.kind](layer, device, experiment.options)

    def measure_together(self, kind: str, layers: Sequence[LayerSpec], device: str) -> list[Facts | None]:
        if kind not in TOGETHER:
            return [None] * len(layers)
        with torch.no_grad():
            return TOGETHER[kind](layers, device)

    def outputs(self, kind: str, layer: LayerSpec, source: InputSpec, device: str) -> Facts:
        if kind != "mode-gap":
            return {}
        named = layer.arguments.get("num_features")
        if max(math.prod(source.shape), named if isinstance(named, int) else 0) > fixture.MAX_ELEMENTS:
            raise CannotMeasure(f"the source's input {fixture.shape_text(source.shape)} is too large to be run here")
        x = torch.full(source.shape, source.fill, dtype=torch.float32, device=device)
        facts: Facts = {"source_input": f"{fixture.shape_text(source.shape)} filled with {source.fill:g}"}
        with torch.no_grad():
            for mode, training in (("train", True), ("eval", False)):
                output = seeded(Rebuilt(layer, device, like=x).fresh().train(training), x).double()
                facts[f"output_{mode}"] = plain(output.mean().item())
                spread = (output.max() - output.min()).item()
                if spread > 1e-6 * max(1.0, output.abs().max().item()):
                    facts[f"output_{mode}_spread"] = plain(spread)
        return facts

    def plots(self, experiment: Experiment, layer: LayerSpec, device: str) -> list[Plot]:
        with torch.no_grad():
            return plots.plots(experiment.kind, layer, device)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, torch.cuda.OutOfMemoryError) or says_out_of_memory(error)


def _but_for_its_size(layer: LayerSpec) -> LayerSpec:
    """The layer with one channel, where it has a number of channels that PyTorch accepts."""
    size = layer.arguments.get("num_features")
    if not isinstance(size, int) or size < 1:
        return layer
    return replace(layer, arguments={**layer.arguments, "num_features": 1})


def open_backend(device: str) -> TorchBackend:
    picked = pick_device(device)
    return TorchBackend(picked, passed_over(device, picked))
