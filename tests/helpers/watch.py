"""Watches what a piece of code does to the machine: programs started, code run, files written where none belong.

    with watch(allowed=(cache_folder,), suspect=folder_of_hostile_files) as seen:
        ...
    seen.executed, seen.written       # lists of what happened, [] in a good world

Python's own audit events are the witness (PEP 578), so that what is called through a library is seen as well.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

EXECUTING = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class", "pty.spawn")
CHANGING = {  # event -> index of the path that is changed
    "os.mkdir": 0,
    "os.rename": 1,
    "os.link": 1,
    "os.symlink": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.chmod": 0,
    "os.truncate": 0,
}


_PROC = os.access("/proc/self/clear_refs", os.W_OK)


class Seen(NamedTuple):
    executed: list[str]
    written: list[str]


_active: list[tuple[Seen, tuple[str, ...], str]] = []
_installed: list[bool] = []


@contextlib.contextmanager
def watch(*, allowed: Sequence[Path], suspect: Path) -> Iterator[Seen]:
    """Records what happens inside; files below `allowed` may change, code from files below `suspect` is an offence."""
    if not _installed:  # an audit hook stays for the life of the process
        sys.addaudithook(_hook)
        _installed.append(True)
    seen = Seen([], [])
    _active.append((seen, tuple(os.path.realpath(p) for p in allowed), os.path.realpath(suspect)))
    try:
        yield seen
    finally:
        _active.pop()


def most_memory() -> int:
    """Bytes of memory that this process has had at most since `reset_most_memory`; 0 where Linux does not tell."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text()) if _PROC else None
    return int(found[1]) << 10 if found else 0


def reset_most_memory() -> int:
    """Begins to measure `most_memory` anew, and returns it."""
    if _PROC:
        Path("/proc/self/clear_refs").write_text("5")
    return most_memory()


def _hook(event: str, arguments: tuple) -> None:
    if not _active:
        return
    seen, allowed, suspect = _active[-1]
    if event in EXECUTING:
        seen.executed.append(f"{event} {arguments!r:.100}")
    elif event == "exec" and str(getattr(arguments[0], "co_filename", "")).startswith(suspect):
        seen.executed.append(f"exec {arguments[0].co_filename}")
    elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _note(arguments[0], seen, allowed)
    elif event in CHANGING and not isinstance(arguments[CHANGING[event]], int):
        path = os.fsdecode(arguments[CHANGING[event]])
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # from shutil.rmtree: the number of a folder
            path = os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), path)
        follow = event in ("os.chmod", "os.truncate")
        if not follow:  # the others change a link itself
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        _note(path, seen, allowed, follow)


def _note(path, seen: Seen, allowed: tuple[str, ...], follow: bool = True) -> None:
    if isinstance(path, int) or path is None:
        return
    real = os.path.realpath(os.fsdecode(path)) if follow else path
    # Python keeps the bytecode of its own modules when it first imports them.
    if not real.startswith(allowed) and real != os.devnull and "__pycache__" not in real:
        seen.written.append(real)
