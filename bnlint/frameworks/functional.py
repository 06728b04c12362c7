"""The functions of ``torch.nn.functional`` that know no mode: whether they drop or normalise is told by an argument.

Signatures and defaults of PyTorch 2.13 (``torch/nn/functional.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FunctionFacts:
    """``layer`` is the module that does the same and does know its mode, ``rate`` the parameter that says how much is
    dropped, ``training`` what the function takes itself to be in where it is not told; None where it has no such
    parameter and always does what its ``rate`` says."""

    name: str
    parameters: tuple[str, ...]
    layer: str
    training: bool | None
    rate: str = ""
    default_rate: float = 0.5

    @property
    def short_name(self) -> str:
        return f"F.{self.name.rpartition('.')[2]}"


_F = "torch.nn.functional"
_DROPOUT = ("input", "p", "training", "inplace")

#: By canonical name.
FUNCTIONS: Mapping[str, FunctionFacts] = {
    facts.name: facts
    for facts in (
        *(
            FunctionFacts(f"{_F}.{name}", _DROPOUT, f"torch.nn.{layer}", name[0] == "d", "p")
            for name, layer in (
                ("dropout", "Dropout"), ("dropout1d", "Dropout1d"), ("dropout2d", "Dropout2d"),
                ("dropout3d", "Dropout3d"), ("alpha_dropout", "AlphaDropout"),
                ("feature_alpha_dropout", "FeatureAlphaDropout"),
            )
        ),
        FunctionFacts(
            f"{_F}.scaled_dot_product_attention",
            ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"),
            "torch.nn.Dropout", None, "dropout_p", 0.0,
        ),
        FunctionFacts(
            f"{_F}.batch_norm",
            ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
            "torch.nn.BatchNorm2d", False,
        ),
    )
}  # fmt: skip
