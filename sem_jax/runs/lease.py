"""Who trains a run in a bucket, and which of its checkpoints count: the object trainer.json, and nothing else.

    lease = Lease(Bucket("gs://my-runs/wrn_c10"), seconds=60)
    lease.acquire()                    # waits until a trainer that was killed has been silent for 60 s
    lease.commit(390, sha256)          # the checkpoint of step 390 counts, and the run was still this trainer's
    lease.release()

trainer.json names the trainer that holds the run, and of each checkpoint that counts the step and the SHA-256 of its
manifest.json, which has the SHA-256 of every file. It is only ever replaced by a trainer that names the generation it
replaces, so its generations form one chain, and each is written by one trainer that knew the one before. Hence:

- *Two trainers never both commit.* A commit, a renewal, a takeover and a release are each one link of that chain. Once
  another trainer has taken over, the generation that the first one knows is not the last any more, and the server
  refuses its next link, however late it comes: after a pause of an hour, or after a request that was under way for
  long. There is no time between a check and a commit, since they are one request.
- *What counts is whole and stays whole.* The files of a checkpoint are written, then manifest.json, then the link that
  counts it. They are only ever created, never replaced (`match=0`), and deleted only by the generation that was seen
  before this trainer's last link. A generation that was seen before then was not written by a successor. So a trainer
  that has lost the run can neither replace nor delete what its successor wrote. What it still creates, no link counts;
  where it is in the way, the successor deletes it by the same rule.
- *No clock is compared with another.* The trainer that waits asks the server how long ago the holder's last link was,
  by the server's clock alone, and measures the rest of its waiting by its own steady clock. Expiry is a courtesy to
  the holder: taking over too early costs it its run, but harms no checkpoint.
"""

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from sem_jax.errors import RunError
from sem_jax.runs.reading import parse_json
from sem_jax.system.bucket import Bucket, Conflict
from sem_jax.system.output import say

NAME = "trainer.json"
FORMAT = 1
LIMIT = 1 << 20  # bytes
_EVERY = 4  # renewals in the time after which a silent trainer has lost its run


