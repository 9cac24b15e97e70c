"""The files of a run in a bucket beside its checkpoints: config.json, metrics.jsonl, curves, reports, ...

    files = SmallFiles(bucket, folder, lease)
    there = files.bring()      # makes the folder's what the bucket has; everything in the bucket, by name
    files.send()               # what has changed since, whole; what is gone is deleted

A file is replaced by the generation that this trainer has written or brought; where that is not the last one any more,
by one that it saw before it confirmed that the run is its. So a trainer that has lost the run does not replace what its
successor has written (see `lease`).
"""

import contextlib
import os
import threading
from pathlib import Path

from sem_jax.errors import RunError
from sem_jax.runs.folders import remove
from sem_jax.runs.lease import NAME as TRAINER
from sem_jax.runs.lease import Lease
from sem_jax.runs.reading import METRICS_LIMIT
from sem_jax.system.bucket import Bucket, Conflict, Stat, parallel

CHECKPOINTS = "checkpoints/"
_NOT_BROUGHT = ("predictions/", "profile/", "tensorboard/")  # no start needs them
_NOT_SENT = ("predictions/",)  # a cache
_TRIES = 5

Stamp = tuple[int, int]  # time of change in ns, bytes


class SmallFiles:
    """Keeps the small files of a folder and of a bucket equal.

    Args:
      folder: nothing else may write to it meanwhile but the run.
      lease: of the run, which the caller holds when files are sent.
    """

    def __init__(self, bucket: Bucket, folder: Path, lease: Lease):
        self._bucket, self._folder, self._lease = bucket, folder, lease
        self._mutex = threading.Lock()
        self._known: dict[str, tuple[int, Stamp]] = {}  # generation there, stamp of the file here

    def here(self) -> dict[str, Stamp]:
        """The small files of the folder, without hidden and temporary ones."""
        found = {}
        for place, folders, names in os.walk(self._folder):
            top = Path(place) == self._folder
            folders[:] = [it for it in folders if not it.startswith(".") and not (top and it == CHECKPOINTS[:-1])]
            for path in (Path(place) / name for name in names if not name.startswith(".")):
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and not path.is_symlink():
                        status = path.stat()
                        found[path.relative_to(self._folder).as_posix()] = status.st_mtime_ns, status.st_size
        return found

    def bring(self) -> dict[str, Stat]:
        """Makes the folder's small files those of the bucket; returns all that is in the bucket.

        Raises:
          RunError: somebody else keeps replacing them.
        """
        for _ in range(_TRIES):
            there = self._bucket.list()
            wanted = {name: stat for name, stat in there.items() if self._is_brought(name, stat)}
            for name in self.here():
                if name not in wanted:
                    remove(self._folder / name)
            try:
                parallel(lambda name, stats=wanted: self._bring_one(name, stats[name]), wanted)
                return there
            except FileNotFoundError:
                continue  # replaced since they were listed: once more
        raise RunError(f"The files of {self._bucket.url} are being replaced by somebody else.", "Try again later.")

    def _is_brought(self, name: str, stat: Stat) -> bool:
        hidden = any(part.startswith(".") for part in name.split("/"))
        return not (hidden or name.startswith((CHECKPOINTS, TRAINER, *_NOT_BROUGHT)) or stat.size > METRICS_LIMIT)

    def _bring_one(self, name: str, stat: Stat) -> None:
        path = self._folder / name
        for parent in path.relative_to(self._folder).parents:
            if (self._folder / parent).is_symlink():
                remove(self._folder / parent)
        remove(path)
        self._bucket.download(name, path, generation=stat.generation)
        status = path.stat()
        self._known[name] = stat.generation, (status.st_mtime_ns, status.st_size)

    def send(self) -> None:
        """Uploads what has changed, and deletes there what is gone here.

        Raises:
          RunError: another trainer has taken over; or the bucket cannot be reached.
        """
        with self._mutex:
            here = self.here()
            changed = [
                name
                for name, stamp in here.items()
                if not name.startswith(_NOT_SENT) and (name not in self._known or self._known[name][1] != stamp)
            ]
            parallel(lambda name: self._send_one(name, here[name]), changed)
            for name in self._known.keys() - here.keys():
                self._bucket.delete(name, self._known.pop(name)[0])

    def _send_one(self, name: str, stamp: Stamp) -> None:
        try:
            content = (self._folder / name).read_bytes()  # at least as new as its stamp
        except FileNotFoundError:
            return
        match = self._known[name][0] if name in self._known else 0
        while True:
            try:
                self._known[name] = self._bucket.write(name, content, match=match), stamp
                return
            except Conflict:
                stat = self._bucket.stat(name)
                self._lease.confirm()
                match = stat.generation if stat else 0
