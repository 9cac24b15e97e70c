"""Deletes, moves and holds the folders of checkpoints, among which anything may lie.

with holding(folder / "390"):                          # a reader: nobody deletes it meanwhile
    ...
with holding(folder / "390", alone=True) as free:      # the trainer: False while somebody reads it
    ...
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from sem_jax.runs.manifest import NAME

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def remove(path: Path) -> None:
    """Deletes a folder, or whatever has its name; a link itself, not what it leads to."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def move_aside(path: Path) -> Path:
    """Moves a damaged checkpoint into the folder `damaged` beside it, or `damaged-1` where that is something else."""
    number = 0
    while (folder := path.parent / ("damaged" + (f"-{number}" if number else ""))).is_symlink() or folder.is_file():
        number += 1
    folder.mkdir(exist_ok=True)
    number = 0
    while os.path.lexists(moved := folder / (path.name + (f"-{number}" if number else ""))):
        number += 1
    os.rename(path, moved)
    return moved


@contextlib.contextmanager
def holding(path: Path, *, alone: bool = False) -> Iterator[bool]:
    """Locks a checkpoint: several may read it at a time, or one delete it.

    Args:
      path: folder of the checkpoint. Where it is gone, or has no locks, nothing is held.
      alone: to delete it. Then the value is False, at once, while another process reads it.
    """
    free, descriptor = True, None
    try:
        # Not blocking: a pipe would wait for a writer.
        descriptor = os.open(path / NAME, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except BlockingIOError:
        free = False
    except OSError:
        pass
    try:
        yield free
    finally:
        if descriptor is not None:
            os.close(descriptor)


def discard(path: Path, leaving: Path, told: Callable[[], None]) -> None:
    """Deletes a checkpoint that nobody reads. One that cannot be deleted stays: that is no failed save.

    Args:
      leaving: its name meanwhile; what has it is deleted too.
      told: is called before.
    """
    with contextlib.suppress(OSError):
        with holding(path, alone=True) as free:
            if free and _may_be_deleted(path):
                told()
                os.rename(path, leaving)
        remove(leaving)


def _may_be_deleted(folder: Path) -> bool:
    """False if its owner has made the folder, or one in it, read-only, perhaps to keep it."""
    inner = (os.path.join(place, name) for place, names, _ in os.walk(folder) for name in names)
    return all(os.access(it, os.R_OK | os.W_OK | os.X_OK) for it in (folder, *inner))
