"""What the statements that several rules are about have in their text."""

from __future__ import annotations

from bnlint.source.marks import Pattern

#: What a statement must contain to run a model for inference: the words of ``bnlint.semantics.intent``. Alternatives
#: begin with letters, which is what makes a search fast; what must stand before them is looked at behind the first.
_WORD = r"(?<![^\W_].)"  # begins a word of a name
_NAME = r"(?<!\w.)"  # begins a name
_CALL = r"[ \t]*\("
_OF_DATA = r"_?(?i:loader|set|data|dl\b|ds\b|iter|gen\b)"
_CAMEL_WORDS = ("Test", "Val", "Valid", "Validate", "Eval", "Evaluate", "Infer", "Inference", "Predict")
_CAMEL = "|".join(rf"{word}(?<=[a-z]{word})" for word in _CAMEL_WORDS)
INFERENCE_MARKS = Pattern(
    r"no_grad|inference_mode|set_grad_enabled|"
    rf"[tT]{_WORD}(?i:est(?:s|ing|er)?){_CALL}|"
    # Called; what is defined under such a name is a test of code, and what makes a test tests nothing.
    rf"[tT]{_WORD}(?<!def .)(?<!def _.)(?<!get_.)(?<!gen_.)(?<!load_.)(?<!make_.)(?<!build_.)(?<!create_.)"
    rf"(?i:est)_\w*{_CALL}|"
    rf"[vV]{_WORD}(?i:al(?:id(?!ate_(?:arg|input|param|config|option|kwarg|env|shape|type))(?:at\w+)?)?(?:_\w*)?){_CALL}|"
    rf"[eE]{_WORD}(?!(?<=\.e)val\(\s*\))(?i:val\w*){_CALL}|"
    rf"[iI]{_WORD}(?i:nfer\w*){_CALL}|[pP]{_WORD}(?i:redict\w*){_CALL}|"
    rf"(?:{_CAMEL})(?:(?<!Val)[A-Z_]\w*)?{_CALL}|"
    rf"[tT](?i:est){_OF_DATA}|[vV](?i:al(?:id(?:ation)?)?){_OF_DATA}|[eE](?i:val){_OF_DATA}|"
    rf"[xXyY]{_NAME}_?(?i:tests?|val|valid)\b|[vV]{_NAME}(?i:alids)\b|[tT]{_NAME}(?i:esting\w*)\b|"
    r"(?:[lL](?i:oader)|[dD](?i:ata)|[sS](?i:et)|[iI](?i:ter))s?_(?:test|val|valid|eval)",
    (
        *("no_grad", "set_grad_enabled", "test", "valid", "eval", "infer", "predict"),
        *("val(", "val ", "val\t", "val_", "_val", "xval", "yval"),  # short of "value"
        *(f"val{noun}" for noun in ("loader", "set", "data", "dl", "ds", "iter", "gen")),
    ),
)
#: What it must contain to train one, by itself or by a function that it calls.
TRAINING_MARKS = Pattern(
    r"backward\(|\.step\(|[tf](?<![.\w].)(?:rain|raining|it)[ \t]*\(|"
    r"(?:train|epoch)(?<!get_.....)(?<!is_.....)(?<!load_.....)(?<!create_.....)(?<!build_.....)(?<!make_.....)_\w+\(|"
    r"training_(?:step|epoch|loop|iter|pass|phase|round)\w*\(|_(?:train|epochs?)\(|\.(?:fit|epoch)\(|"
    r"\.train\((?!\)|True|False|mode|self\.|not |is_|\w*training\))",
    ("backward(", ".step(", "train", "fit", "epoch"),
)
#: What tells that a statement has to do with a whole model, not with what one is made of.
MODEL_MARKS = (
    r"(?<!super\(\))\.(?:eval|train)\((?!self\.training|mode)|"
    r"\.(?:backward|load_state_dict|load_from_checkpoint|cuda|step)\(|\bload\(|"
    r"(?:\b\w*(?i:model|net|classifier|encoder)\w*|\b[A-Z]\w*\((?:[^()]|\([^()]*\))*\))"
    r"\.to\(\s*(?:\w+\.)*(?:_?dev(?:ice)?\b|DEVICE|f?[\"'](?:cuda|cpu)|gpu)|"
    r"(?<![\w.])\w*(?i:model|net|network|classifier|encoder)\d?[ \t]*=[ \t]*(?!dict\(|super\()[\w.]+\("
)
_NORM_CALL = r"(?:BatchNorm\dd|(?i:\bbn\d?|\bnorm_?(?:layer|func|cls|op)?|batch_?norm(?:ali[sz]ation)?))\("
_ARGUMENT = r"(?:[^()=,]|\([^()]*\))+,\s*"
_POSITIONAL = r"(?!\w+\s*=[^=])[^()\s*]"
#: A number, or the name of one; what a configuration holds as its eps is one.
_NUMBER = r"(?:[\d.]|[A-Za-z_]\w*\s*[,)])"
#: A second positional argument of what may be a normalisation layer.
POSITIONAL_EPS_MARKS = _NORM_CALL + _ARGUMENT + _NUMBER + r"|LazyBatchNorm\dd\(\s*" + _NUMBER
#: A momentum by name, or where it may stand by its position.
MOMENTUM_MARKS = r"momentum|\bdecay\s*=|" + _NORM_CALL + _ARGUMENT + _POSITIONAL
#: What tells that this is no optimiser's momentum.
NORM_MARKS = (
    r"(?i:batch_?norm|norm_?(?:layer|kwarg|arg|cfg|conf|func|act|op|type))|Norm\dd|(?<![a-zA-Z])(?i:bn)[\d_.(]|BN|"
    r"\.momentum[ \t]*="
)
