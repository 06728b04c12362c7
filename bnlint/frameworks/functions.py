"""Library functions and methods by what they mean for modes, gradients and tensors (canonical names)."""

from __future__ import annotations

import re
from collections.abc import Callable

#: Context managers and decorators under which PyTorch records no gradients.
NO_GRAD = frozenset({"torch.no_grad", "torch.inference_mode"})
ENABLE_GRAD = frozenset({"torch.enable_grad"})
SET_GRAD = "torch.set_grad_enabled"
TAPE = frozenset({"tensorflow.GradientTape"})

#: Decorators that make a context manager of a generator: the block runs where it yields.
CONTEXT_MANAGERS = frozenset({"contextlib.contextmanager", "contextlib.asynccontextmanager"})

#: Decorators that leave what a function does as it is.
TRANSPARENT_DECORATORS = frozenset(
    {
        "tensorflow.function", "tensorflow.autograph.experimental.do_not_convert", "functools.wraps",
        "functools.lru_cache", "functools.cache", "staticmethod", "classmethod", "property", "abc.abstractmethod",
        "torch.jit.export", "torch.jit.ignore", "torch.jit.unused", "torch.compile", "torch.jit.script",
        "typing.overload", "typing.final", "tf1.contrib.add_arg_scope", *CONTEXT_MANAGERS,
    }
)  # fmt: skip

#: Calls that return the module they are given, which keeps its mode.
WRAPPERS = frozenset(
    {
        "apex.parallel.DistributedDataParallel", "apex.parallel.convert_syncbn_model",
        "torch.nn.utils.convert_sync_batchnorm", "torch.nn.utils.fusion.convert_sync_batchnorm",
        "torch.nn.DataParallel", "torch.nn.parallel.DataParallel", "torch.nn.parallel.DistributedDataParallel",
        "torch.nn.SyncBatchNorm.convert_sync_batchnorm", "torch.compile", "torch.nn.utils.spectral_norm",
        "torch.nn.utils.weight_norm", "torch.nn.utils.parametrizations.spectral_norm",
        "torch.nn.utils.parametrizations.weight_norm",
    }
)  # fmt: skip
#: Gives back the model, or the model and the optimiser.
AMP_INITIALIZE = "apex.amp.initialize"
TORCH_CONTAINERS = frozenset({"torch.nn.Sequential", "torch.nn.ModuleList", "torch.nn.ModuleDict"})
TORCH_BASES = frozenset(
    {
        "torch.nn.Module", *TORCH_CONTAINERS,
        *(f"{root}.LightningModule" for root in (
            "pytorch_lightning", "lightning", "lightning.pytorch", "pytorch_lightning.core",
            "pytorch_lightning.core.lightning",
        )),
    }
)  # fmt: skip

#: Functions that build the model that an argument names, and how the catalogue marks such names.
MODELS_BY_NAME = {"timm.create_model": "timm:", "timm.models.create_model": "timm:", "torch.hub.load": "hub:",
                  "torchvision.models.get_model": "hub:"}  # fmt: skip
#: Arguments of such functions that may replace the normalisation layers, or freeze those of a backbone.
CHOOSES_NORM = re.compile(r"norm|^bn|_bn|backbone|layer$")
#: Modules that scripts take a model out of by a name from the command line.
MODEL_FAMILIES = frozenset({"torchvision.models"})
#: Packages whose ``from_pretrained`` returns a model in eval mode.
PRETRAINED_IN_EVAL_MODE = frozenset(
    {"transformers", "diffusers", "pytorch_transformers", "pytorch_pretrained_bert", "peft", "optimum"}
)
#: Classes of theirs that are no models.
NO_MODELS = re.compile(r"(?:Tokenizer\w*|Processor|FeatureExtractor|Config|Scheduler)\.from_pretrained$")
#: What loads a whole model, in the mode it was saved in.
MODEL_LOADERS = frozenset({"torch.load", "torch.jit.load", "torch.hub.load", "pickle.load", "torch.jit.trace",
                           "torch.jit.script", "torch.export.load"})  # fmt: skip