class Lease:
    """One trainer's hold of a run.

    Args:
      bucket: the run's folder.
      seconds: of silence after which another trainer may take over.
    """

    def __init__(self, bucket: Bucket, *, seconds: float):
        self._bucket, self._seconds = bucket, seconds
        self._mutex = threading.Lock()
        self._generation = 0  # of trainer.json; 0: it is not there
        self._commits: dict[int, str] = {}
        self._holder: dict | None = None
        self._mine = False  # since `acquire` has returned
        self.lost = ""  # who has the run instead; "" while it is held
        self.pause = seconds / _EVERY  # seconds between renewals

    @property
    def commits(self) -> dict[int, str]:
        """SHA-256 of manifest.json of each checkpoint that counts, by step."""
        return dict(self._commits)

    def acquire(self, adopt: Callable[[], dict[int, str]] = dict) -> None:
        """Takes the run, which is free, new, or of a trainer that has been silent for long enough.

        Args:
          adopt: what counts where trainer.json is not there: of a run that was copied into the bucket, for example.

        Raises:
          RunError: another trainer is at work; or trainer.json is damaged.
        """
        while True:
            self._generation, self._holder, self._commits = read(self._bucket)
            if self._holder:
                self._wait()
            mine = {"process": os.getpid(), "host": platform.node(), "id": uuid.uuid4().hex, "seconds": self._seconds}
            try:
                self._link(mine, self._commits if self._generation else adopt())
                self._mine = True
                return
            except Conflict:
                continue  # another one was faster

    def _wait(self) -> None:
        """Returns when the holder has been silent for as long as it has promised not to be."""
        holder = self._holder or {}
        limit, silent, said = holder["seconds"], self._silence(), False
        begin = time.monotonic() - silent
        while (left := limit - (time.monotonic() - begin)) > 0:
            if not said:
                text = f"{self._bucket.url} was in use by {_name(holder)} {silent:.0f} s ago."
                say(f"{text} If it stays silent, this one takes over in {left:.0f} s.")
                said = True
            time.sleep(min(left, 1.0))
            stat = self._bucket.stat(NAME)
            if stat is None or stat.generation != self._generation:
                raise RunError(
                    f"{self._bucket.url} is in use: {_name(holder)} is training there.",
                    "Wait for it, end it, or choose another folder with --workdir.",
                )

    def _silence(self) -> float:
        """Seconds since the last link, by the server's clock: it dates an object that is written now."""
        name = f"{NAME}.{uuid.uuid4().hex}"
        generation = self._bucket.write(name, b"", match=0)
        now, last = self._bucket.stat(name), self._bucket.stat(NAME)
        self._bucket.delete(name, generation)
        if now is None or last is None:
            return 0.0
        return max(0.0, (now.updated - last.updated).total_seconds())

    def _link(self, holder: dict | None, commits: dict[int, str]) -> None:
        """Writes the next link of the chain.

        Raises:
          Conflict: it is another trainer's.
        """
        value = {"format": FORMAT, "holder": holder, "commits": {str(step): commits[step] for step in sorted(commits)}}
        self._generation = self._bucket.write(NAME, json.dumps(value, indent=1).encode(), match=self._generation)
        self._holder, self._commits = holder, commits

    def _held(self, commits: dict[int, str] | None = None, *, release: bool = False) -> None:
        with self._mutex:
            if not self.lost:
                try:
                    self._link(None if release else self._holder, self._commits if commits is None else commits)
                    return
                except Conflict:
                    _, holder, _ = read(self._bucket)
                    self.lost = _name(holder) if holder else "another trainer, which has ended,"
            raise RunError(
                f"{self._bucket.url} was taken over by {self.lost}; this trainer was silent for too long.",
                "What it committed before is safe, and what it computed since is not saved. Start it again if the "
                "other one has ended.",
            )

    def confirm(self) -> None:
        """Writes a link that changes nothing: the run is this trainer's now.

        Raises:
          RunError: it is another trainer's, here and in the next two.
        """
        self._held()

    def commit(self, step: int, sha256: str) -> None:
        """The checkpoint of a step counts from now on; all of its files are in the bucket."""
        self._held(self._commits | {step: sha256})

    def drop(self, *steps: int) -> None:
        """The checkpoints of these steps count no longer; their files may be deleted after."""
        self._held({step: sha256 for step, sha256 in self._commits.items() if step not in steps})

    def release(self) -> None:
        """Leaves the run to whoever comes next."""
        if self._mine and not self.lost:
            with contextlib.suppress(RunError):
                self._held(release=True)
            self._mine = False


def read(bucket: Bucket) -> tuple[int, dict | None, dict[int, str]]:
    """(generation, holder, commits) of trainer.json; (0, None, {}) where it is not there.

    Raises:
      RunError: it is not as a trainer writes it.
    """
    found = bucket.read_with_generation(NAME, limit=LIMIT)
    if found is None:
        return 0, None, {}
    content, generation = found
    try:
        value: Any = parse_json(content)
        if not isinstance(value, dict) or not isinstance(value.get("commits"), dict):
            raise ValueError("it lists no checkpoints")
        if type(value.get("format")) is not int or value["format"] > FORMAT:
            raise ValueError(f"its format is {value.get('format')!r:.20}, this version knows {FORMAT}")
        commits = value["commits"].items()
        if not all(
            step.isascii() and step.isdigit() and isinstance(sha, str) and len(sha) == 64 for step, sha in commits
        ):
            raise ValueError("it lists what is no checkpoint")
        if (holder := value.get("holder")) is not None:
            limit = holder.get("seconds") if isinstance(holder, dict) else None
            if not isinstance(limit, int | float) or not 0 < limit <= 86400:
                raise ValueError("it names a trainer without the time after which it is lost")
        return generation, holder, {int(step): sha for step, sha in commits}
    except ValueError as error:
        raise RunError(f"{bucket.url}/{NAME} is damaged: {error}", "Bring back the run's own one.") from None


def _name(holder: dict) -> str:
    return f"process {holder.get('process')!s:.20} on {holder.get('host')!s:.100}"
