"""Makes the catalogue of library models: which kinds of mode-dependent layers they have when built with the defaults.

    python benchmarks/catalogue.py SITE_PACKAGES           # writes bnlint/frameworks/catalogue.json
    python benchmarks/catalogue.py SITE_PACKAGES --check   # compares it with live models, where they can be imported

SITE_PACKAGES holds the sources of torchvision, timm, segmentation_models_pytorch, transformers and keras (those of
``CORPORA`` in ``speed.py`` will do; ``pip install --no-deps --target``). bnlint's analysis runs over them
(``building.py``, ``exact.py``), imports none of them, and takes some minutes. What it cannot establish is left out; a
model that surely has no such layer is listed as having none. The second command must run in an environment that has the
libraries; it builds the models without weights, on PyTorch's meta device where that goes.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import live
from building import Builder
from exact import Inexact, Raised

from bnlint.errors import FileError
from bnlint.frameworks.catalogue import layers_of
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics.machine import OutOfSteps
from bnlint.semantics.project import Project
from bnlint.semantics.values import UNKNOWN, Constant, Instance, Part, Value, constant

CATALOGUE = Path(__file__).resolve().parent.parent / "bnlint" / "frameworks" / "catalogue.json"
LIBRARIES = ("keras", "segmentation_models_pytorch", "timm", "torchvision", "transformers")
#: Packages of frameworks that are looked into; their layers remain what bnlint knows them to be.
LOOKED_INTO = ("torchvision", "keras.src.applications")


@dataclass(frozen=True)
class Entry:
    """A builder: its family and name in the catalogue, the file that defines it, what it is called there, what it
    is given, and the class of the configuration that comes first."""

    family: str
    name: str
    path: str
    function: str
    given: tuple[tuple[str, Value], ...] = ()
    config: str = ""

    @property
    def full_name(self) -> str:
        return self.family + self.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site_packages", type=Path)
    parser.add_argument("--check", action="store_true", help="compare the catalogue with live models")
    only = "only builders whose name begins like this; what else is in the catalogue stays as it is"
    parser.add_argument("--only", default="", metavar="TEXT", help=only)
    parser.add_argument("--new", action="store_true", help="only builders that the catalogue does not know")
    options = parser.parse_args()
    sys.setrecursionlimit(20_000)
    project = Project(str(options.site_packages.resolve()), also=LOOKED_INTO)
    entries = list(entries_in(options.site_packages, project))
    chosen = [entry for entry in entries if entry.full_name.startswith(options.only)]
    if options.check:
        sys.exit(live.check([(entry.family, entry.name) for entry in chosen]))
    listed = {entry: layers_of(entry.full_name) for entry in entries}
    found = {entry: frozenset(kinds) for entry, kinds in listed.items() if kinds is not None}
    chosen = [entry for entry in chosen if not (options.new and entry in found)]
    machines: dict[str, Builder] = {}
    began = time.perf_counter()
    for number, entry in enumerate(chosen):
        built = kinds_built(project, entry, machines)
        found.pop(entry, None)
        if built is not None:
            found[entry] = built
        owned = ", ".join(sorted(built)) or "none" if built is not None else "not known"
        said = f"{time.perf_counter() - began:6.0f} s  {number + 1} of {len(chosen)}  {entry.full_name}: {owned}"
        print(said, file=sys.stderr, flush=True)
        if number % 50 == 0:
            write(found, options.site_packages)
    write(found, options.site_packages)
    print(f"{len(found)} of {len(entries)} known, {sum(not kinds for kinds in found.values())} without such layers")


# What there is


def entries_in(site: Path, project: Project) -> Iterator[Entry]:
    yield from torchvision_entries(site)
    yield from timm_entries(site)
    yield from segmentation_entries(site, project)
    yield from keras_entries(site)
    yield from transformers_entries(site)


def torchvision_entries(site: Path) -> Iterator[Entry]:
    models = site / "torchvision" / "models"
    for folder in ("", "detection", "optical_flow", "quantization", "segmentation", "video"):
        family = ".".join(("torchvision.models", folder)).rstrip(".") + "."
        for path in sorted((models / folder).glob("[a-z]*.py")):
            for name in exported(path):
                if not name.endswith("Weights"):
                    yield Entry(family, name, shown(path, site), name)


def timm_entries(site: Path) -> Iterator[Entry]:
    for path in sorted((site / "timm" / "models").glob("[a-z]*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        known = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and is_decorated(node, "register_model")
        ]
        for name in known:
            yield Entry("timm:", name, shown(path, site), name)
        for node in ast.walk(tree):  # old names
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "register_model_deprecations":
                for old, new in ast.literal_eval(node.args[1]).items():
                    if new and new.partition(".")[0] in known:
                        yield Entry("timm:", old, shown(path, site), new.partition(".")[0])


def segmentation_entries(site: Path, project: Project) -> Iterator[Entry]:
    """The models with an encoder that bnlint knows nothing of, and the encoders."""
    package = site / "segmentation_models_pytorch"
    for node in ast.parse((package / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("decoders."):
            for alias in node.names:
                given = (("encoder_name", UNKNOWN), ("encoder_weights", constant(None)))
                path, family = shown(package / "__init__.py", site), "segmentation_models_pytorch."
                yield Entry(family, alias.name.lower(), path, alias.name, given)
    encoders = shown(package / "encoders" / "__init__.py", site)
    source = project.source(encoders)
    for name in Builder(source, project).keys_of("encoders") if source is not None else ():
        yield Entry("smp:", name, encoders, "get_encoder", (("name", constant(name)), ("weights", constant(None))))


def keras_entries(site: Path) -> Iterator[Entry]:
    for path in sorted((site / "keras" / "src" / "applications").glob("[a-z]*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name[0].isupper() and is_decorated(node, "keras_export"):
                given = (("weights", constant(None)),)
                yield Entry("keras.applications.", node.name, shown(path, site), node.name, given)


def transformers_entries(site: Path) -> Iterator[Entry]:
    """The models in files that name BatchNorm, built from the default configuration."""
    for path in sorted((site / "transformers" / "models").glob("*/modeling_*.py")):
        text = path.read_text("utf-8")
        if "BatchNorm" in text:
            classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
            for name in exported(path):
                config = config_of(name, classes)
                if config is not None and not name.endswith("PreTrainedModel"):
                    yield Entry("transformers.", name, shown(path, site), name, config=config)


def config_of(name: str, classes: dict[str, ast.ClassDef]) -> str | None:
    """The class of the configuration that a class says it takes, or one of its bases in the file."""
    if name not in classes:
        return None
    for node in ast.walk(classes[name]):
        said = node.annotation if isinstance(node, (ast.AnnAssign, ast.arg)) else None
        what = node.arg if isinstance(node, ast.arg) else getattr(getattr(node, "target", None), "id", "")
        if isinstance(said, ast.Name) and what == "config" and said.id.endswith("Config"):
            return said.id
    found = (config_of(base.id, classes) for base in classes[name].bases if isinstance(base, ast.Name))
    return next((config for config in found if config is not None), None)


def exported(path: Path) -> list[str]:
    """The names in the ``__all__`` of a file."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return sorted(str(n.value) for n in ast.walk(node.value) if isinstance(n, ast.Constant))
    return []


