"""A run in a bucket, trained in a scratch folder, $SEM_JAX_CACHE/runs/HASH/NAME, of which the bucket is the mirror.

The scratch folder is worth nothing: at the start it is made to be what the bucket has. A checkpoint is uploaded when it
is complete, after the small files that changed (config.json, data.json, metrics.jsonl, tensorboard/, ...), and counts
with one link in trainer.json: see `lease`, where it is shown that two trainers never both commit. Small files are also
uploaded in the background.

Several hosts need no common disk. The lead alone takes the run, saves and commits; each of the others fetches the
checkpoint that the lead has chosen, by the digest that trainer.json has of it.
"""

import contextlib
import hashlib
import logging
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from sem_jax.errors import ConfigError, RunError
from sem_jax.runs.disk import Disk, local_folder
from sem_jax.runs.folders import remove
from sem_jax.runs.lease import NAME as TRAINER
from sem_jax.runs.lease import Lease, read
from sem_jax.runs.manifest import NAME as MANIFEST
from sem_jax.runs.manifest import Damaged, read_manifest
from sem_jax.runs.reading import JSON_LIMIT
from sem_jax.runs.small_files import CHECKPOINTS, SmallFiles
from sem_jax.system.bucket import Altered, Bucket, Conflict, Stat, Unreachable, parallel
from sem_jax.system.hosts import from_lead, is_lead
from sem_jax.system.output import say
from sem_jax.system.urls import is_plain

log = logging.getLogger("sem_jax")
_NONE, _REFUSED = -1, -2


class Mirror(Disk):
    """A run in a bucket. `path` is the folder that it is trained in, `name` its URL."""

    shared = False

    def __init__(self, url: str, lock_seconds: float):
        self._bucket = Bucket(url)
        super().__init__(local_folder(url), self._bucket.url)
        if self.name.count("/") < 3:
            raise ConfigError(f"--workdir={url} must be a folder in a bucket: gs://BUCKET/FOLDER")
        self._lease = Lease(self._bucket, seconds=lock_seconds)
        self._files = SmallFiles(self._bucket, self.path, self._lease)
        self._end, self._brought = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._stray: dict[str, Stat] = {}  # files of checkpoints that do not count, left by a trainer that was killed

    @contextlib.contextmanager
    def look(self) -> Iterator[Path]:
        """A folder with config.json, data.json and the names of the checkpoints, for the time of the block."""
        with tempfile.TemporaryDirectory(prefix="sem_jax_") as folder:
            for name in ("config.json", "data.json"):
                if (content := self._bucket.read(name, limit=JSON_LIMIT)) is not None:
                    (Path(folder) / name).write_bytes(content)
            for step in read(self._bucket)[2] or adopted(self._bucket):
                (Path(folder) / CHECKPOINTS / str(step)).mkdir(parents=True)
            yield Path(folder)

    def __enter__(self) -> "Mirror":
        """Takes the run and brings what is there; see `lease.acquire` for what is refused."""
        refusal, step = None, _NONE
        if is_lead():
            try:
                self._lease.acquire(lambda: adopted(self._bucket))
                self._thread = threading.Thread(target=self._keep, name="bucket", daemon=True)
                self._thread.start()
                step = self._bring()
                self._brought = True
            except RunError as error:
                refusal, step = error, _REFUSED
                self.__exit__(type(error))
            except BaseException as error:
                self.__exit__(type(error))
                raise
        step = from_lead(step)
        if step == _REFUSED:
            raise refusal or RunError(f"{self.name} cannot be trained: see process 0")
        if not is_lead():
            self._files.bring()
            self._clear({step})
            if step != _NONE:  # the lead deletes it when all have made steps, not before
                bring_step(self._bucket, self.path, step, read(self._bucket)[2][step])
        return self

    def __exit__(self, kind, *_) -> None:
        self._end.set()
        if self._thread is None or (kind and issubclass(kind, Unreachable)):
            return
        self._thread.join()
        try:
            # An error that is already on its way is more important.
            with contextlib.suppress(*([RunError] if kind else [])):
                if self._brought:
                    self._lease.confirm()
                    self._files.send()
        finally:
            self._lease.release()

    def _bring(self) -> int:
        """Makes the folder what the bucket has: small files, newest good checkpoint, manifests of the others."""
        commits, bad = self._lease.commits, {}
        self._stray = {
            name: stat
            for name, stat in self._files.bring().items()
            if name.startswith(f"{TRAINER}.")
            or ((match := re.match(rf"{CHECKPOINTS}(\d+)/", name)) and int(match[1]) not in commits)
        }
        self._clear(set(commits))
        chosen = _NONE
        for step in sorted(commits, reverse=True):
            try:
                bring_step(self._bucket, self.path, step, commits[step], manifest_only=chosen != _NONE)
                chosen = step if chosen == _NONE else chosen
            except (FileNotFoundError, Altered, Damaged) as error:
                bad[step] = str(error).splitlines()[0]
                remove(self.path / CHECKPOINTS / str(step))
        if commits and chosen == _NONE:
            step, reason = next(iter(bad.items()))
            raise RunError(
                f"All {len(bad)} checkpoints of {self.name} are damaged, the latest ({step}): {reason}",
                "Bring an undamaged one back, or choose another folder with --workdir.",
            )
        for step, reason in bad.items():
            say(f"Checkpoint {step} of {self.name} is damaged ({reason}): using that of step {chosen}.")
        if bad:
            self._lease.drop(*bad)
        return chosen

    def _clear(self, steps: set[int]) -> None:
        """Deletes what no checkpoint of these steps is among those on the disk."""
        folder = self.path / CHECKPOINTS
        for path in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
            if path.name not in map(str, steps) or path.is_symlink():
                remove(path)

    def _keep(self) -> None:
        """In the background: renews the lease, uploads what has changed, deletes what killed trainers have left."""
        while not self._end.wait(self._lease.pause):
            try:
                brought = self._brought
                self._lease.confirm()  # after what is deleted next was seen
                if brought:
                    stray, self._stray = self._stray, {}
                    parallel(lambda item: self._bucket.delete(item[0], item[1].generation), stray.items())
                    self._files.send()
            except Exception as error:
                if self._lease.lost:
                    return  # the next save says so
                log.info("%s", error)  # perhaps it can be reached the next time; a save waits for longer, and says so

    def _create(self, name: str, path: Path) -> None:
        """Writes a file of a checkpoint, where none may be replaced."""
        while True:
            try:
                self._bucket.write(name, path, match=0)
                return
            except Conflict:
                stat = self._bucket.stat(name)
                self._lease.confirm()
                if stat:
                    self._bucket.delete(name, stat.generation)

    def committed(self, step: int) -> None:
        """Uploads a checkpoint and what it depends on. When this returns, it survives this machine.

        Raises:
          RunError: another trainer has taken over; or the bucket cannot be reached.
        """
        folder, prefix = self.path / CHECKPOINTS / str(step), f"{CHECKPOINTS}{step}/"
        if step in self._lease.commits:
            self._lease.drop(step)
        self._files.send()
        files = read_manifest(folder)["files"]
        parallel(lambda name: self._create(prefix + name, folder / name), files)
        self._create(prefix + MANIFEST, folder / MANIFEST)
        self._lease.commit(step, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest())

    def deleted(self, step: int) -> None:
        """Deletes a checkpoint in the bucket: it counts no longer, then its manifest goes, then its files."""
        prefix = f"{CHECKPOINTS}{step}/"
        there = self._bucket.list(prefix)
        self._lease.drop(step)  # and so confirms the run, after what is deleted was seen
        if manifest := there.pop(prefix + MANIFEST, None):
            self._bucket.delete(prefix + MANIFEST, manifest.generation)
        parallel(lambda item: self._bucket.delete(item[0], item[1].generation), there.items())

    def publish(self, folder: str) -> None:
        """Uploads a folder of results, such as a report, of a run that nobody has to hold."""
        names = [name for name in self._files.here() if name.startswith(f"{folder}/")]
        parallel(lambda name: self._bucket.write(name, self.path / name), names)