#: Functions that make something lasting of a module as it stands, by what they need or do: ``trace`` and ``export``
#: record the mode it is in, ``onnx`` as far as its exporter does, ``fuse`` and ``freeze`` raise in train mode (the
#: The version of PyTorch since which ``torch.onnx.export`` takes the exporter of ``dynamo=True`` unless told otherwise.
DYNAMO_BY_DEFAULT = (2, 9)
#: former where there is BatchNorm), ``qat`` raises in eval mode. Measured with torch 2.13.
EXPORTERS = {
    "torch.jit.trace": "trace", "torch.jit.trace_module": "trace", "torch.export.export": "export",
    "torch.onnx.export": "onnx",
    "torch.jit.freeze": "freeze", "torch.fx.experimental.optimization.fuse": "fuse",
    **{f"torch.nn.utils.{inner}{name}": "fuse" for inner in ("", "fusion.")
       for name in ("fuse_conv_bn_eval", "fuse_linear_bn_eval")},
    **{f"torch.{inner}quantization.{name}": how for inner in ("", "ao.") for name, how in (
        ("fuse_modules", "fuse"), ("quantize_fx.fuse_fx", "fuse"), ("quantize_fx.prepare_fx", "fuse"),
        ("prepare_qat", "qat"))},
}  # fmt: skip
#: Functions that run a module once on made-up input to describe it, in the mode it is in. Others do not belong here:
#: thop, torchinfo, torchstat, ptflops and torchview put it in eval mode for that, TensorBoard's ``add_graph`` as well.
PROFILERS = frozenset({"torchsummary.summary", "torchsummary.torchsummary.summary", "torchsummaryX.summary",
                       "torchsummaryX.torchsummaryX.summary"})  # fmt: skip
#: Arguments of what builds a library's model that tell whether it comes with weights.
PRETRAINED_ARGUMENTS = frozenset({"pretrained", "weights", "encoder_weights", "weights_backbone"})
#: Calls that tell of training on what was exported or fused: train mode is meant there.
QUANTIZATION_AWARE = frozenset(
    {"prepare_qat", "prepare_qat_fx", "prepare_qat_pt2e", "fuse_modules_qat", "quantize_qat", "export_for_training",
     "allow_exported_model_train_eval", "move_exported_model_to_train"}
)  # fmt: skip
#: Modules of the library that have weights of their own, and so may give their output a distribution of its own.
WEIGHTED = re.compile(
    r"torch\.nn\.(?:Lazy)?(?:Conv|Linear|Bilinear|Embedding|LSTM|GRU|RNN|Transformer|MultiheadAttention|Sequential"
    r"|Module(?:List|Dict)|\w*Norm)\w*"
)

#: Functions that run a module or function now and once more in the backward pass, to save memory; which keyword
#: arguments are theirs, not that function's.
CHECKPOINT = "torch.utils.checkpoint.checkpoint"
CHECKPOINT_SEQUENTIAL = "torch.utils.checkpoint.checkpoint_sequential"
CHECKPOINT_ARGUMENTS = frozenset(
    {"use_reentrant", "preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop"}
)
#: What makes batches of a data set, with as many samples as it is told.
DATA_LOADERS = frozenset({"torch.utils.data.DataLoader", "torch.utils.data.dataloader.DataLoader"})
#: What gives the batches, or the batch, that it is given.
SAME_BATCHES = frozenset({"tqdm.tqdm", "tqdm.auto.tqdm", "tqdm.notebook.tqdm", "tqdm.autonotebook.tqdm",
                          "torch.autograd.Variable"})  # fmt: skip
#: Functions and methods that take samples apart or put them together, whatever they are given.
REGROUPING = frozenset({"unfold", "repeat_interleave", "rearrange", "unbind", "split", "chunk", "tile", "repeat"})
#: Wrappers that hold a running average of a model's parameters.
AVERAGED_MODELS = frozenset({"torch.optim.swa_utils.AveragedModel"})
#: What changes a parameter in place: by what it is given and what it was, or to what it is given alone.
AVERAGING_METHODS = frozenset({"add_", "sub_", "lerp_", "addcmul_"})
SETTING_METHODS = frozenset({"copy_", "set_"})
AVERAGING_FUNCTIONS = frozenset({"torch._foreach_add_", "torch._foreach_sub_", "torch._foreach_lerp_"})
#: Methods of a parameter, or of a mapping of parameters, whose result is, or holds, the same parameters.
SAME_PARAMETERS = frozenset({"detach", "mul_", "div_", "keys", "values", "items", "get"})

#: Beginnings of the names of what builds a whole model of a library, without any file of weights.
MODEL_LIBRARIES = (
    "torchvision.models.", "timm.create_model", "segmentation_models_pytorch.", "keras.applications.",
)  # fmt: skip

#: Base classes of layers, which ``isinstance`` may ask for, by the kind of layer.
LAYER_BASES = {
    "torch.nn._BatchNorm": "batchnorm", "torch.nn.batchnorm._BatchNorm": "batchnorm",
    "torch.nn.modules.batchnorm._BatchNorm": "batchnorm", "torch.nn.modules.dropout._DropoutNd": "dropout",
    "torch.nn.modules.instancenorm._InstanceNorm": "instancenorm", "torch.nn.modules.batchnorm._NormBase": "batchnorm",
}  # fmt: skip

