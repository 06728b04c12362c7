"""The functions that make something to deploy out of a module, each called as one would, and what comes out.

``torch.onnx.export`` is measured where onnx and onnxruntime are installed, and onnxscript too for its dynamo exporter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bnlint.experiment import Scalar
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure
from bnlint.verify.backends.torch.rebuilt import Module, Tensor, torch

#: What was exported: a tensor in, a tensor out.
Program = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exporter:
    """``export(function, module, x, dynamo)``; a module to be fused is a convolution and the layer behind it."""

    export: Callable[[Any, Module, Tensor, Scalar], Program]
    fuses: bool = False


def _program(function: Any, module: Module, x: Tensor, dynamo: Scalar) -> Program:
    program: Program = function(module, (x,)).module()
    return program


def _scripted(function: Any, module: Module, x: Tensor, dynamo: Scalar) -> Program:
    program: Program = function(torch.jit.script(module))
    return program


def _listed(function: Any, module: Module, x: Tensor, dynamo: Scalar) -> Program:
    program: Program = function(module, [["0", "1"]])
    return program


def _graph(function: Any, module: Module, x: Tensor, dynamo: Scalar) -> Program:
    program: Program = function(module)
    return program


def _prepared(function: Any, module: Module, x: Tensor, dynamo: Scalar) -> Program:
    mapping = _resolved("torch.ao.quantization.get_default_qconfig_mapping")()
    program: Program = function(module, mapping, (x,))
    return program


def _two(function: Any, module: Module, x: Tensor, dynamo: Scalar) -> Program:
    program: Program = function(module[0], module[1])
    return program


def _behind_linear(function: Any, module: Module, x: Tensor, dynamo: Scalar) -> Program:
    features = x.shape[1]
    linear = torch.nn.Linear(features, features).to(x.device).train(module.training)
    program: Program = function(linear, module[1])
    return program


def _onnx(function: Any, module: Module, x: Tensor, dynamo: Scalar) -> Program:
    runtime: Any = import_module("onnxruntime")
    if hasattr(runtime, "set_seed"):
        runtime.set_seed(fixture.SEED)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "exported.onnx"))
        function(module, (x,), path, **({} if dynamo is None else {"dynamo": dynamo}))
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.cpu().numpy()})[0])


EXPORTERS: dict[str, Exporter] = {
    "torch.export.export": Exporter(_program),
    "torch.onnx.export": Exporter(_onnx),
    "torch.jit.freeze": Exporter(_scripted),
    "torch.jit.optimize_for_inference": Exporter(_scripted),
    **{
        f"torch.{package}.{name}": exporter
        for package in ("ao.quantization", "quantization")
        for name, exporter in {
            "fuse_modules": Exporter(_listed, fuses=True),
            "quantize_fx.fuse_fx": Exporter(_graph, fuses=True),
            "quantize_fx.prepare_fx": Exporter(_prepared, fuses=True),
        }.items()
    },
    **{
        f"torch.nn.utils.{package}{name}": exporter
        for package in ("", "fusion.")
        for name, exporter in {
            "fuse_conv_bn_eval": Exporter(_two, fuses=True),
            "fuse_linear_bn_eval": Exporter(_behind_linear, fuses=True),
        }.items()
    },
    "torch.fx.experimental.optimization.fuse": Exporter(_graph, fuses=True),
}


def opened(name: str, dynamo: Scalar) -> Callable[[Module, Tensor], Program]:
    """The exporter of this name, ready to be called; raises ``CannotMeasure`` if something of it is missing."""
    if name not in EXPORTERS:
        raise CannotMeasure(f"{name} is no exporter that can be measured")
    function = _resolved(name)
    if name == "torch.onnx.export":
        # What the default is, is the version's affair; without onnxscript the new exporter cannot be asked.
        packages = ["onnx", "onnxruntime", *([] if dynamo is False else ["onnxscript"])]
        if absent := [package for package in packages if find_spec(package) is None]:
            raise CannotMeasure(
                f"to measure {name}, {', '.join(absent)} must be installed: pip install {' '.join(absent)}"
            )
    return lambda module, x: EXPORTERS[name].export(function, module, x, dynamo)


def _resolved(name: str) -> Any:
    """The object of this qualified name; an attribute goes before a submodule of the same name."""
    package, *rest = name.split(".")
    found: Any = import_module(package)
    for part in rest:
        package += f".{part}"
        try:
            found = getattr(found, part) if hasattr(found, part) else import_module(package)
        except ImportError as error:
            raise CannotMeasure(f"torch {torch.__version__} has no {name}") from error
    return found