def adopted(bucket: Bucket) -> dict[int, str]:
    """The checkpoints of a run that was copied into a bucket as it was on a disk: SHA-256 of the manifests by step."""
    found = {}
    for name in bucket.list(CHECKPOINTS):
        if match := re.fullmatch(rf"{CHECKPOINTS}(\d+)/{MANIFEST}", name):
            content = bucket.read(name, limit=JSON_LIMIT) or b""
            found[int(match[1])] = hashlib.sha256(content).hexdigest()
    return found


def bring_step(
    bucket: Bucket, folder: Path, step: int, sha256: str, *, manifest_only: bool = False, without: str = ""
) -> None:
    """Brings a checkpoint into folder/checkpoints/STEP; files that are there already, by their digests, are left.

    Args:
      without: the part of the checkpoint that is left out, such as "trainer"; the manifest lists it all the same.

    Raises:
      FileNotFoundError, Altered, Damaged: it is not, or not any more, as it was written.
    """
    there, prefix = folder / CHECKPOINTS / str(step), f"{CHECKPOINTS}{step}/"
    bucket.download(prefix + MANIFEST, there / MANIFEST, sha256=sha256)
    files = read_manifest(there)["files"]
    if wrong := [name for name in files if not is_plain(name)]:
        raise Damaged(f"{MANIFEST}: {wrong[0]!r:.60} is no name of a file")
    wanted = [] if manifest_only else [name for name in files if not (without and name.startswith(f"{without}/"))]
    parallel(lambda name: bucket.download(prefix + name, there / name, sha256=files[name]["sha256"]), wanted)