#: Methods of ``nn.Module`` that return the module itself and leave its mode alone.
TORCH_CHAINING = frozenset(
    {"to", "cuda", "cpu", "half", "float", "double", "bfloat16", "type", "requires_grad_", "share_memory", "xpu",
     "to_empty"}
)  # fmt: skip
#: Methods of a module that change the dtype of its parameters and buffers, and PyTorch's floating-point dtypes.
CASTS = {"half": "float16", "bfloat16": "bfloat16", "float": "float32", "double": "float64"}
DTYPES = {
    "torch.half": "float16", "torch.float16": "float16", "torch.bfloat16": "bfloat16", "torch.float": "float32",
    "torch.float32": "float32", "torch.double": "float64", "torch.float64": "float64",
    "torch.HalfTensor": "float16", "torch.cuda.HalfTensor": "float16", "torch.BFloat16Tensor": "bfloat16",
    "torch.FloatTensor": "float32", "torch.cuda.FloatTensor": "float32",
}  # fmt: skip
#: Half the distance of two neighbouring numbers, relative to them, at most: 2^-p for a significand of p bits
#: (IEEE 754-2019, table 3.5; bfloat16 has 8 bits).
UNIT_ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
#: Methods that say of what they are called on that it is a module, or leave open whether it is one.
MODULE_METHODS = frozenset(
    {"train", "eval", "forward", "__call__", "generate", "parameters", "named_parameters", "state_dict",
     "load_state_dict",
     "buffers", "named_buffers", "modules", "children", "named_modules", "named_children", "apply", "requires_grad_",
     "zero_grad", "get_submodule", "to", "cuda", "cpu", "half", "float", "double", "bfloat16", "share_memory", "xpu"}
)  # fmt: skip
#: What else a module inherits.
CONTAINER_METHODS = frozenset(
    {"append", "extend", "insert", "add_module", "register_module", "items", "values", "pop", "register_buffer",
     "register_parameter", "add", "get_layer", "compile", "fit", "predict", "evaluate"}
)  # fmt: skip
TORCH_PARTS = frozenset({"modules", "children", "named_modules", "named_children"})
TORCH_PARAMETERS = frozenset({"parameters", "named_parameters", "state_dict", "buffers", "named_buffers"})

#: Keras base classes. A ``Model`` is run by the user; a ``Layer`` takes ``training`` from whoever calls it.
KERAS_MODELS = frozenset({"keras.Model", "keras.Sequential"})
#: What holds the modules that it is built with.
CONTAINERS = TORCH_CONTAINERS | KERAS_MODELS
KERAS_BASES = frozenset({*KERAS_MODELS, "keras.layers.Layer", "keras.Layer"})
#: Methods after which a Keras model's moving statistics are no longer the initial ones.
KERAS_SETTLES_STATISTICS = frozenset(
    {"compile", "fit", "fit_generator", "train_on_batch", "load_weights", "set_weights", "load_own_variables", "adapt"}
)
#: Methods that train a model with the step that ``compile`` has it build.
KERAS_FITTING = frozenset({"compile", "fit", "fit_generator", "train_on_batch"})
KERAS_INFERRING = frozenset(
    {"predict", "predict_generator", "predict_on_batch", "predict_classes", "predict_proba", "evaluate",
     "evaluate_generator", "test_on_batch"}
)  # fmt: skip
#: What sets the learning phase for all layers that are built from then on, and what ends that.
KERAS_SETS_PHASE = frozenset({"keras.backend.set_learning_phase"})
KERAS_CLEARS_PHASE = frozenset({"keras.backend.clear_session", "keras.backend.learning_phase_scope"})
#: Since this version ``fit``, ``predict`` and ``evaluate`` tell the layers themselves, whatever the phase is.
PHASE_IGNORED = (2, 4)
#: The method of a model's class that takes one step for these.
KERAS_STEPS = {
    "fit": "train_step", "fit_generator": "train_step", "train_on_batch": "train_step", "evaluate": "test_step",
    "test_on_batch": "test_step", "predict": "predict_step", "predict_on_batch": "predict_step",
}  # fmt: skip
#: The Keras versions, from and before, whose ``fit`` and ``predict`` override a ``training`` that is written into a
#: functional model (keras-team/keras#23364).
FUNCTIONAL_LITERALS_IGNORED = ((3,), (3, 16))
#: Before this one a model's ``call`` must pass ``training`` on to its layers itself when ``fit`` runs on JAX.
TRAINING_MUST_BE_FORWARDED = (3, 16)
KERAS_VARIABLES = frozenset({"trainable_variables", "trainable_weights", "variables", "weights"})

