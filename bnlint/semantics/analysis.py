"""A file from its outline to the facts that rules read.

The module's own code runs first. Then every function and method that nothing in the file called is run on its
own, with parameters that are not known. Methods of one object may be called in any order and any number of
times, so they start from the join of what construction and all of them leave behind.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from bnlint.frameworks.tf1 import may_gather_updates
from bnlint.semantics.chains import ChainInterpreter
from bnlint.semantics.events import FileFacts
from bnlint.semantics.frames import Frame
from bnlint.semantics.interpreter import Interpreter
from bnlint.semantics.machine import DEPTHS, MAX_STEPS, STRUCTURE_DEPTH, OutOfSteps
from bnlint.semantics.project import Project
from bnlint.semantics.state import State
from bnlint.semantics.values import Class, Function, Instance
from bnlint.source.marks import Mark
from bnlint.source.parse import Role, Segment, Source

_ROUNDS = 2
#: A method with this counts also where it is not what a rule looks for: what it does to an object's modes does.
_SETS_A_MODE = re.compile(r"\.\s*(?:eval|train|training)\b|\b(?:is_)?training\s*=")
#: With this, a class trains what it is made of.
_TRAINS = re.compile(r"\b(?:training_step|requires_grad|backward)\b")
#: Enough for the deepest tree that is parsed, times the frames that one level of nesting takes here.
_RECURSION_LIMIT = 20_000


def analyse(source: Source, project: Project | None = None, marks: Sequence[Mark] | None = None) -> FileFacts:
    """The facts of one file, and of what it runs of the files that it imports, where there is a ``project``.

    ``marks`` tell which of its top-level statements can hold what the rules look for: the others are run only as far
    as those need them. Gives up (``complete`` is false) on huge files. Raises ``FileError`` where libcst fails.
    """
    with _deep_recursion():
        relevant = list(source.segments)
        if marks is not None:
            marked = {mark: _marked(mark, source) for mark in marks}
            marks = [mark if on else mark._replace(excuse=None) for mark, on in marked.items()]
            relevant = _relevant(source, dict(zip(marks, marked.values(), strict=True)))
        follows_modes = marks is None or any(m.follows_modes and m.is_on(s.code) for m in marks for s in relevant)
        follows_chains = marks is None or any(m.follows_chains and m.is_on(s.code) for m in marks for s in relevant)
        # What happens when a package is imported is no program, unless a rule is about some of it.
        is_package = source.path.rpartition("/")[2] == "__init__.py"
        scripts = not is_package and any(segment.acts for segment in source.segments)
        # A library's functions are each on their own; a program may be too large as a whole, and right at its top.
        program = any(segment.role is Role.CODE for segment in relevant)
        for depth in DEPTHS if program else DEPTHS[:1]:
            interpreter = (ChainInterpreter if follows_chains else Interpreter)(source, project)
            interpreter.max_depth = depth
            if not follows_modes:
                interpreter.limit = MAX_STEPS // 8
                interpreter.max_depth = min(depth, STRUCTURE_DEPTH)
            elif not program:
                interpreter.limit = MAX_STEPS // 4
            try:
                if relevant or scripts:
                    _run_all(interpreter, relevant, marks)
                break
            except OutOfSteps:
                interpreter.facts.complete = False
    if interpreter.facts.train_steps:
        texts = (scope.source.text for scope in interpreter.scopes.values())
        interpreter.facts.gathers_updates = any(may_gather_updates(text) for text in texts)
    return interpreter.facts


def _marked(mark: Mark, source: Source) -> set[Segment]:
    if not mark.callers:
        return {segment for segment in source.segments if mark.is_on(segment.code)}
    return {segment for segment in source.segments if _is_on(mark, segment, source)}


def _relevant(source: Source, marked: dict[Mark, set[Segment]]) -> list[Segment]:
    """The statements that hold a mark, what excuses it, and those that name a function or class which holds one: they
    may call it."""
    alone = {segment for mark, on in marked.items() if not mark.callers for segment in on}
    found = {segment for mark, on in marked.items() if mark.callers for segment in on}
    found |= {segment for segment in source.segments if any(mark.excuses(segment.code) for mark in marked)}
    names: set[str] = set()
    defining = (Role.DEFINITION, Role.ASSIGNMENT)
    while more := {name for segment in found if segment.role in defining for name in segment.binds} - names:
        names |= more
        found |= {segment for segment in source.segments if not names.isdisjoint(_words(segment.code))}
    return [segment for segment in source.segments if segment in found or segment in alone]


def _is_on(mark: Mark, segment: Segment, source: Source) -> bool:
    """Whether a statement has all that a mark asks for, by itself or in what it names (``net = Net().cuda()``)."""
    if mark.is_on(segment.code):
        return True
    if len(mark.patterns) < 2 or segment.role is not Role.DEFINITION or not mark.patterns[0].is_in(segment.code):
        return False
    words = _words(segment.code)
    code = (Role.ASSIGNMENT, Role.CODE)
    named = [other.code for other in source.segments if other.role in code and not words.isdisjoint(other.binds)]
    return bool(named) and mark.is_on("\n".join([segment.code, *named]))


@lru_cache(maxsize=2_000)
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d]\w*", text))


def _run_all(machine: Interpreter, relevant: list[Segment], marks: Sequence[Mark] | None) -> None:
    root = machine.root
    for segment in root.source.segments:
        if machine.state is None:
            break
        if segment.role in (Role.DEFINITION, Role.IMPORT):
            continue
        lazy = machine.is_on_demand(root, segment) and segment not in relevant
        lazy = lazy and _SETS_A_MODE.search(segment.code) is None
        if lazy and marks is not None and not any(mark.may_be_on(segment.code) for mark in marks):
            continue
        root.done.add(segment)
        machine.run_block(machine.statements_of(root, segment))
    if machine.state is None:  # the module ends in sys.exit(), raise, …
        machine.state = machine.before_raise
    roots = Frame(None, root.frame, None, root)
    machine.frame = roots
    for segment in relevant:
        if segment.role is Role.DEFINITION:
            for name in segment.binds:
                machine.lookup(name)
    done: set[Function] = set()
    for _ in range(_ROUNDS):
        _run_functions(machine, root.frame, done)
    names = frozenset(name for segment in relevant if segment.role is Role.DEFINITION for name in segment.binds)
    structural = [mark for mark in marks or () if not mark.follows_modes]
    reached = any(mark.callers and mark.is_on(segment.code) for mark in structural for segment in relevant)
    for cls in machine.classes:
        if cls.location.path != root.source.path:
            continue
        if marks is None or reached or not _is_in_its_users_hands(cls, root.source.code_lines, structural):
            _run_class(machine, cls, marks, names)


def _run_functions(machine: Interpreter, frame: Frame, done: set[Function]) -> None:
    """Run the functions defined in ``frame`` (and in them) that no call in the file has reached."""
    assert machine.state is not None
    exits = machine.state
    for function in list(frame.functions):
        if function.owner is None and (not function.called or function in done):
            done.add(function)
            machine.state = exits.copy()
            after = _run_root(machine, function, None)
            exits = exits.join(after)
    machine.state = exits


def _run_root(machine: Interpreter, function: Function, receiver: Instance | None) -> State:
    assert machine.state is not None
    machine.spend(1)
    before = machine.state.copy()
    root = machine.frame
    frame = root.children.setdefault((id(function),), Frame(function, function.frame, root, function.frame.scope))
    frame.receiver = receiver
    parameters = machine.default_parameters(function)
    saved, function.defaults = function.defaults, parameters
    machine.run_root(frame, function, receiver)
    function.defaults = saved
    for inner in list(frame.functions):
        if not inner.called and machine.state is not None:
            kept = machine.state.copy()
            _run_root(machine, inner, None)
            machine.state = kept
    return machine.state if machine.state is not None else before


def _run_class(machine: Interpreter, cls: Class, marks: Sequence[Mark] | None, relevant: frozenset[str]) -> None:
    """Run the methods that nothing called on a representative object, in any order."""
    names = dict.fromkeys(name for ancestor in cls.ancestors() for name in ancestor.attributes)
    methods = [
        atom
        for name in names
        for atom in cls.lookup(name) or ()
        if isinstance(atom, Function)
        and atom.owner is not None
        and not atom.called
        and atom.name != "__init__"
        and atom.location.path == cls.location.path  # another file's are run where that file is analysed
    ]
    init = [atom for atom in cls.lookup("__init__") or () if isinstance(atom, Function)]
    if marks is not None:
        lines = machine.root.source.code_lines
        wanted = _relevant_methods(methods + init, lines, marks, relevant - {cls.name})
        methods = [method for method in methods if method in wanted]
        init = [method for method in init if method in wanted]
    if not methods and all(function.called for function in init):
        return
    assert machine.state is not None
    outside = machine.state.copy()
    machine.state, receiver = machine.representative(cls)
    entry = machine.state
    # A module's mode is its user's affair; an object of unknown make may have its modules set by its base.
    in_own_hands = receiver.framework is None and not cls.has_unknown_base and not machine.lessons.is_managed(cls)
    for _ in range(_ROUNDS):
        for method in methods:
            machine.state = entry.copy()
            if not in_own_hands and method.name != "training_step":  # Lightning runs that in the modes it finds
                machine.forget_modes(frozenset({receiver}))
            after = _run_root(machine, method, None if "staticmethod" in method.decorators else receiver)
            if not in_own_hands:
                after.modes = entry.modes.copy()
            entry = entry.join(after)
    machine.state = outside


def _is_in_its_users_hands(cls: Class, lines: list[str], structural: Sequence[Mark]) -> bool:
    """Whether this is a module that neither sets modes nor trains, so that nothing is known of the modes of its parts;
    and not one in which a rule looks for how it is built."""
    if Interpreter.framework_of_bases(cls.library_bases()) != "torch":
        return False
    at = cls.node.span
    text = "\n".join(lines[at.line - 1 : at.end_line]) if at is not None else ""
    return not (_SETS_A_MODE.search(text) or _TRAINS.search(text) or any(mark.is_on(text) for mark in structural))


def _relevant_methods(
    methods: list[Function], lines: list[str], marks: Sequence[Mark], relevant: frozenset[str]
) -> set[Function]:
    """The methods that hold a mark, and those that name what does."""
    texts = {}
    for method in methods:
        at = method.location
        texts[method] = "\n".join(lines[at.line - 1 : at.end_line])
    found = {
        method
        for method, text in texts.items()
        if _SETS_A_MODE.search(text) or any(mark.may_be_on(text) for mark in marks)
    }
    names = set(relevant)
    while True:
        names |= {method.name for method in found if method.name != "__init__"}
        more = {method for method, text in texts.items() if not names.isdisjoint(_words(text))} - found
        if not more:
            return found
        found |= more


@contextmanager
def _deep_recursion() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
