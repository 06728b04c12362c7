from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Safety, Severity, TraceStep
from bnlint.frameworks.layers import LAYERS
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, Layer, is_exactly
from bnlint.semantics.intent import is_test_code


class ImplicitInferenceMode(Rule):
    """The output of a new Keras BatchNormalization is read, and the call does not choose a mode.

    ## What it does
    Reports a script's direct call of a Keras layer or model with BatchNormalization on a tensor, without
    `training=`, whose output is printed, compared or converted, while its moving statistics are still the
    initial ones.

    ## Why is this bad?
    Called without `training=`, a Keras layer is in inference mode, a new PyTorch module in train mode. With
    the initial moving statistics (mean 0, variance 1) BatchNormalization normalises nothing: it only scales
    by 1 / sqrt(1 + epsilon) = 0.9995. Who expects batch normalisation, or PyTorch's output, is misled.

    ## Example
    ```python
    model = Sequential([BatchNormalization()])
    print(model(tf.ones((20, 35, 45, 100))))  # 0.9995 everywhere
    ```

    ## Use instead
    ```python
    model = Sequential([BatchNormalization()])
    print(model(tf.ones((20, 35, 45, 100)), training=True))   # normalises: 0.0
    print(model(tf.ones((20, 35, 45, 100)), training=False))  # says that inference is meant
    ```

    ## When it does not fire
    On the symbolic tensors of a functional model, inside `call` and other methods of the model, when the
    model is fitted, compiled or loaded anywhere, when its own `call` says `training=False` by default, when the
    output is not read, or is that of random numbers and only printed, in tests, and inside a gradient tape, where
    tape-without-training (BNL201) speaks.

    ## How --verify confirms it
    It rebuilds the BatchNormalization layers and compares the call with one that passes `training=True`;
    where the model is a single layer and its input is a known constant, it shows the outputs for that very
    input. A layer with `trainable=False`, which is always in inference mode, refutes it.

    ## Fix safety
    Safe: `training=False` computes what the call computes now, and says so. Where batch normalisation is
    wanted, write `training=True` instead.

    ## References
    - <https://keras.io/api/layers/normalization_layers/batch_normalization/>
    - <https://stackoverflow.com/questions/69294892>
    """

    code: ClassVar[str] = "BNL210"
    name: ClassVar[str] = "implicit-inference-mode"
    severity: ClassVar[Severity] = Severity.WARNING
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("inference-gap",)
    evidence: ClassVar[int] = 2
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"keras", b"tensorflow"),
        (b"BatchNormalization", b"batch_norm"),
    )
    scripts_only: ClassVar[bool] = True

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for forward in file.forwards:
            layers = [layer for layer in forward.layers if _is_live(layer)]
            if layers and _applies(file, forward):
                yield self._report(forward, layers)

    def _report(self, forward: Forward, layers: list[Layer]) -> Finding:
        steps = [forward.built, *forward.where.calls]
        if forward.read_at is not None:
            steps.append(TraceStep(forward.read_at, "read here"))
        uses, only = ("uses", "only scales") if support.is_one(layers) else ("use", "only scale")
        return self.finding(
            forward.location,
            f"{support.subject(forward)} is called without training=, which is inference mode: "
            f"{support.describe(layers, forward.target)} {uses} the initial moving statistics and {only} by "
            f"1/sqrt(1 + epsilon) = {_factor(layers[0])}; pass training=True or training=False",
            Confidence.LIKELY,
            tuple(steps),
            support.pass_training(forward, False, Safety.SAFE),
            support.experiment("inference-gap", "keras", (layer.instance for layer in layers), forward),
        )


def _is_live(layer: Layer) -> bool:
    return layer.certain and not layer.frozen and support.is_batchnorm(layer.instance)


def _applies(file: FileFacts, forward: Forward) -> bool:
    default = forward.training_default
    return (
        forward.framework == "keras"
        and forward.training is None
        and (default is None or is_exactly(default, None))
        and forward.where.from_script
        and not forward.where.tapes
        and forward.eager_input
        and forward.read_at is not None
        and not forward.is_self
        and not any(support.owns_same_layer(file, owner, forward) for owner in file.settled)
        and not is_test_code(file, forward)
    )


def _factor(layer: Layer) -> str:
    facts = LAYERS[layer.instance.kind]
    epsilon = support.sole_number(layer.instance.arguments.get(facts.eps))
    if epsilon is None:
        default = facts.defaults[facts.eps]
        assert isinstance(default, float)
        epsilon = default
    return f"{1 / math.sqrt(1 + epsilon):.6g}"