#: Functions that make a tensor of known shape: name -> constant fill, or None for other contents.
TENSOR_MAKERS: dict[str, float | None] = {
    "torch.ones": 1.0, "torch.zeros": 0.0, "torch.randn": None, "torch.rand": None, "torch.full": None,
    "torch.empty": None, "torch.tensor": None, "torch.arange": None, "torch.linspace": None, "torch.from_numpy": None,
    "torch.randint": None, "torch.normal": None, "torch.ones_like": None, "torch.zeros_like": None,
    "torch.Tensor": None, "torch.FloatTensor": None, "torch.as_tensor": None,
    "tensorflow.ones": 1.0, "tensorflow.zeros": 0.0, "tensorflow.constant": None, "tensorflow.convert_to_tensor": None,
    "tensorflow.random.normal": None, "tensorflow.random.uniform": None, "tensorflow.fill": None,
    "tensorflow.Variable": None, "tensorflow.cast": None, "tensorflow.range": None,
    "numpy.ones": 1.0, "numpy.zeros": 0.0, "numpy.array": None, "numpy.asarray": None, "numpy.arange": None,
    "numpy.random.randn": None, "numpy.random.rand": None, "numpy.random.normal": None, "numpy.random.random": None,
    "numpy.random.uniform": None, "numpy.random.standard_normal": None, "numpy.full": None,
    "keras.ops.ones": 1.0, "keras.ops.zeros": 0.0, "keras.random.normal": None, "keras.random.uniform": None,
    "keras.ops.convert_to_tensor": None, "keras.ops.array": None, "keras.backend.ones": 1.0, "keras.backend.zeros": 0.0,
    "keras.backend.constant": None, "keras.backend.variable": None,
}  # fmt: skip
#: Makers of tensors whose values mean nothing: what a model gives for them tells a reader little.
RANDOM_MAKERS = frozenset(
    name for name in TENSOR_MAKERS if "rand" in name or name.endswith((".normal", ".uniform", ".empty", ".Tensor"))
)
#: Makers of tensors that hold what they are given.
FROM_DATA = frozenset(
    {
        "torch.tensor",
        "torch.from_numpy",
        "torch.Tensor",
        "torch.FloatTensor",
        "torch.as_tensor",
        "tensorflow.constant",
        "tensorflow.convert_to_tensor",
        "tensorflow.cast",
        "numpy.array",
        "numpy.asarray",
    }
)
SYMBOLIC_INPUTS = frozenset(
    {"keras.Input", "tensorflow.placeholder", "tensorflow.compat.v1.placeholder", "keras.backend.placeholder"}
)

#: What asks a tensor for something else than its values.
SHAPE_ATTRIBUTES = frozenset(
    {"shape", "size", "dim", "ndim", "ndimension", "dtype", "device", "numel", "requires_grad", "is_cuda", "nelement",
     "get_shape", "grad_fn", "stride", "is_contiguous", "type", "rank"}
)  # fmt: skip
#: Methods and functions that compare a tensor's values, and those that only hand them on or show them.
COMPARING_METHODS = frozenset({"equal", "allclose", "__eq__"})
READING_METHODS = frozenset({"numpy", "tolist", "item"})
READING_FUNCTIONS = frozenset({"print", "repr", "str", "float", "list"})
COMPARING_ENDINGS = ("allclose", "assert_close", "assert_allclose", "array_equal", "assert_equal", "assert_array_equal",
                   "assert_almost_equal", "isclose")  # fmt: skip

#: Roots of packages whose functions do not change the mode of a model they are given, nor hand it on to what
#: may (as ``itertools`` does).
HARMLESS_ROOTS = frozenset(
    {"torch", "numpy", "tensorflow", "keras", "copy", "time", "os", "sys", "json", "math", "logging", "matplotlib",
     "tqdm", "sklearn", "pickle", "random", "warnings", "re", "wandb", "tensorboardX", "torchvision", "cv2", "PIL",
     "pandas", "scipy", "argparse", "glob", "pathlib", "yaml", "shutil", "datetime", "string",
     "torchmetrics", "seaborn", "plotly", "skimage", "h5py", "subprocess", "pprint", "visdom"}
)  # fmt: skip

#: Built-in functions that make a number of numbers.
NUMBER_FUNCTIONS: dict[str, Callable[..., float]] = {"abs": abs, "float": float, "max": max, "min": min, "round": round}
#: What declares a field of a configuration class.
FIELDS = frozenset({"dataclasses.field", "attr.ib", "attr.field", "attrs.field", "pydantic.Field"})
