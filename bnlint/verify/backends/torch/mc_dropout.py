"""``mc-dropout``: the whole model is put in train mode at test time, so that its Dropout layers draw samples.

That switches BatchNorm to the statistics of the test batch too. The model here is the layer and a Dropout whose
p is 0, so that what is seen is BatchNorm's doing alone; it is compared with the same model in eval mode, with only
the Dropout in train mode (Gal and Ghahramani 2016 ask for no more).
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.pairs import of_outputs, of_runs, run
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, torch


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    if not rebuilt.normalises:
        return {**rebuilt.facts(rebuilt.input()), **rebuilt.traits()}

    def sampled(whole: bool) -> Module:
        model = torch.nn.Sequential(rebuilt.used(), torch.nn.Dropout(p=0.0)).train(whole)
        model[1].train()
        return model

    runs = [run(model, model[0], rebuilt.batches(fixture.EPOCH_BATCHES)) for model in (sampled(True), sampled(False))]
    mended_by = "train() on the Dropout layers alone"
    return {
        **of_runs(rebuilt, runs[0], runs[1], mended_by, fixture.EPOCH_BATCHES),
        **of_outputs(rebuilt, lambda: sampled(True), lambda: sampled(False), mended_by),
    }
