"""``momentum-memory``: how much of a batch's noise stays in the running mean.

With new-batch weight a, the running mean over many batches has the variance a / (2 - a) of one batch's mean
(Lucas and Saccucci 1990, eq. 2 in the limit), as if (2 - a) / a batches were averaged. The layer starts from the
true statistics, so that what is seen is its memory and not the way from its initial 0 and 1.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, relative, torch
from bnlint.verify.fixture import plain

#: Batches fed to a layer whose memory is measured, and how many pass before anything is recorded.
MEMORY_BATCHES = 500
MEMORY_BURN_IN = 100


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
        if index % 20 == 0:
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


def _evaluate(layer: Module, x: Tensor) -> Tensor:
    output = layer.eval()(x)
    layer.train()
    return output


def _converged(layer: Module) -> Module:
    if layer.running_mean is not None:
        layer.running_mean.fill_(fixture.INPUT_MEAN)
        layer.running_var.fill_(fixture.INPUT_SD**2)
    return layer


def _noise(samples: list[Tensor]) -> float:
    """Standard deviation around the true mean, over batches and channels."""
    return float((torch.stack(samples).cpu().double() - fixture.INPUT_MEAN).square().mean().sqrt())
