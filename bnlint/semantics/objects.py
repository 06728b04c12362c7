"""Calls of modules, layers, models, tensors and collections, and of the methods they inherit."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from bnlint.frameworks import functions as known
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.passes import Passes
from bnlint.semantics.state import ELEMENTS, UNKNOWN_MODE, Guards, Mode
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    Constant,
    Function,
    Instance,
    Method,
    Mystery,
    Part,
    SavedMode,
    Tensor,
    Tuple,
    Unknown,
    Value,
    Variables,
    as_default,
    constant,
    join,
    only_constant,
)


class Objects(Passes):
    """Adds the effects of inherited methods."""

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if isinstance(owner, Mystery):
            return self._call_method_of_mystery(owner, name, arguments, node)
        if owner.kind in ("builtins.list", "builtins.dict", "builtins.set"):
            return self._call_collection_method(owner, name, arguments)
        if owner.framework == "torch":
            return self._call_torch_method(owner, name, arguments, node)
        if owner.framework == "keras":
            return self._call_keras_method(owner, name, arguments, node)
        if name in ("train", "eval") and self._is_mode_call(name, arguments):
            self._train_or_eval(owner, name, arguments, node)
            return frozenset({owner})
        self.call_unknown(arguments, node)
        return UNKNOWN

    def call_mystery(self, mystery: Mystery, arguments: Arguments, node: ir.Call) -> Value:
        """A call of something unknown: a forward pass, if it is a module; anything at all, if it is not."""
        whole = mystery.parent
        self.call_unknown(arguments, node)
        if isinstance(whole, Instance) and whole.cls is not None and whole.cls.has_unknown_base:
            self.forget_modes(frozenset({whole}))  # a method of the base it may be
        returned = self.tensors_of(arguments.everything()) or self.unknown_result(node)
        assert self.state is not None
        if mystery not in self.state.modes and not any(context.kind == "no_grad" for context in self.contexts):
            return returned  # nobody says that it is a module, nor that this is inference
        return self.forward(mystery, arguments, node) | returned

    def unknown_result(self, node: ir.Call) -> Value:
        return frozenset({self.mystery((id(node), "returned"), "returned", node.span)})

    def _call_method_of_mystery(self, owner: Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        itself: Value = frozenset({owner})
        if name in ("train", "eval"):
            if self._is_mode_call(name, arguments):
                self._train_or_eval(owner, name, arguments, node)
                return itself
            self.call_unknown(arguments, node)  # a trainer's method, perhaps
            return frozenset({self.mystery((id(node), "returned"), name, node.span)})
        if name in ("forward", "__call__", "generate"):
            return self.call_mystery(owner, arguments, node)
        if name in known.TORCH_CHAINING:
            return itself
        if name in known.TORCH_PARAMETERS:
            self.facts.optimised |= {owner} if name in ("parameters", "named_parameters") else set()
            return frozenset({Variables(owner, name)})
        if name in known.TORCH_PARTS:
            return frozenset({Method(owner, name)})
        if name == "apply":
            return self._apply(owner, arguments, node)
        if name == "get_submodule":
            return frozenset({Part(owner)})
        return UNKNOWN

    @staticmethod
    def _is_mode_call(name: str, arguments: Arguments) -> bool:
        """Whether a ``train`` or ``eval`` with these arguments may be a module's: a training loop takes others."""
        if arguments.spread or any(keyword != "mode" for keyword, _ in arguments.keywords):
            return False
        given = [*arguments.positional, *(value for _, value in arguments.keywords)]
        if name == "eval" or len(given) > 1:
            return not given
        return all(
            isinstance(atom, (SavedMode, Unknown))
            or (isinstance(atom, Constant) and not isinstance(atom.value, (str, float)))
            for value in given
            for atom in value
        )

    def call_part_method(self, part: Part, name: str, arguments: Arguments, node: ir.Call) -> Value:
        """``train`` or ``eval`` of some module inside another: of all of them, or of the layers of a kind."""
        assert self.state is not None
        flag = arguments.at(0) or arguments.get("mode")
        wanted = name == "train" if flag is None else name == "train" and self.truth(flag)
        if wanted is None:
            self.forget_modes(frozenset({part.whole}))
            return frozenset({part})
        by: Atom = part
        if wanted:
            mode = Mode(train=self.way("put in train mode here", node.span, by))
        else:
            mode = Mode(eval=self.way("put in eval mode here", node.span, by))
        if not part.kinds:  # which of the parts is not known
            for inner, _ in self.parts(part.whole)[0]:
                if inner is not part.whole and inner in self.state.modes:
                    self.state.set_mode(inner, UNKNOWN_MODE)
            self.facts.mode_managed.add(part.whole)
        else:
            self.set_mode(part.whole, mode, part.kinds)
        return frozenset({part})

    def _call_collection_method(self, owner: Instance, name: str, arguments: Arguments) -> Value:
        first = arguments.at(0) or NOTHING
        if name in ("append", "add", "insert"):
            self.add_elements(owner, arguments.everything(), arguments.doubtful)
        elif name == "update" and owner.kind == "builtins.dict":
            self._update(owner, arguments)
        elif name in ("extend", "update"):
            self.add_elements(owner, self.elements(first) or UNKNOWN, arguments.doubtful)
        elif name in ("items", "values"):
            held = self.elements(frozenset({owner})) or UNKNOWN
            item = frozenset({Tuple((UNKNOWN, held))}) if name == "items" else held
            return frozenset({Tuple((item,))})
        elif name in ("pop", "get", "setdefault"):
            known_key, key = only_constant(first)
            assert self.state is not None
            item_there = self.state.slots.get((owner, repr(key))) if known_key else None
            return item_there if item_there is not None else self.elements(frozenset({owner})) | UNKNOWN
        elif name == "copy":
            return frozenset({owner})
        return UNKNOWN

    def _update(self, mapping: Instance, arguments: Arguments) -> None:
        """``mapping.update(other, name=value)``."""
        for atom in arguments.at(0) or NOTHING:
            if isinstance(atom, Instance) and atom.kind == "builtins.dict" and len(arguments.positional[0]) == 1:
                for name, value in list(self.field_values(atom)):
                    if name == ELEMENTS:
                        self.add_elements(mapping, value)
                    else:
                        self.set_field(mapping, name, value)
                continue
            # Any of its entries may be replaced.
            for name, value in list(self.field_values(mapping)):
                self.set_field(mapping, name, join(as_default(value), UNKNOWN))
            self.add_elements(mapping, self.elements(frozenset({atom})) | UNKNOWN, arguments.doubtful)
        for name, value in arguments.keywords:
            self.set_field(mapping, repr(name), value)

    def _call_torch_method(self, owner: Instance, name: str, arguments: Arguments, node: ir.Call) -> Value:
        assert self.state is not None
        itself: Value = frozenset({owner})
        if name in ("train", "eval"):
            self._train_or_eval(owner, name, arguments, node)
            return itself
        if name == "requires_grad_":
            flag = arguments.at(0) or arguments.get("requires_grad") or constant(True)
            self.freeze(Variables(owner), flag, node)
        if name in known.TORCH_CHAINING:
            return itself
        if name in ("forward", "__call__"):
            return self.forward(owner, arguments, node)
        if name in ("append", "extend", "insert", "add_module", "register_module"):
            self.add_elements(owner, self.children(arguments), arguments.doubtful)
            return itself
        if name in ("items", "values", "named_children", "children") and owner.kind in known.TORCH_CONTAINERS:
            held = self.elements(itself) or UNKNOWN
            named = name in ("items", "named_children")
            return frozenset({Tuple((frozenset({Tuple((UNKNOWN, held))}) if named else held,))})
        if name in known.TORCH_PARAMETERS:
            if name in ("parameters", "named_parameters"):
                self.facts.optimised.add(owner)
            return frozenset({Variables(owner, name)})
        if name in known.TORCH_PARTS:
            return frozenset({Method(owner, name)})
        if name == "get_submodule":
            return frozenset({Part(owner)})
        if name == "apply":
            return self._apply(owner, arguments, node)
        if owner.cls is not None and owner.cls.has_unknown_base:
            self.forget_modes(itself | arguments.everything())
        return UNKNOWN

    def _apply(self, owner: Instance | Mystery, arguments: Arguments, node: ir.Call) -> Value:
        """``module.apply(function)``: the function is run on a part that may be any."""
        assert self.state is not None
        for atom in arguments.at(0) or UNKNOWN:
            if isinstance(atom, Function):
                if _may_set_modes(atom):
                    self.run_function(atom, None, Arguments((frozenset({Part(owner)}),)), node)
            elif isinstance(atom, Unknown):
                self.forget_modes(frozenset({owner}))
        return frozenset({owner})

    def _train_or_eval(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> None:
        assert self.state is not None
        flag = arguments.at(0) or arguments.get("mode") if name == "train" else None
        wanted = name == "train" if flag is None and not arguments.spread else self.truth(flag or UNKNOWN)
        train = self.way("put in train mode here", node.span, owner)
        evaluating = self.way("put in eval mode here", node.span, owner)
        saved = [atom for atom in flag or () if isinstance(atom, SavedMode)]
        if saved and len(saved) == len(flag or ()):
            mode = saved[0].mode if len(saved) == 1 else UNKNOWN_MODE
        elif wanted is not None:
            mode = Mode(train=train) if wanted else Mode(eval=evaluating)
        else:
            argument = node.args[0].value if node.args else ir.Opaque()
            when, otherwise = self.guards_of(argument)
            # Which of the two a test decides is told by that test alone.
            mode = Mode(train.under(when), evaluating.under(otherwise)) if when else UNKNOWN_MODE
        self._record_mode_call(owner, name, wanted, node)
        self.set_mode(owner, mode)
        if isinstance(owner, Instance) and wanted is not None:
            self._run_overrides(owner, wanted, node)

    def _run_overrides(self, whole: Instance, wanted: bool, node: ir.Call) -> None:
        """A part whose class has a ``train()`` of its own takes the mode in its own way."""
        for part, _ in self.parts(whole)[0]:
            if part is whole or not isinstance(part, Instance) or part.cls is None:
                continue
            for atom in part.cls.lookup("train") or ():
                takes_mode = isinstance(atom, Function) and len(atom.node.params) == 2
                if isinstance(atom, Function) and takes_mode:
                    self.run_function(atom, part, Arguments((constant(wanted),)), node)

    def _record_mode_call(self, owner: Instance | Mystery, name: str, wanted: bool | None, node: ir.Call) -> None:
        key, event = self.event(node, events.ModeCall, id(owner))
        if event is None:
            event = events.ModeCall(
                self.location(node.span),
                ir.dotted(node.func.value) if isinstance(node.func, ir.Attr) else None,
                owner,
                name,
                wanted,
                self.mode_dependent_layers(owner)[0],
                self.surroundings(),
                is_self=any(frame.receiver is owner for frame in self.frame.chain()),
            )
            self.remember(key, event)
            self.facts.mode_calls.append(event)

    @abstractmethod
    def guards_of(self, test: ir.Expr) -> tuple[Guards, Guards]:
        """What is known where a test is true, and where it is false."""

    def _call_keras_method(self, owner: Instance, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name in ("__call__", "call"):
            return self.forward(owner, arguments, node)
        if name == "add":
            self.add_elements(owner, self.children(arguments), arguments.doubtful)
        elif name in known.KERAS_SETTLES_STATISTICS:
            self.facts.settled.update(part for part, _ in self.parts(owner)[0] if isinstance(part, Instance))
        elif name == "get_layer":
            return frozenset({Part(owner)})
        elif name == "pop":
            self.doubt_parts(owner)
        elif name in ("predict", "predict_on_batch"):
            return frozenset({Tensor("eager")})
        elif owner.cls is not None and owner.cls.has_unknown_base:
            self.forget_modes(frozenset({owner}))
        return UNKNOWN

    def tensor_method(self, tensor: Tensor, node: ir.Call) -> Value:
        name = node.func.name if isinstance(node.func, ir.Attr) else ""
        if name == "backward":
            self.backward_pass(node, frozenset({tensor}))
            return UNKNOWN
        if name in known.READING_METHODS | known.COMPARING_METHODS:
            compared = name in known.COMPARING_METHODS
            self.read(frozenset({tensor}), self.location(node.span), compared)
        # .cpu() of a tensor of ones is a tensor of ones; .sum() is something else.
        same = name in ("cuda", "to", "cpu", "float", "contiguous", "clone", "detach", "requires_grad_")
        return frozenset({tensor if same else replace(tensor, shape=None, fill=None)})

    def children(self, arguments: Arguments) -> Value:
        """The modules in the arguments of a container, also inside lists, dicts, pairs and symbolic tensors."""
        found: Value = NOTHING
        stack, seen = list(arguments.everything()), set()
        while stack:
            atom = stack.pop()
            if atom in seen:
                continue
            seen.add(atom)
            if isinstance(atom, Instance) and atom.framework is not None:
                found |= frozenset({atom})
            elif isinstance(atom, Tensor):
                found |= atom.through
            elif isinstance(atom, Mystery):
                found |= frozenset({atom})
            elif isinstance(atom, Part):
                found |= self.parts_taken(frozenset({atom})) or UNKNOWN
            elif isinstance(atom, Unknown):
                found |= UNKNOWN
            elif isinstance(atom, (Tuple, Instance)):
                stack += list(self.elements(frozenset({atom})))
        return found

    def call_unknown(self, arguments: Arguments, node: ir.Call) -> None:
        """A call that cannot be followed: it may do anything to the modules it is given."""
        if isinstance(node.func, ir.Attr):
            if node.func.name in ("backward", "step") and not arguments.positional:
                self.backward_pass(node, NOTHING)
            elif node.func.name in ("gradient", "jacobian"):
                self._gradient(node, arguments)
                return
        for value in (*arguments.positional, *(value for _, value in arguments.keywords)):
            for atom in value:
                if isinstance(atom, Function):
                    self._call_back(atom, arguments, node)
        self.forget_modes(arguments.everything())

    def _call_back(self, function: Function, arguments: Arguments, node: ir.Call) -> None:
        """Run what was handed to something unknown, which may call it: ``Process(target=worker, args=(1, 2))``."""
        assert self.state is not None
        if self.too_deep(function):
            return
        given: list[Value] = []
        for atom in arguments.get("args") or NOTHING:
            given = list(atom.items) if isinstance(atom, Tuple) else []
        if given and isinstance(node.func, ir.Attr) and node.func.name == "spawn":
            given.insert(0, UNKNOWN)  # the number of the process
        before = self.state.copy()
        self.run_function(function, None, Arguments(tuple(given)), node)
        self.state = before.join(self.state) if self.state is not None else before


def _may_set_modes(atom: Atom) -> bool:
    """Whether a function given to ``module.apply`` may change modes: it names ``train`` or ``eval``, or is not
    known."""
    if isinstance(atom, Function):
        text = repr(atom.node)
        return any(word in text for word in ("name='eval'", "name='train'", "name='training'"))
    return True