def is_decorated(node: ast.FunctionDef, name: str) -> bool:
    return any(ast.unparse(decorator).partition("(")[0] == name for decorator in node.decorator_list)


def shown(path: Path, site: Path) -> str:
    return path.relative_to(site).as_posix()


# What it builds


def kinds_built(project: Project, entry: Entry, machines: dict[str, Builder]) -> frozenset[str] | None:
    """The kinds of the layers that are surely there; None if none is, but it is not sure that there are none.

    What is built by functions of the same file is built by the same machine, so that their file is read once.
    """
    source = project.source(entry.path)
    if source is None:
        return None
    machine = machines.pop(entry.path, None) or Builder(source, project)
    machines.clear()
    machine.forget()
    try:
        given = dict(entry.given)
        if entry.config:
            given["config"] = machine.build(entry.config)
        kinds = surely_in(machine, machine.build(entry.function, given))
    except (OutOfSteps, Inexact, Raised, FileError, RecursionError):
        return None
    machines[entry.path] = machine
    if not kinds and machine.is_asked_for_more(entry.function, given):
        return None
    if entry.config and kinds is not None:  # another configuration may have other rates, and more layers
        return frozenset(kind for kind in kinds if LAYERS[kind].kind != "dropout") or None
    return kinds


def surely_in(machine: Builder, value: Value) -> frozenset[str] | None:
    built = [atom for atom in value if isinstance(atom, Instance) and atom.framework is not None]
    if not built or len(built) < len(value):
        return None
    certain, possible = [], False
    for model in built:
        layers, unknown = machine.mode_dependent_layers(model)
        certain.append({layer.instance.kind for layer in layers if layer.certain})
        parts = [part for part, _ in machine.parts(model)[0] if isinstance(part, Instance)]
        held = [atom for part in parts for _, value in machine.field_values(part) for atom in value]
        possible = possible or unknown or bool(layers) or any(isinstance(atom, Part) for atom in held)
        possible = possible or any(map(has_unknown_rate, parts))
    kinds = frozenset.intersection(*map(frozenset, certain))
    return kinds if kinds or not possible else None


def has_unknown_rate(part: Instance) -> bool:
    facts = LAYERS.get(part.kind)
    if facts is None or facts.kind != "dropout":
        return False
    rate = part.arguments.get(facts.parameters[0])
    return rate is not None and not all(isinstance(atom, Constant) for atom in rate)


# The file


def versions(site: Path) -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        for folder in site.glob(f"{library}-*.dist-info"):
            found[library] = folder.name.removesuffix(".dist-info").rpartition("-")[2]
    return found


def write(found: dict[Entry, frozenset[str]], site: Path) -> None:
    CATALOGUE.write_text(as_json(found, versions(site)), encoding="utf-8")


def as_json(found: dict[Entry, frozenset[str]], made_from: dict[str, str]) -> str:
    """Names by family and by the layers that they have, as places in the list of kinds; lines of many names each."""
    counts = Counter(kind for kinds in found.values() for kind in kinds)
    kinds = sorted(counts)
    models: dict[str, dict[str, list[str]]] = {}
    for entry, owned in sorted(found.items(), key=lambda item: item[0].full_name):
        key = " ".join(str(kinds.index(kind)) for kind in sorted(owned))
        models.setdefault(entry.family, {}).setdefault(key, []).append(entry.name)
    lines = {
        family: {
            key: textwrap.wrap(" ".join(names), 110, break_on_hyphens=False) for key, names in sorted(by_kinds.items())
        }
        for family, by_kinds in models.items()
    }
    return json.dumps({"made_from": made_from, "kinds": kinds, "models": lines}, indent=1) + "\n"


if __name__ == "__main__":
    main()
