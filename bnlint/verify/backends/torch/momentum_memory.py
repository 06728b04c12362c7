"""``momentum-memory``: how much of a batch's noise stays in the running mean.

With new-batch weight a, the running mean over many batches has the variance a / (2 - a) of one batch's mean
(Lucas and Saccucci 1990, eq. 2 in the limit), as if (2 - a) / a batches were averaged. The layer starts from the
true statistics, so that what is seen is its memory and not the way from its initial 0 and 1.

``measure_together`` measures many layers that differ in their momentum alone, along the channels. What a batch's
statistics are does not depend on the momentum: a layer with momentum 1 shows them. Each layer itself is run for a few
batches and must be where the recursion r <- r + a (batch - r) is, which then takes all of them through the others at
once; a layer that is elsewhere is measured by itself. Eval mode is that of one layer with the channels of all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, relative, torch
from bnlint.verify.fixture import plain

#: Batches fed to a layer whose memory is measured, and how many pass before anything is recorded.
MEMORY_BATCHES = 500
MEMORY_BURN_IN = 100
#: How often eval mode is looked at, in batches.
EVERY = 20
#: Batches that each layer itself is run for where many are measured together, and how close it must be to the others.
CHECKED = 3
CLOSE = 1e-5
#: Layers that are measured together at most: what they need of memory grows with them.
TOGETHER = 512
_BATCHED = re.compile(r"torch\.nn\.(BatchNorm[123]d|SyncBatchNorm)")


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device, features=fixture.MEMORY_CHANNELS)
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no momentum")
    if not rebuilt.name.startswith("Instance"):
        rebuilt.spatial = (1,) * len(rebuilt.spatial)
    test = rebuilt.input()
    momentum = rebuilt.fresh().momentum
    layer, ideal = _converged(rebuilt.fresh()), _converged(rebuilt.fresh()).eval()(test)
    # With momentum 1 the converted layer would stay at the true statistics that it is given here.
    converted = None if momentum in (None, 1) else _converged(rebuilt.fresh(momentum=1 - momentum))
    tracks = layer.running_mean is not None
    weight = None if momentum is None else plain(float(momentum))
    means, batch_means, errors, converted_errors = [], [], [], []
    for index, batch in enumerate(rebuilt.batches(MEMORY_BATCHES)):
        layer(batch)
        if converted is not None:
            converted(batch)
        if index < MEMORY_BURN_IN or not tracks:
            continue
        means.append(layer.running_mean.clone())
        batch_means.append(batch.transpose(0, 1).flatten(1).mean(1))
        if index % EVERY == 0:
            errors.append(relative(_evaluate(layer, test), ideal))
            if converted is not None:
                converted_errors.append(relative(_evaluate(converted, test), ideal))
    facts = {**rebuilt.facts(test), "tracks_running_stats": tracks, "momentum": weight}
    if converted is not None:
        difference = relative(_evaluate(layer, test), _evaluate(converted, test))
        facts["difference_from_converted"] = plain(difference)
    if tracks:
        facts["batches"] = MEMORY_BATCHES
        facts["new_batch_weight"] = weight
        facts["ratio"] = plain(_noise(means) / _noise(batch_means))
        facts["eval_error"] = plain(sum(errors) / len(errors))
        if converted_errors:
            facts["eval_error_converted"] = plain(sum(converted_errors) / len(converted_errors))
    return facts


def measure_together(specs: Sequence[LayerSpec], device: str) -> list[Facts | None]:
    """The same facts for many layers; None for one that has to be measured by itself."""
    facts: list[Facts | None] = [None] * len(specs)
    alike: dict[str, list[int]] = {}
    for number, spec in enumerate(specs):
        momentum, features = spec.arguments.get("momentum"), spec.arguments.get("num_features")
        is_sound = isinstance(momentum, float) and 0 < momentum < 1 and isinstance(features, int) and features > 0
        if _BATCHED.fullmatch(spec.kind) and is_sound:
            others = {name: value for name, value in spec.arguments.items() if name not in ("momentum", "num_features")}
            alike.setdefault(f"{spec.kind} {sorted(others.items())}", []).append(number)
    for numbers in alike.values():
        for start in range(0, len(numbers), TOGETHER):
            some = numbers[start : start + TOGETHER]
            if len(some) > 1:
                for number, measured in zip(some, _together([specs[number] for number in some], device), strict=True):
                    facts[number] = measured
    return facts


def _together(specs: Sequence[LayerSpec], device: str) -> list[Facts | None]:
    layers = [Rebuilt(spec, device, features=fixture.MEMORY_CHANNELS) for spec in specs]
    for rebuilt in layers:
        rebuilt.spatial = (1,) * len(rebuilt.spatial)
    first = layers[0]
    probe = _converged(first.fresh(momentum=1.0))
    if probe.running_mean is None:
        return [None] * len(specs)
    momenta = [float(rebuilt.arguments["momentum"] or 0) for rebuilt in layers]
    weights = torch.tensor([*momenta, *(1 - momentum for momentum in momenta)], device=device).unsqueeze(1)
    means = torch.full((len(weights), first.features), fixture.INPUT_MEAN, device=device)
    variances = torch.full_like(means, fixture.INPUT_SD**2)
    squares = torch.zeros(len(specs), dtype=torch.float64, device=device)
    batch_means, errors, holds = [], [], [True] * len(specs)
    test = first.input()
    ideal = _converged(first.fresh()).eval()(test)
    for index, batch in enumerate(first.batches(MEMORY_BATCHES)):
        probe(batch)
        means = _step(means, probe.running_mean, weights)
        variances = _step(variances, probe.running_var, weights)
        if index + 1 == CHECKED:
            begun = list(islice(first.batches(MEMORY_BATCHES), CHECKED))
            own_means, own_variances = _by_themselves(layers, momenta, begun)
            is_there = (own_means - means).abs() <= CLOSE * own_means.abs()
            is_there &= (own_variances - variances).abs() <= CLOSE * own_variances.abs()
            holds = is_there.all(1).view(2, -1).all(0).tolist()
        if index < MEMORY_BURN_IN:
            continue
        squares += (means[: len(specs)].double() - fixture.INPUT_MEAN).square().sum(1)
        batch_means.append(batch.transpose(0, 1).flatten(1).mean(1))
        if index % EVERY == 0:
            errors.append(_distances(_evaluate_all(first, means, variances, test), ideal))
    outputs = _evaluate_all(first, means, variances, test)
    differences = _distances(outputs[: len(specs)], outputs[len(specs) :])
    mean_errors = torch.stack(errors).mean(0)
    ratios = (squares / (len(batch_means) * first.features)).sqrt() / _noise(batch_means)
    measured: list[Facts | None] = []
    conditions = first.facts(test)
    for number, rebuilt in enumerate(layers):
        weight = plain(momenta[number])
        facts = {
            **conditions,
            "chosen": rebuilt.chosen,
            "tracks_running_stats": True,
            "momentum": weight,
            "difference_from_converted": plain(float(differences[number])),
            "batches": MEMORY_BATCHES,
            "new_batch_weight": weight,
            "ratio": plain(float(ratios[number])),
            "eval_error": plain(float(mean_errors[number])),
            "eval_error_converted": plain(float(mean_errors[len(specs) + number])),
        }
        measured.append(facts if holds[number] else None)
    return measured


def _evaluate(layer: Module, x: Tensor) -> Tensor:
    output = layer.eval()(x)
    layer.train()
    return output


def _step(statistics: Tensor, of_batch: Tensor, weights: Tensor) -> Tensor:
    """In single precision and in this order, as the layer does it on the CPU: to the last bit for the mean."""
    return weights * of_batch + (1 - weights) * statistics


def _by_themselves(
    layers: Sequence[Rebuilt], momenta: Sequence[float], batches: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The running statistics to which the layers themselves come, and those with 1 - momentum; a row each."""
    sides: list[list[Tensor]] = [[], []]
    for rebuilt, momentum in zip(layers, momenta, strict=True):
        layer = rebuilt.fresh()
        for side in sides:
            _converged(layer)
            for batch in batches:
                layer(batch)
            side.append(torch.stack([layer.running_mean, layer.running_var]))
            layer.momentum = 1 - momentum
    means, variances = torch.stack([*sides[0], *sides[1]]).unbind(1)
    return means, variances


