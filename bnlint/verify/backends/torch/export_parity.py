"""``export-parity``: a module is exported in train mode; does what comes out compute what eval mode does?

Option ``exporter``: the function's qualified name, one of ``EXPORTERS``. Option ``dynamo``, for
``torch.onnx.export``: as the source has it, None where it does not.

An exporter may record the mode it finds for good, take eval mode's operations whatever it finds, or refuse; the
installed version is asked which. What it gives is compared with the layer in eval mode. A sample's dependence on its
batch-mates is measured by exchanging them, since a program can have a fixed batch size, and two calls are
compared, since what is left of Dropout draws anew in each. An exporter that raises is asked again in eval mode: what
it raises there too has nothing to do with the mode.
"""

from __future__ import annotations

import warnings

from bnlint.experiment import CHOSEN_FEATURES, LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.exporters import EXPORTERS, Program, opened
from bnlint.verify.backends.torch.pairs import attempt, pair
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, relative, torch
from bnlint.verify.fixture import one_line, plain


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    name = str(options.get("exporter"))
    export = opened(name, options.get("dynamo"))
    # A convolution over many channels costs memory and teaches nothing.
    rebuilt = Rebuilt(spec, device, features=CHOSEN_FEATURES if EXPORTERS[name].fuses else None)
    x = rebuilt.input()
    facts = {
        **rebuilt.facts(x),
        **rebuilt.traits(),
        "exporter": name,
        "mended_by": "eval() before the export",
    }
    fuses = EXPORTERS[name].fuses
    with warnings.catch_warnings():
        # What an exporter warns of is not what is asked here.
        warnings.simplefilter("ignore")
        program, refused = attempt(
            lambda: export(_module(rebuilt, fuses).train(), x),
            lambda: export(_module(rebuilt, fuses).eval(), x),
        )
        if refused:
            return {**facts, **refused}
        return {**facts, **_compared(rebuilt, program, _module(rebuilt, fuses).eval(), x)}


def _module(rebuilt: Rebuilt, fuses: bool) -> Module:
    layer = rebuilt.used()
    if not fuses:
        return torch.nn.Sequential(layer)
    torch.manual_seed(fixture.SEED)
    convolution = getattr(torch.nn, f"Conv{len(rebuilt.spatial)}d")
    return torch.nn.Sequential(convolution(rebuilt.features, rebuilt.features, 1).to(rebuilt.device), layer)


def _compared(rebuilt: Rebuilt, program: Program, evaluated: Module, x: Tensor) -> Facts:
    written, reference = program(x), evaluated(x)
    facts: Facts = {
        "gap_to_mended": plain(relative(written, reference)),
        "gap_between_two_calls": plain(relative(program(x), written)),
    }
    if rebuilt.normalises:
        facts |= pair("batch_dependence", plain(_dependence(program, x)), plain(_dependence(evaluated, x)))
    try:
        getattr(program, "eval", lambda: None)()
    except NotImplementedError as error:
        facts["eval_afterwards"] = one_line(error)
    return facts


def _dependence(program: Program, x: Tensor) -> float:
    """How far the first samples move, relative to the largest output, when the others become their negative."""
    exchanged = x.clone()
    exchanged[fixture.SUBSET :] *= -1
    whole, other = program(x).cpu(), program(exchanged).cpu()
    return float((whole - other)[: fixture.SUBSET].abs().max() / whole.abs().max())
