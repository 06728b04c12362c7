"""``norm-fit``: does a BatchNorm take what the layer before it gives?

Exact: the layer before, with ``features`` outputs and input of the right ``rank``, runs on random numbers, and what
comes out goes into the norm. Whether that raises is all that is asked.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.torch.rebuilt import normal, torch
from bnlint.verify.fixture import plain, raised, shape_text

_INPUTS = 3
_EXTENT = 4


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    features, rank = options["features"], options["rank"]
    assert isinstance(features, int) and isinstance(rank, int)
    sizes = [features, spec.arguments.get("num_features")]
    if any(isinstance(size, int) and size > fixture.MAX_FEATURES for size in sizes):
        raise CannotMeasure(f"more than {fixture.MAX_FEATURES} features are not built here")
    norm = getattr(torch.nn, spec.kind.removeprefix("torch.nn."))(**spec.arguments).to(device)
    name = str(options["before"]).removeprefix("Lazy")
    torch.manual_seed(fixture.SEED)
    if name == "Linear":
        before = torch.nn.Linear(_INPUTS, features)
        shape: tuple[int, ...] = (fixture.BATCH, *[_EXTENT] * (rank - 2), _INPUTS)
    else:
        before = getattr(torch.nn, name)(_INPUTS, features, 1)
        shape = (fixture.BATCH, _INPUTS, *[_EXTENT] * (rank - 2))
    output = before.to(device)(normal(shape, fixture.INPUT_MEAN, fixture.INPUT_SD).to(device))
    facts: Facts = {
        "dtype": "float32",
        "seed": fixture.SEED,
        "chosen": list(spec.chosen),
        "input": f"{shape_text(tuple(output.shape))}, from {name}",
        "features_given": plain(features),
    }
    try:
        norm(output)
    except Exception as error:  # whatever it is, it is what is asked for
        return {**facts, "raises": raised(error)}
    return facts
