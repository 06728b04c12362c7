"""Where a child process may import from: this interpreter's own path without the linted project.

A ``torch.py`` or ``random.py`` of the user's must not be run in place of the real one.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path


def isolated_path(linted: Iterable[str]) -> list[str]:
    """``sys.path`` without what could be the user's code.

    Dropped are the working directory, what lies below it, what ``PYTHONPATH`` names relative to it, and every
    folder that a file of ``linted`` lies in or under; kept in any case is where Python and its packages are
    installed, also when that is a virtual environment inside the project.
    """
    here = Path.cwd().resolve()
    folders = {folder for path in linted for folder in (here / path).resolve().parents}
    relative = {
        (here / entry).resolve()
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if not os.path.isabs(entry)
    }
    kept = []
    for entry in sys.path:
        if not os.path.isabs(entry):
            continue
        path = Path(entry).resolve()
        if _is_installation(path) or not (path.is_relative_to(here) or path in folders or path in relative):
            kept.append(entry)
    return kept


def _is_installation(path: Path) -> bool:
    if path.name in ("site-packages", "dist-packages"):
        return True
    roots = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    roots.append(sysconfig.get_config_var("DESTSHARED"))  # the standard library's extension modules
    if site.ENABLE_USER_SITE:
        roots.append(site.getusersitepackages())
    return any(path.is_relative_to(Path(root).resolve()) for root in roots if root)
