"""How fast bnlint is, beside its peers, over real code.

    python benchmarks/speed.py --folder FOLDER                        # the bars: hours, most of them flake8's
    python benchmarks/speed.py --folder FOLDER --slow-rounds 1        # flake8 only once over each corpus
    python benchmarks/speed.py --folder FOLDER --slow-rounds 0 timm   # bnlint and ruff alone, over one corpus

Needs Linux or macOS, pip and a quiet machine. FOLDER gets a virtual environment for each tool, one with the corpora
and copies of these; what is installed there already is used again. Versions are pinned, bnlint is installed from this
checkout as it stands, the corpora without their dependencies; torch is a large download where pip finds no CPU build.

Each corpus is copied, Python sources only, so that all tools see the same files. Commands take turns: each runs once
in every round. Measured are whole processes from start to end, with output going nowhere.

- *bnlint, cold*: its cache has been deleted. *warm*: nothing has changed since. *one file changed*: a comment has been
  appended to a file that concerns the rules: that of median size of those that name BatchNorm and set a mode.
- *ruff*: ``--isolated --no-cache --select F401``, all its rules off but one.
- *flake8*: ``--isolated``, its own checks, no plugin installed. *flake8 + TorchFix*: ``--isolated --select TOR``;
  flake8 runs its own checks all the same and drops what they find.
- *start-up*: ``--version`` and an empty folder, beside ``python -c "import argparse, json"``; short, so each runs four
  times as often.
- *plugin*: flake8 with bnlint installed and without, over 200 files of the standard library that concern no rule.

*Peak* is the resident memory of the largest process of a run, at least this script's own of some 20 MB. A worker's
peak comes from one more cold run, outside of the timing, in which the processes that bnlint starts are watched (Linux
only; memory that they share counts in full).

Prints Markdown. A bar that is missed does not change the exit status.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
#: Package and version; what is imported has the same name with underscores.
CORPORA = {
    "timm": "1.0.31",
    "transformers": "5.24.0",
    "keras": "3.15.1",
    "keras-hub": "0.32.0",
    "segmentation-models-pytorch": "0.6.0",
    "torch": "2.13.0",
    "torchvision": "0.29.1",
    "ultralytics": "8.4.190",
}
FLAKE8, TORCHFIX, RUFF = "flake8==7.5.0", "torchfix==0.7.0", "ruff==0.17.6"
DEFAULT = ("startup", "plugin", "timm", "transformers")
FRAMEWORKS = (b"torch", b"keras", b"tensorflow")
MODES = (b".train(", b".eval(", b"training=")
#: In torch; Python before 3.12 cannot read it.
UNREADABLE = "py312_intrinsics.py"
#: A user's settings must not change what is measured.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BNLINT"))}


@dataclass(frozen=True)
class Command:
    name: str
    arguments: Sequence[str | Path]
    prepare: Callable[[], object] = lambda: None
    slow: bool = False


@dataclass
class Timing:
    seconds: list[float] = field(default_factory=list)
    #: Processor seconds, all processes of a run together.
    processor: list[float] = field(default_factory=list)
    #: Bytes, of the largest process of any run.
    peak: int = 0
    #: How runs ended that went wrong.
    problems: set[str] = field(default_factory=set)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known, default = ("startup", "plugin", *CORPORA), Path(tempfile.gettempdir(), "bnlint-speed")
    parts = f"of {', '.join(known)}; by default {', '.join(DEFAULT)}"
    parser.add_argument("parts", nargs="*", metavar="PART", help=parts)
    parser.add_argument(
        "--folder", type=Path, default=default, help=f"by default {default.name} in the temporary directory"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each command runs (default 5)")
    parser.add_argument("--slow-rounds", type=int, help="how often flake8 runs over a corpus (default as --rounds)")
    options = parser.parse_args()
    if unknown := set(options.parts).difference(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    slow_rounds = options.rounds if options.slow_rounds is None else options.slow_rounds
    if not 0 <= slow_rounds <= options.rounds or options.rounds < 1:
        parser.error("--rounds must be at least 1, and --slow-rounds between 0 and --rounds")

    folder = options.folder.resolve()
    install_tools(folder)
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {FLAKE8}, {TORCHFIX}, {RUFF}.")
    print(f"{options.rounds} rounds, {slow_rounds} of them with flake8 over corpora; the bars want five or more.")
    for part in dict.fromkeys(options.parts or DEFAULT):
        work = folder / "work" / part
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        # Makes this the project's directory for bnlint, so that it keeps its cache here.
        (work / "pyproject.toml").write_text("[tool.bnlint]\n", encoding="utf-8")
        if part == "startup":
            measure_startup(folder, work, 4 * options.rounds)
        elif part == "plugin":
            measure_plugin(folder, work, options.rounds)
        else:
            measure_corpus(part, folder, work, options.rounds, slow_rounds)


def install_tools(folder: Path) -> None:
    install(folder / "flake8", FLAKE8)
    install(folder / "peers", FLAKE8, TORCHFIX, RUFF)  # not beside bnlint: TorchFix caps libcst
    source = folder / "checkout"  # a copy, since building leaves files beside the sources
    shutil.rmtree(source, ignore_errors=True)
    for package in ("bnlint", "rules"):
        shutil.copytree(CHECKOUT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    # pip installs a directory anew even where the version is the same.
    install(folder / "bnlint", FLAKE8, str(source), "--constraint", str(CHECKOUT / "constraints.txt"))


def install(place: Path, *arguments: str) -> None:
    """Install into the virtual environment at ``place``, made if it is not there."""
    progress(f"installing into {place.name}")
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], env=ENVIRONMENT, check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(pip, env=ENVIRONMENT, check=True)


def measure_startup(folder: Path, work: Path, rounds: int) -> None:
    (work / "empty").mkdir()
    tools = folder / "bnlint" / "bin"
    python = Command('python -c "import argparse, json"', (tools / "python", "-c", "import argparse, json"))
    version = Command("bnlint --version", (tools / "bnlint", "--version"))
    empty = Command("bnlint, empty folder", (tools / "bnlint", "empty"))
    timings = alternate([python, version, empty], work, rounds)
    print_timings("Start-up", timings)
    baseline = timings[python.name]
    print_bars(
        bar("`bnlint --version`, times `python -c`", "≤", 2, timings[version.name], baseline),
        bar("an empty folder, times `python -c`", "≤", 2, timings[empty.name], baseline),
    )


def measure_plugin(folder: Path, work: Path, rounds: int) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    (work / "plain").mkdir()
    paths = sorted(path.relative_to(library) for path in library.rglob("*.py"))
    chosen = itertools.islice((path for path in paths if concerns_no_rule(library, path)), 200)
    for number, path in enumerate(chosen):
        shutil.copy(library / path, work / "plain" / f"{number:03}_{path.name}")
    without = Command("flake8", (folder / "flake8" / "bin" / "flake8", "--isolated", "plain"))
    plugin = Command("flake8 with the plugin", (folder / "bnlint" / "bin" / "flake8", "--isolated", "plain"))
    timings = alternate([without, plugin], work, rounds)
    print_timings(f"The plugin where no rule is concerned: {size(work / 'plain')}", timings)
    print_bars(bar("flake8 with the plugin, times without", "≤", 1.05, timings[plugin.name], timings[without.name]))


def concerns_no_rule(library: Path, path: Path) -> bool:
    if not {"site-packages", "test", "tests"}.isdisjoint(path.parts):  # tests hold invalid files
        return False
    data = (library / path).read_bytes().lower()
    return bool(data) and not any(word in data for word in FRAMEWORKS)


def measure_corpus(name: str, folder: Path, work: Path, rounds: int, slow_rounds: int) -> None:
    install(folder / "corpora", "--no-deps", "--no-compile", f"{name}=={CORPORA[name]}")
    package = name.replace("-", "_")
    (installed,) = (folder / "corpora").glob(f"lib/python*/site-packages/{package}")
    shutil.copytree(installed, work / package, ignore=left_out)
    changing = file_to_change(work / package)
    original = changing.read_bytes()
    counter = itertools.count(1)

    def forget() -> None:
        shutil.rmtree(work / ".bnlint_cache", ignore_errors=True)

    def change() -> None:
        changing.write_bytes(original + b"\n# change %d\n" % next(counter))

    bnlint, peers = (folder / "bnlint" / "bin" / "bnlint", package), folder / "peers" / "bin"
    one_rule = ("check", "--isolated", "--no-cache", "--select", "F401", "--exit-zero", package)
    own, with_torchfix = ("--isolated", package), ("--isolated", "--select", "TOR", package)
    cold = Command("bnlint, cold", bnlint, forget)
    warm = Command("bnlint, warm", bnlint)
    changed = Command("bnlint, one file changed", bnlint, change)
    ruff = Command("ruff, one rule", (peers / "ruff", *one_rule))
    flake8 = Command("flake8", (folder / "flake8" / "bin" / "flake8", *own), slow=True)
    torchfix = Command("flake8 + TorchFix", (peers / "flake8", *with_torchfix), slow=True)
    timings = alternate([cold, warm, changed, ruff, flake8, torchfix], work, rounds, slow_rounds)
    workers, peak = watch_workers(cold, work)

    print_timings(f"{name} {CORPORA[name]}: {size(work / package)}", timings)
    print(f"\nChanged: {changing.relative_to(work)}, {len(original) / 1e3:.0f} kB.")
    once = timings[cold.name]
    bars = [
        bar("warm, times ruff", "≤", 5, timings[warm.name], timings[ruff.name]),
        bar("one file changed, times warm", "≤", 1.5, timings[changed.name], timings[warm.name]),
    ]
    if slow_rounds:
        bars.append(bar("flake8 + TorchFix, times cold", "≥", 15, timings[torchfix.name], once))
        bars.append(bar("flake8, times cold", ">", 1, timings[flake8.name], once))
    who = f"the largest of {workers} workers" if workers else "bnlint, no workers seen"
    peak = peak if workers else once.peak
    bars.append((f"peak of {who}, MB", "≤ 400", f"{peak / 1e6:.0f}", verdict(peak <= 400e6, once)))
    print_bars(*bars)


def left_out(directory: str, names: list[str]) -> list[str]:
    folders = {name for name in names if os.path.isdir(os.path.join(directory, name))}
    return [name for name in names if name == UNREADABLE or not (name.endswith(".py") or name in folders)]


def file_to_change(package: Path) -> Path:
    """The file of median size among those that name BatchNorm and set a mode, or that do the one or the other."""
    named, moded = set(), set()
    for path in package.rglob("*.py"):
        data = path.read_bytes()
        if b"BatchNorm" in data or b"batch_norm" in data:
            named.add(path)
        if any(mode in data for mode in MODES):
            moded.add(path)
    concerned = (named & moded) or named or moded or set(package.rglob("*.py"))
    return sorted(concerned, key=lambda path: (path.stat().st_size, path))[len(concerned) // 2]


def size(folder: Path) -> str:
    files = lines = total = 0
    for path in folder.rglob("*.py"):  # one at a time: this process's peak is the least that any run can show
        data = path.read_bytes()
        files, lines, total = files + 1, lines + data.count(b"\n"), total + len(data)
    return f"{files:,} files, {lines:,} lines, {total / 1e6:.1f} MB"


def alternate(commands: Sequence[Command], work: Path, rounds: int, slow_rounds: int = 0) -> dict[str, Timing]:
    timings = {command.name: Timing() for command in commands if slow_rounds or not command.slow}
    for number, command in itertools.product(range(rounds), commands):
        if not command.slow or number < slow_rounds:
            progress(f"{work.name}, round {number + 1} of {rounds}: {command.name}")
            command.prepare()
            run(command, work, timings[command.name])
    return timings


def run(command: Command, work: Path, timing: Timing) -> None:
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = start(command, work, errors.fileno())
        _, status, usage = os.wait4(process.pid, 0)  # with the processes that it has waited for
        timing.seconds.append(time.perf_counter() - began)
        process.returncode = os.waitstatus_to_exitcode(status)
        timing.processor.append(usage.ru_utime + usage.ru_stime)
        timing.peak = max(timing.peak, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    # A crash of a Python program has the same status as findings.
    if process.returncode not in (0, 1) or "Traceback" in said:
        last = said.splitlines()[-1] if said else "nothing on standard error"
        timing.problems.add(f"exit status {process.returncode}, {last}")


def start(command: Command, work: Path, errors: int) -> subprocess.Popen[bytes]:
    arguments = [str(argument) for argument in command.arguments]
    return subprocess.Popen(arguments, cwd=work, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=errors)


def watch_workers(command: Command, work: Path) -> tuple[int, int]:
    """How many processes a run starts, and the peak of the largest in bytes; none where that cannot be seen."""
    command.prepare()
    process = start(command, work, subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for worker in descendants(process.pid):
            with suppress(OSError):  # gone meanwhile
                for line in Path(f"/proc/{worker}/status").read_text(encoding="utf-8").splitlines():
                    if line.startswith("VmHWM:"):
                        peaks[worker] = int(line.split()[1]) * 1024
        time.sleep(0.02)
    return len(peaks), max(peaks.values(), default=0)


def descendants(process: int) -> Iterator[int]:
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text(encoding="ascii").split()):
                yield child
                yield from descendants(child)


Bar = tuple[str, str, str, str]


def bar(what: str, sign: str, limit: float, timing: Timing, other: Timing) -> Bar:
    ratio = timing.median / other.median
    holds = {"≤": ratio <= limit, "≥": ratio >= limit, ">": ratio > limit}[sign]
    return what, f"{sign} {limit}", f"{ratio:.2f}", verdict(holds, timing, other)


def verdict(holds: bool, *timings: Timing) -> str:
    if any(timing.problems for timing in timings):
        return "a run went wrong"
    return "yes" if holds else "**no**"


def print_timings(title: str, timings: dict[str, Timing]) -> None:
    rows = []
    for name, timing in timings.items():
        values = (timing.median, min(timing.seconds), max(timing.seconds), statistics.median(timing.processor))
        rows.append((name, str(len(timing.seconds)), *(f"{value:.3f}" for value in values), f"{timing.peak / 1e6:.0f}"))
    print(f"\n## {title}\n")
    print_table(("command", "runs", "median, s", "min", "max", "processor, s", "peak, MB"), rows)
    for name, timing in timings.items():
        for problem in sorted(timing.problems):
            print(f"\n{name} went wrong: {problem}")


def print_bars(*bars: Bar) -> None:
    print()
    print_table(("bar", "limit", "measured", "holds"), bars)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for cells in (header, ["---"] * len(header), *rows):
        print("|", " | ".join(cells), "|", flush=True)


def progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
