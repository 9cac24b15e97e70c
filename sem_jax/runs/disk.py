"""A run on a disk, and the folder on a disk in which a run in a bucket is trained.

    disk = Disk(Path("runs/digits"))
    with disk: ...

A run on a disk needs nothing done: `mirror` has the same methods for a run in a bucket, `storage` chooses.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import jax

from sem_jax.data.decoded_cache import cache_dir
from sem_jax.system.urls import is_url


def local_folder(workdir: str | Path) -> Path:
    """The folder on this machine's disk in which a run is trained: the run folder itself, or the scratch of a bucket's.

    >>> local_folder("runs/digits")
    PosixPath('runs/digits')
    """
    if not is_url(workdir):
        return Path(workdir).expanduser()
    url = str(workdir).rstrip("/")
    # One each process: several may train together on one machine.
    own = f"-{jax.process_index()}" if jax.process_index() else ""
    return cache_dir() / "runs" / (hashlib.sha256(url.encode()).hexdigest()[:16] + own) / url.rsplit("/", 1)[-1]


class Disk:
    """A run folder on a disk.

    Attributes:
      path: the folder to train in.
      name: the run's place, in messages.
      shared: whether all hosts of a run see `path`.
    """

    shared = True

    def __init__(self, path: Path, name: str = ""):
        self.path, self.name = path, name

    @contextlib.contextmanager
    def look(self) -> Iterator[Path]:
        """A folder with config.json, data.json and the names of the checkpoints, for the time of the block."""
        yield self.path

    def __enter__(self) -> "Disk":
        """Takes the run for this trainer."""
        return self

    def __exit__(self, kind, *_) -> None:
        pass

    def committed(self, step: int) -> None:
        """A checkpoint is complete on the disk."""

    def deleted(self, step: int) -> None:
        """A checkpoint is about to be deleted."""

    def publish(self, folder: str) -> None:
        """A folder of results, such as a report, is complete."""
