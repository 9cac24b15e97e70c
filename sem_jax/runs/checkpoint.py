"""Checkpoints of a run, written with orbax: the model for scoring, the optimizer's state for going on.

    with Checkpoints(folder, keep=2, best="val_accuracy") as checkpoints:
        restored = checkpoints.restore(state_like)             # the latest undamaged one; None in a new run
        checkpoints.save(step, state, progress, metrics)       # in the background
        checkpoints.wait()
    variables = load_model(folder, step, like)                 # params and batch_stats alone, for evaluation

A checkpoint is a folder <folder>/<step> with model (params, batch_stats), trainer (opt_state), ema (the averaged
weights, as model) where the run keeps them, and manifest.json (see manifest.py). It is written under another name and
renamed when all of it is on the disk. A folder with a step's name is therefore a finished checkpoint, or a damaged one,
which is moved to <folder>/damaged.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from sem_jax.errors import RunError, plain
from sem_jax.runs.array_files import check_size
from sem_jax.runs.arrays import check_shapes, read_arrays, reason_of, shapes_of, write_alone
from sem_jax.runs.disk import Disk
from sem_jax.runs.folders import discard, holding, move_aside, remove
from sem_jax.runs.layout import TRAINER, items_of, state_of
from sem_jax.runs.manifest import (
    IDENTITY,
    Damaged,
    check_identity,
    flush_folder,
    read_manifest,
    read_verified,
    write_manifest,
)
from sem_jax.runs.state import TrainState
from sem_jax.system.hosts import from_lead, is_lead
from sem_jax.system.output import say

_SAVING, _DELETING = ".saving-", ".deleting-"
_NONE, _REFUSED = -1, -2


class Restored(NamedTuple):
    state: TrainState
    progress: dict  # JSON: what `save` was given
    metrics: dict  # JSON: what `save` was given


def _nothing() -> None:
    pass


class Checkpoints:
    """The checkpoints of one run: the latest `keep`, and the best by one metric.

    Args:
      folder: made if it is not there. All processes of a run must see it; the lead alone writes.
      keep: number of latest checkpoints to keep.
      best: name of a metric, higher is better; its best checkpoint is kept too. None: no such metric.
      steps: checkpoints of these steps are kept too.
      about: JSON about the run, for the manifests; `restore` compares its "data", "seed" and "config",
        with the "lengths" that the run had before.
      storage: of the run, which is told of what was saved and deleted; None = the disk.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int,
        best: str | None,
        steps: Sequence[int] = (),
        about: dict | None = None,
        storage: Disk | None = None,
    ):
        self._folder, self._storage = Path(folder).absolute(), storage or Disk(Path(folder))
        self._keep, self._best, self._steps, self._about = keep, best, frozenset(steps), about or {}
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._latest: int | None = None
        if is_lead():
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.iterdir():  # left by a process that was killed
                if path.name.startswith((_SAVING, _DELETING)):
                    with contextlib.suppress(OSError):
                        remove(path)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        # An error that is already on its way is more important than a failed save, which did no harm.
        with contextlib.suppress(*([RunError] if kind else [])):
            self.wait()

    @property
    def latest(self) -> int | None:
        """Step of the latest checkpoint that this object has restored or whose saving it has started."""
        return self._latest

    def save(self, step: int, state: TrainState, progress: dict, metrics: dict[str, float] | None = None) -> None:
        """Starts writing a checkpoint and returns once the arrays are copied. A saved step is left alone.

        Args:
          step: optimizer updates done.
          state: may be donated right after.
          progress: JSON, returned by `restore`.
          metrics: by name, for `best`. Values that are not finite are left out, so that they are never the best.

        Raises:
          RunError: the state is not finite, or the save before this one failed.
        """
        self.wait()
        if self._latest is not None and self._latest >= step:
            return
        host = jax.device_get(state)
        for path, leaf in jax.tree_util.tree_leaves_with_path(host):
            if not np.isfinite(leaf).all():
                raise RunError(
                    f"The state of step {step} is not finite and was not saved: {jax.tree_util.keystr(path)}.",
                    f"The checkpoint before it ({self._latest or 'none yet'}) is kept; lower optim.learning_rate.",
                )
        self._latest = step
        temporary = str(self._folder / f"{_SAVING}{step}")
        if jax.process_count() == 1 or not self._storage.shared:
            write = functools.partial(write_alone, temporary, items_of(host)) if is_lead() else _nothing
        else:  # on this thread: orbax's collectives must not come between those of the steps
            write = ocp.save_checkpointables_async(temporary, items_of(state)).result
        finite = {k: float(v) for k, v in (metrics or {}).items() if np.isfinite(v)}
        arrays = shapes_of(items_of(host))
        about = {"step": step, "progress": progress, "metrics": finite, "arrays": arrays, **self._about}
        self._thread = threading.Thread(target=self._write, args=(step, write, about), name=f"save-{step}")
        self._thread.start()

    def _write(self, step: int, write: Callable[[], None], about: dict) -> None:
        temporary = self._folder / f"{_SAVING}{step}"
        try:
            write()
            if is_lead():
                write_manifest(temporary, about)
                there = self._folder / str(step)
                if os.path.lexists(there):  # something else of that name; a checkpoint would have been restored
                    move_aside(there)
                os.rename(temporary, there)
                flush_folder(self._folder)
                self._storage.committed(step)
                self._delete_others(step)
        except Exception as error:  # orbax raises many types for a disk that is full
            self._error = error
            for path in self._folder.glob(f"{_SAVING}*") if is_lead() else ():
                with contextlib.suppress(OSError):
                    remove(path)

    def _delete_others(self, step: int) -> None:
        """Deletes all but the latest, the best and the named ones; one that is being read, after the next save."""
        there, scores = steps(self._folder), {}
        kept = set(there[-self._keep :]) | self._steps | {step}
        for other in there:
            try:
                scores[other] = read_manifest(self._folder / str(other))["metrics"].get(self._best)
            except Damaged:
                pass
            except RunError:  # it may be the best
                kept.add(other)
        scores = {other: score for other, score in scores.items() if score is not None}
        if scores:
            kept.add(max(scores, key=lambda other: (scores[other], other)))  # of equals the later
        for other in set(there) - kept:
            told = functools.partial(self._storage.deleted, other)
            discard(self._folder / str(other), self._folder / f"{_DELETING}{other}", told)

    def wait(self) -> None:
        """Returns when the last save is on the disk.

        Raises:
          RunError: it could not be written; the checkpoints before it are as they were.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if isinstance(error, RunError):
            raise error
        if error is not None:
            raise RunError(
                f"Checkpoint {self._folder / str(self._latest)} cannot be written: {reason_of(error)}",
                "The checkpoints before it are untouched. Make room, then start the same command again.",
            ) from error

    def restore(self, like: TrainState) -> Restored | None:
        """The latest undamaged checkpoint, in the shapes, dtypes and shardings of `like`; None if there is none.

        Newer ones that are damaged are named on standard output and moved to the subfolder `damaged`.

        Raises:
          RunError: all are damaged; or it is of a newer format, another model or other data, or cannot be read.
        """
        refusal, step = None, _NONE
        if is_lead():
            try:
                step = self._choose(items_of(like))
            except RunError as error:
                refusal, step = error, _REFUSED
        step = from_lead(step)
        if step == _REFUSED:
            raise refusal or RunError(f"No checkpoint of {self._folder} can be used: see process 0")
        if step == _NONE:
            return None
        path = self._folder / str(step)
        try:
            manifest = read_manifest(path)
        except Damaged as error:
            raise RunError(f"Checkpoint {path} is damaged for this process: {error}") from None
        check_shapes(path, manifest["arrays"], shapes_of(items_of(like)))
        alone = jax.process_count() > 1 and not self._storage.shared
        found = read_arrays(path, items_of(like), alone=alone)
        counter = jax.device_put(np.asarray(step, np.int32), like.step.sharding)
        self._latest = step
        if is_lead():
            self._delete_others(step)  # which a kill may have left
        return Restored(state_of(counter, found), manifest["progress"], manifest["metrics"])

    def _choose(self, like: dict) -> int:
        """Step of the newest undamaged checkpoint; newer ones are moved aside."""
        bad = {}
        for step in reversed(steps(self._folder)):
            try:
                check_size(read_manifest(path := self._folder / str(step)), like)
                manifest = read_verified(path)
                check_identity(path, manifest, **{n: self._about[n] for n in IDENTITY if n in self._about})
            except Damaged as error:
                bad[step] = plain(str(error))
                continue
            for other, reason in bad.items():
                moved = move_aside(self._folder / str(other))
                say(f"Checkpoint {other} is damaged ({reason}): moved to {moved}, using that of step {step}.")
            return step
        if bad:
            step, reason = next(iter(bad.items()))
            raise RunError(
                f"All {len(bad)} checkpoints in {self._folder} are damaged, the latest ({step}): {reason}",
                "Bring an undamaged one back, or delete the run folder to start from the beginning.",
            )
        return _NONE


def steps(folder: str | Path) -> list[int]:
    """Steps of the checkpoints in a folder, ascending.

    Raises:
      RunError: there is a folder that cannot be looked into.
    """
    try:
        names = [p.name for p in Path(folder).iterdir() if p.is_dir()] if Path(folder).is_dir() else []
    except OSError as error:
        raise RunError(f"{folder} cannot be read: {error.strerror or error}", "Give another folder.") from error
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name == str(int(name)))


def load_model(
    folder: str | Path, step: int | str, like: Any, *, about: dict | None = None, part: str = "model"
) -> Any:
    """The model of one checkpoint: {"params", "batch_stats"}, float32, on the first device.

    Args:
      folder: the run's checkpoints folder.
      step: one of `steps(folder)`, or the name of a checkpoint folder that was renamed.
      like: {"params", "batch_stats"}, arrays or ShapeDtypeStructs of the model's shapes.
      about: "seed", "data", "config" and "lengths" of the run, as far as they are known; see `manifest.check_identity`.
      part: "ema" for the averaged weights.

    Raises:
      RunError: it is not there, has no such part, is damaged, is of another run or model, or cannot be read.
    """
    path = Path(folder).absolute() / str(step)
    if not path.is_dir():
        known = ", ".join(map(str, steps(folder))) or "none"
        raise RunError(f"{folder} has no checkpoint of step {step}; there are: {known}")
    with holding(path):  # orbax reads in threads that do not bear a file's vanishing
        try:
            manifest = read_verified(path, optional=TRAINER)
            check_identity(path, manifest, **(about or {}))
        except Damaged as error:
            raise RunError(f"Checkpoint {path} is damaged: {error}", "Choose another one with --checkpoint.") from None
        there = {name: shape for name, shape in manifest["arrays"].items() if name.startswith(f"['{part}']")}
        if part == "ema" and not there:
            remedy = "Train with optim.ema_decay, or choose another one with --checkpoint."
            raise RunError(f"Checkpoint {path} has no averaged weights", remedy)
        check_shapes(path, there, shapes_of({part: like}))
        first_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return read_arrays(path, {part: like}, first_device)[part]
