"""What code of the linted project may do while a model of it is built and run: compute, and read.

Before it runs, the process gives up the network (a network namespace of its own, where Linux allows that) and takes
limits of memory and processor time; from then on an audit hook refuses to write outside the working directory, which is
a temporary one, to start programs and to open connections. A hook sees what goes through Python: it guards against
accidents, a script that saves checkpoints or starts a download, and not against code that is out to do harm. Whoever
would not run the project's tests should not ask for this either.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Bytes of address space: some for the framework's own libraries, the rest for the model.
MEMORY = 16 << 30
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Events, by their names in Python's table of audit events, with the places of the paths among their arguments.
_CHANGES_FILES = {
    "os.remove": (0,), "os.rename": (0, 1), "os.rmdir": (0,), "os.mkdir": (0,), "os.link": (0, 1), "os.symlink": (1,),
    "os.chmod": (0,), "os.chown": (0,), "os.truncate": (0,), "os.utime": (0,), "shutil.rmtree": (0,),
    "shutil.move": (0, 1), "shutil.copyfile": (1,),
}  # fmt: skip
_STARTS_PROGRAMS = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
    "pty.spawn",
)  # fmt: skip
_CONNECTS = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname",
             "urllib.Request", "ftplib.connect", "http.client.connect", "smtplib.connect")  # fmt: skip


class Refused(PermissionError):
    """The project's code wanted something that it may not do here."""


def limit(seconds: float, memory: int | None = MEMORY) -> None:
    """Give up the network and take limits, where the platform has them. To be called before threads are started.

    No ``memory`` limit where an accelerator is used: its driver reserves more addresses than there is memory.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)  # 0, or refused: the hook is there too
    if sys.platform != "win32":
        import resource

        limits = [(resource.RLIMIT_CPU, int(seconds) * 4), (resource.RLIMIT_CORE, 0)]
        limits += [(resource.RLIMIT_AS, memory)] if memory is not None and sys.platform == "linux" else []
        for which, value in limits:
            hard = resource.getrlimit(which)[1]
            with suppress(ValueError, OSError):
                resource.setrlimit(which, (value if hard < 0 else min(value, hard), hard))


def arm() -> None:
    """From here on this process only reads, but for its working directory. There is no way back."""
    inside = Path.cwd().resolve()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & _WRITING) if isinstance(flags, int) else any(c in str(mode) for c in "wax+")
            if writes and not _is_inside(path, inside):
                raise Refused(f"it wants to write {_named(path)}")
        elif event in _CHANGES_FILES:
            for place in _CHANGES_FILES[event]:
                if not _is_inside(arguments[place], inside):
                    raise Refused(f"it wants to change {_named(arguments[place])}")
        elif event in _STARTS_PROGRAMS:
            raise Refused("it wants to start a program")
        elif event in _CONNECTS:
            raise Refused("it wants to use the network")

    sys.addaudithook(hook)


def _is_inside(path: object, folder: Path) -> bool:
    if isinstance(path, int):  # an open file
        return True
    try:
        text = os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:
        return False
    if text in (os.devnull, "/dev/shm") or text.startswith("/dev/shm/torch_"):
        return True
    return Path(os.path.realpath(text)).is_relative_to(folder)


def _named(path: object) -> str:
    return os.path.basename(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else "a file"