def _evaluate_all(rebuilt: Rebuilt, means: Tensor, variances: Tensor, x: Tensor) -> Tensor:
    """What a layer with each row of these statistics makes of the same input in eval mode, a row each."""
    wide = rebuilt.fresh(num_features=means.numel())
    wide.running_mean.copy_(means.flatten())
    wide.running_var.copy_(variances.flatten())
    output = wide.eval()(x.repeat(1, len(means), *([1] * (x.dim() - 2))))
    return output.unflatten(1, means.shape).transpose(0, 1)


def _distances(actual: Tensor, reference: Tensor) -> Tensor:
    """``relative`` for each row; the reference is the same for all or one a row."""
    actual, reference = actual.double(), reference.double()
    rows = reference if reference.dim() == actual.dim() else reference.unsqueeze(0)
    return (actual - rows).flatten(1).norm(dim=1).cpu() / rows.flatten(1).norm(dim=1).cpu()


def _converged(layer: Module) -> Module:
    if layer.running_mean is not None:
        layer.running_mean.fill_(fixture.INPUT_MEAN)
        layer.running_var.fill_(fixture.INPUT_SD**2)
    return layer


def _noise(samples: list[Tensor]) -> float:
    """Standard deviation around the true mean, over batches and channels."""
    return float((torch.stack(samples).cpu().double() - fixture.INPUT_MEAN).square().mean().sqrt())
