"""What the verifier says of the findings in many projects: how many it decides, and why not the others.

    python benchmarks/verdicts.py FOLDER [--models]

FOLDER holds a project in each of its folders. bnlint runs in each of them, with ``--verify`` or, with ``--models``,
with ``--verify-models``, which runs code of the projects' models.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

#: Seconds for one project; what takes longer is counted by itself.
LIMIT = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", action="store_true", help="build and measure whole models as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every finding with its verdict")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    late = []
    for project in sorted(path for path in options.folder.iterdir() if path.is_dir()):
        option = "--verify-models" if options.models else "--verify"
        command = [sys.executable, "-m", "bnlint", option, "--format", "json", "--exit-zero", "--no-cache", "."]
        try:
            run = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            late.append(project.name)
            continue
        found += ({"project": project.name, **finding} for finding in json.loads(run.stdout)["findings"])
        print(f"{project.name}: {len(found)} so far", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps(found), encoding="utf-8")
    _print(found, late)


def _print(found: list[dict[str, Any]], late: list[str]) -> None:
    verdicts = Counter(finding["verification"]["verdict"] for finding in found)
    print(f"{len(found)} findings in {len({finding['project'] for finding in found})} projects\n")
    print("| verdict | findings | share |\n|---|---|---|")
    for verdict, count in verdicts.most_common():
        print(f"| {verdict} | {count} | {count / len(found):.0%} |")
    whole = sum("model" in finding["verification"]["measurements"] for finding in found)
    print(f"\n{whole} of them by a whole model.\n")
    for heading, chosen in (
        ("inconclusive", [f for f in found if f["verification"]["verdict"] == "inconclusive"]),
        ("whole models that could not be measured", [f for f in found if "as a whole:" in f["verification"]["reason"]]),
    ):
        print(f"| {heading}: reason | findings |\n|---|---|")
        for reason, count in Counter(_reason(finding) for finding in chosen).most_common(10):
            print(f"| {reason} | {count} |")
        print()
    if late:
        print(f"Took longer than {LIMIT} s: {', '.join(late)}")


def _reason(finding: dict[str, Any]) -> str:
    """The reason without what is of this finding alone: names, numbers, quotations."""
    reason = finding["verification"]["reason"]
    reason = re.sub(r".*\(\S+ as a whole: (.*)\)$", r"\1", reason)
    reason = re.sub(r"^[\w.]+(?= cannot be built)|(?<=the code of )\w+|'[^']*'|\"[^\"]*\"|\d+(?:\.\d+)?", "…", reason)
    return reason[:100].replace("|", "/")


if __name__ == "__main__":
    main()
