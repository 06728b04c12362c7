"""``swa-buffers``: averaged weights with the running statistics of weights that they are not.

``torch.optim.swa_utils.AveragedModel`` averages parameters and copies buffers from the model, so its BatchNorm has
the statistics of the last weights' activations and not of the averaged weights'. Izmailov et al. 2018 (section 3.2)
therefore ask for a pass over the data, ``update_bn``. Option ``update_bn``: whether the source has that pass.

A linear layer (a 1x1 convolution) before the layer is trained by SGD, and the average is taken over the ends of
K = 4 cycles. Each cycle has a teacher of its own to learn from: so small a problem does not by itself leave the
weights as far apart as a network's are. The activations of the average of K independent weights have 1 / K of the
variance, so outputs in eval mode shrink by a factor of sqrt(K) with the statistics of one of them: a gap of
1 - 1 / sqrt(K) = 0.5 to those after ``update_bn``. Running statistics also lag behind a model's own weights, which
``update_bn`` would mend as well; that part is measured on the last model and told apart.
"""

from __future__ import annotations

from copy import deepcopy

from bnlint.experiment import CHOSEN_FEATURES, LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.pairs import of_outputs
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, relative, seeded, torch
from bnlint.verify.fixture import plain

CYCLES = 4
#: Passes over the epoch's batches in each cycle.
PASSES = 5
LEARNING_RATE = 1.0


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device, features=CHOSEN_FEATURES)
    x = rebuilt.input(mean=0.0)
    last, written = _averaged(rebuilt)
    if options.get("update_bn") is True:
        written = _updated(written, rebuilt)
    mended = _updated(written, rebuilt)
    facts = of_outputs(
        rebuilt, lambda: deepcopy(written).eval(), lambda: deepcopy(mended).eval(), "update_bn on the average", x
    )
    of_last = relative(seeded(deepcopy(last).eval(), x), seeded(_updated(last, rebuilt).eval(), x))
    return {**facts, "gap_of_last_model": plain(of_last), "update_bn": options.get("update_bn") is True}


def _averaged(rebuilt: Rebuilt) -> tuple[Module, Module]:
    """The model after the last cycle, and the average over the ends of all."""
    torch.manual_seed(fixture.SEED)
    model = torch.nn.Sequential(_linear(rebuilt), rebuilt.used())
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for _ in range(CYCLES):
        teacher = _linear(rebuilt)
        for _ in range(PASSES):
            for batch in rebuilt.batches(fixture.EPOCH_BATCHES, mean=0.0):
                with torch.enable_grad():
                    loss = torch.nn.functional.mse_loss(model(batch), teacher(batch).detach())
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
        average.update_parameters(model)
    return model, average


def _linear(rebuilt: Rebuilt) -> Module:
    """Its weights are drawn on the CPU, so that every device starts from the same."""
    convolution = getattr(torch.nn, f"Conv{len(rebuilt.spatial)}d")
    return convolution(rebuilt.features, rebuilt.features, 1).to(rebuilt.device)


def _updated(module: Module, rebuilt: Rebuilt) -> Module:
    updated = deepcopy(module)
    torch.optim.swa_utils.update_bn(rebuilt.batches(fixture.EPOCH_BATCHES, mean=0.0), updated)
    return updated
