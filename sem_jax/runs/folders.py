"""Deletes, moves and holds the folders of checkpoints, among which anything may lie.

with holding(folder / "390"):                          # a reader: nobody deletes it meanwhile
    ...
with holding(folder / "390", alone=True) as free:      # the trainer: False while somebody reads it
    ...
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
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
