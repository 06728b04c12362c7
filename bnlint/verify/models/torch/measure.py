"""What the two modes of a whole model differ by.

The model is used first: ``WARM_UP`` batches in train mode give its running statistics the values that its own layers
make of normal data, so that eval mode computes something. Then, each on a fresh copy with Dropout at p = 0:

- the gap ‖train − eval‖ / ‖eval‖ of the outputs for one more batch,
- the largest change of the first samples' outputs when their batch-mates are taken away, relative to the largest
  output, in either mode,
- how far the running mean of each layer moves in ``VALIDATION`` batches of other data (mean ½), in its own running
  standard deviations: what a validation in train mode does to it.

Dropout is judged by itself: the gap between two passes in train mode, with its probabilities as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts
from bnlint.verify.backends.torch.rebuilt import dependence, relative
from bnlint.verify.fixture import plain
from bnlint.verify.models.torch.shapes import find_input, outputs

WARM_UP = 10
VALIDATION = 8
_NORMS = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.modules.instancenorm._InstanceNorm)
_DROPOUTS = torch.nn.modules.dropout._DropoutNd


def measure(build: Callable[[], Any], name: str, kind: str, device: str) -> Facts:
    """The numbers for a model, the same for all kinds of experiments. Raises ``CannotMeasure``."""
    torch.manual_seed(fixture.SEED)
    model = build()
    if not isinstance(model, torch.nn.Module):
        raise CannotMeasure(f"{name} is no torch.nn.Module")
    model = model.to(device)
    x = find_input(model, device)
    with torch.no_grad():
        model.train()
        for batch in _batches(x, WARM_UP, 0.0):
            model(*batch)
        facts: Facts = {
            "input": " and ".join(f"{fixture.shape_text(tuple(each.shape))}, {_content(each)}" for each in x),
            "dtype": "float32",
            "seed": fixture.SEED,
            **_traits(model),
        }
        silent = _without_dropout(model)
        (batch,) = _batches(x, 1, 0.0, seed=1)
        train, evaluated = _run(silent, batch, True), _run(silent, batch, False)
        facts["gap"] = plain(relative(train, evaluated))
        part = [each[: fixture.SUBSET] for each in batch]
        facts["batch_dependence_train"] = plain(dependence(train, _run(silent, part, True)))
        facts["batch_dependence_eval"] = plain(dependence(evaluated, _run(silent, part, False)))
        if facts["dropout_layers"]:
            first, second = _run(model, batch, True), _run(model, batch, True)
            facts["dropout_gap"] = plain(relative(first, second))
        facts |= _drifts(silent, x)
    return facts


def _traits(model: Any) -> Facts:
    modules = list(model.modules())
    return {
        "modules": len(modules),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "norm_layers": sum(isinstance(module, _NORMS) and module.track_running_stats for module in modules),
        "dropout_layers": sum(isinstance(module, _DROPOUTS) and module.p > 0 for module in modules),
    }


def _drifts(model: Any, x: list[Any]) -> Facts:
    """How far the running mean of each layer moves in a validation in train mode, the farthest first."""
    used = copy.deepcopy(model).train()
    before = _means(used)
    for batch in _batches(x, VALIDATION, 0.5, seed=2):
        used(*batch)
    drifts = {}
    for name, layer in used.named_modules():
        if name in before:
            sd = (layer.running_var.float() + layer.eps).sqrt()
            drifts[name or "itself"] = ((layer.running_mean.float() - before[name]) / sd).abs().max().item()
    moved = {name: drift for name, drift in drifts.items() if drift > 0}
    if not drifts:
        return {}
    farthest = max(drifts, key=lambda name: drifts[name])
    return {
        "layers_moved": len(moved),
        "largest_drift": plain(drifts[farthest]),
        "largest_drift_in": farthest,
        "drift_by_layer": [[name, plain(drift)] for name, drift in drifts.items()],
        "validation_batches": VALIDATION,
    }


def _means(model: Any) -> dict[str, Any]:
    return {
        name: layer.running_mean.float().clone()
        for name, layer in model.named_modules()
        if isinstance(layer, _NORMS) and layer.running_mean is not None
    }


def _without_dropout(model: Any) -> Any:
    silent = copy.deepcopy(model)
    for module in silent.modules():
        if isinstance(module, _DROPOUTS):
            module.p = 0.0
    return silent


def _run(model: Any, batch: list[Any], train: bool) -> Any:
    return outputs(copy.deepcopy(model).train(train)(*batch))


def _batches(x: list[Any], count: int, mean: float, seed: int = 0) -> Iterator[list[Any]]:
    """Batches like ``x``, a tensor for each input: indices of the same range, or normal with this mean and sd 1."""
    generator = torch.Generator().manual_seed(fixture.SEED + 1 + seed)

    def drawn(like: Any) -> Any:
        if like.is_floating_point():
            return (torch.randn(like.shape, generator=generator) + mean).to(like.device)
        order = torch.randperm(like.numel(), generator=generator)
        return like.flatten()[order.to(like.device)].reshape(like.shape)

    for _ in range(count):
        yield [drawn(each) for each in x]


def _content(x: Any) -> str:
    return "normal, mean 0, sd 1" if x.is_floating_point() else "random indices"
