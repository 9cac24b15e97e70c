"""Trains a configuration from its first step, or from its latest checkpoint, to its last step.

    state = train_and_evaluate(cfg, "runs/digits")

`_Run.train` shows the order of events. `programs` computes; `runs.records` and `runs.checkpoint` write.
"""

import contextlib
import math
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from sem_jax import config as config_lib
from sem_jax import data as data_lib
from sem_jax.errors import RunError
from sem_jax.interfaces import Dataset
from sem_jax.runs import curves, records
from sem_jax.runs.checkpoint import Checkpoints
from sem_jax.runs.extension import read_lengths, recorded_lengths
from sem_jax.runs.opening import DataFacts
from sem_jax.runs.state import TrainState
from sem_jax.runs.storage import open_storage
from sem_jax.runs.trackers import Tracker, check_tracker
from sem_jax.system import hosts
from sem_jax.system.output import say
from sem_jax.system.progress import bar as progress_bar
from sem_jax.system.signals import TIME_IS_UP, Interrupted, StopRequest
from sem_jax.training import start as beginning
from sem_jax.training import summary
from sem_jax.training.calls import read_progress, to_plain
from sem_jax.training.epoch_log import line_of, record_of
from sem_jax.training.programs import Programs
from sem_jax.training.step import QUANTITIES

SECONDS_PER_CALL = 1.0


def train_and_evaluate(
    cfg: ConfigDict,
    workdir: str,
    *,
    profile: bool = False,
    trust_model: str = "",
    extend: bool = False,
    deadline: float | None = None,
) -> TrainState:
    """Trains, evaluates, records and checkpoints; continues where an earlier call in the same folder ended.

    Args:
      cfg: a configuration; validated here.
      workdir: the run folder, or gs://BUCKET/FOLDER: config.json, data.json, metrics.jsonl, tensorboard/, checkpoints/,
        curves.png, result.json. It is made when configuration, data, model and steps have been checked.
      profile: capture a trace of a few steps in its folder profile/.
      trust_model: `module:factory` names, with commas, that the runs of mixer.scorer and model.init_from may import;
        cfg.model.name may.
      extend: train.epochs may be larger than in the run that is there, which is trained on; see `runs.extension`.
      deadline: the first call of steps, or epoch, that ends after it is the last; as `time.monotonic` counts.

    Returns:
      The final state.

    Raises:
      SemError: before the first step, a configuration, data or folder that cannot be used; later, numbers that are not
        finite (with train.on_nan = "stop") or a full disk.
      Interrupted: after SIGINT, SIGTERM or the deadline, when the state is saved; after a signal in the last epoch's
        scores, when the result is.
    """
    config_lib.validate(cfg, num_devices=len(jax.devices()))
    check_tracker(cfg.runtime.tracker)
    storage, trusted = open_storage(workdir, lock_seconds=cfg.runtime.lock_seconds), f"{cfg.model.name},{trust_model}"
    folder = records.RunFolder(storage.path, writer=hosts.is_lead(), name=storage.name)
    with storage.look() as there:
        dataset, start = beginning.begin(cfg, lambda: _load(cfg), there, trust_model=trusted)
        values, defaults = config_lib.to_dict(cfg), config_lib.to_dict(config_lib.get_default())
        facts = DataFacts.of(dataset).to_json()
        options = {"ignore": config_lib.SPEED_ONLY, "defaults": defaults, "extend": extend}
        with _naming(folder):
            records.RunFolder(there, name=storage.name).check(values, facts, **options)
    about = {"data": dataset.fingerprint, "seed": cfg.seed, "config": values, "versions": records.versions()}
    best = "val_accuracy" if cfg.data.val_size else None
    per_epoch = len(dataset.splits["train"].labels) // cfg.train.batch_size
    kept = {"keep": cfg.train.keep, "best": best, "steps": [epoch * per_epoch for epoch in cfg.train.keep_epochs]}
    with contextlib.closing(Programs(cfg, dataset, trust_model=trusted, start=start)) as programs:
        with _naming(folder), folder, storage:  # nothing has been written before
            folder.claim(values, facts, **options)
            if earlier := read_lengths(folder.path):
                about["lengths"] = [length["epochs"] for length in earlier]
            beginning.record(folder.path, start if hosts.is_lead() else None)
            kept |= {"about": about, "storage": storage}
            with Checkpoints(folder.checkpoints, **kept) as checkpoints, StopRequest(deadline) as stop:
                programs.trace_dir = str(folder.path / "profile") if profile else ""
                state = _Run(cfg, dataset, programs, folder, checkpoints, stop).train()
                if stop.signal:  # while the result was written
                    raise Interrupted(stop.signal)
                return state


@contextlib.contextmanager
def _naming(folder: records.RunFolder):
    """Turns an error of the file system into one message."""
    try:
        yield
    except OSError as error:
        name = error.filename or folder.path
        raise RunError(
            f"Cannot write the run folder {folder.path}: {error.strerror or error} ({name}).",
            "The checkpoints are safe: mend that, then start the same command again.",
        ) from error


def _load(cfg: ConfigDict) -> Dataset:
    # Random resized crops need encoded images; "auto" decodes the images if they fit into memory.
    encoded = True if cfg.data.crop_scale else {"disk": True, "auto": None}.get(cfg.runtime.residency, False)
    return data_lib.load(
        cfg.data.name,
        data_dir=cfg.data.dir,
        splits=("train", "test") if cfg.data.use_test else ("train",),
        image_size=cfg.data.image_size,
        val_size=cfg.data.val_size,
        val_seed=cfg.seed,
        train_size=cfg.data.train_size,
        reading=data_lib.Reading(
            encoded=encoded,
            eval_crop=cfg.data.eval_crop,
            image_column=cfg.data.image_column,
            label_column=cfg.data.label_column,
        ),
    )


class _Run:
    """One call of `train_and_evaluate`."""

    def __init__(self, cfg, dataset, programs, folder, checkpoints, stop):
        self.cfg, self.dataset, self.folder, self.checkpoints, self.stop = cfg, dataset, folder, checkpoints, stop
        self.programs: Programs = programs
        self.state = programs.initial_state()
        self.monitor = "val" if "val" in dataset.splits else "test"
        self.scored = "test" if "test" in dataset.splits else "val"  # at the end, for the result

    def train(self) -> TrainState:
        """Restore; then every epoch: train, evaluate, record, checkpoint; the result last."""
        cfg, (per_epoch, total) = self.cfg, self.programs.lengths
        progress, start = {}, 0
        if restored := self.checkpoints.restore(self.state):
            self.state, progress, start = restored.state, restored.progress, int(restored.state.step)
        if start >= total and (done := self.folder.result()) and {*self._names} <= done.keys():
            self._draw_curves()
            self._check_result(done)
            accuracy = done[self._names[0]]
            self._say(f"{self.folder.name} is finished: {self.scored} accuracy {accuracy:.2%} (result.json).")
            return self.state
        log = self.folder.rewind(start, every=per_epoch)
        if hosts.is_lead():
            self.folder.tracker = Tracker(cfg.runtime.tracker, self.folder.path, step=start, log=log, config=cfg)
        self._announce(start)
        if lost := start // per_epoch - len(log):
            self._say(
                f"metrics.jsonl lacks {lost} of the {start // per_epoch} epochs so far; the curves lack them too."
            )
        shown = cfg.runtime.progress and hosts.is_lead()
        options = {"total": total, "initial": start, "unit": "step", "smoothing": 0.1, "dynamic_ncols": True}
        with progress_bar(shown=shown, **options) as bar:
            for epoch in range(start // per_epoch, cfg.train.epochs):
                record = self._train_epoch(epoch, progress, bar)
                progress = {}
                last = epoch + 1 == cfg.train.epochs
                if (epoch + 1) % cfg.train.eval_every == 0 or last:
                    record |= (scores := self.programs.evaluate(self.state, self.monitor))
                    self._check_scores(scores, record["step"])
                self.folder.append(record)
                if (epoch + 1) % cfg.train.checkpoint_every == 0 or epoch + 1 in cfg.train.keep_epochs or last:
                    scores = {name: record[name] for name in ("val_accuracy", "val_nll") if name in record}
                    self.checkpoints.save(record["step"], self.state, {}, scores)
                self._say(line_of(record, cfg.train.epochs))
                stop, _ = self._agree()
                if stop and not (last and stop == TIME_IS_UP):  # nothing is left but the result
                    self._leave(stop, {})
        self.checkpoints.wait()
        self._finish()
        return self.state

    def _train_epoch(self, epoch: int, progress: dict, bar: tqdm) -> dict:
        """Runs one epoch, or the rest of it, and returns its record without scores."""
        cfg, programs = self.cfg, self.programs
        steps, order = programs.lengths.epoch, programs.order(epoch)
        mixing = cfg.mixer.name != "none" and epoch < cfg.mixer.stop_epoch
        stage = programs.mixing if mixing else programs.plain
        sums = programs.prepare(stage, self.state, order)
        seconds = 0.0
        if progress:
            saved, seconds = read_progress(progress, jax.device_get(sums))
            sums = jax.device_put(saved, programs.replicated)
        done = int(self.state.step) - epoch * steps
        count = programs.steps_per_call or 1
        host = sums
        while done < steps:
            count = min(count, steps - done)
            begin = time.perf_counter()
            self.state, sums = programs.run(stage, self.state, sums, order, first=done, count=count)
            host = jax.tree.map(lambda x: x.item(), jax.device_get(sums))
            seconds += (elapsed := time.perf_counter() - begin)
            done += count
            bar.update(count)
            shown = {"epoch": f"{epoch + 1}/{cfg.train.epochs}", "loss": f"{host.means['loss'].value:.3f}"}
            bar.set_postfix(shown, refresh=False)
            parts = [name for i, name in enumerate(QUANTITIES) if host.first_bad_parts >> i & 1]
            self._check_finite(parts, f"{host.first_bad} (epoch {epoch + 1})")
            stop, elapsed = self._agree(elapsed)
            if stop and done < steps:
                self._leave(stop, {"sums": to_plain(host), "seconds": seconds})
            if not programs.steps_per_call:
                count = max(1, min(2 * count, round(count * SECONDS_PER_CALL / elapsed)))
        step = (epoch + 1) * steps
        rate = float(programs.learning_rate(step - 1))
        record = record_of(host, step=step, epoch=epoch + 1, mixing=mixing, learning_rate=rate)
        return record | {"seconds": seconds, "images_per_s": steps * cfg.train.batch_size / seconds}

    def _agree(self, seconds: float = 0.0) -> tuple[int, float]:
        """Why any process has to stop (0 = it has not), and the longest time of a call, in whole milliseconds.

        All processes of a run have to stop at the same step and to make calls of the same length.
        """
        stop, milliseconds = hosts.agree([self.stop.reason, max(1, round(1000 * seconds))])
        return stop, milliseconds / 1000

    def _check_scores(self, scores: dict, step: int) -> None:
        self._check_finite([name for name, value in scores.items() if not math.isfinite(value)], f"{step}")

    def _check_finite(self, bad: list[str], where: str) -> None:
        """Ends the run if something is not finite; saves nothing, so that the latest checkpoint is a good one."""
        if bad and self.cfg.train.on_nan == "stop":
            self.checkpoints.wait()
            latest = self.checkpoints.latest
            kept = "No checkpoint yet" if latest is None else f"The checkpoint of step {latest} is kept"
            remedy = f"{kept}; lower optim.learning_rate, or set train.on_nan=skip in a new run."
            raise RunError(f"Not finite at step {where}: {', '.join(bad)}.", remedy)

    def _say(self, text: str) -> None:
        if hosts.is_lead():
            say(text)

    def _leave(self, stop: int, progress: dict) -> None:
        """Saves the state, and in the middle of an epoch its progress; ends the run for now."""
        step = int(self.state.step)
        self.checkpoints.save(step, self.state, progress)
        self.checkpoints.wait()
        self.folder.close()
        why = "The time is up. " if stop == TIME_IS_UP else ""
        self._say(f"{why}Saved step {step:,} in {self.folder.name}; the same command continues.")
        raise Interrupted(stop)

    def _announce(self, start: int) -> None:
        self._say(summary.announcement(self.cfg, self.dataset, self.programs, self.state, self.folder.name))
        if self.programs.start:
            self._say(str(self.programs.start))
        if start:
            self._say(f"Continuing from step {start:,} of {self.programs.lengths.total:,}.")
        if (earlier := read_lengths(self.folder.path)) and start <= earlier[-1]["step"]:
            self._say(summary.extension(self.cfg, self.programs, earlier[-1], start))

    def _finish(self) -> None:
        """Scores test, or val without test; writes the result and draws the curves."""
        scores = self.programs.evaluate(self.state, self.scored)
        self._check_scores(scores, self.programs.lengths.total)
        log = records.read_metrics(self.folder.path)
        result = summary.result_of(self.cfg, self.dataset, self.programs, scores, log)
        result |= beginning.recorded(self.folder.path) | recorded_lengths(self.folder.path)
        result |= summary.chance(scores[self._names[0]], self.dataset.splits[self.scored].labels)
        self.folder.finish(result)
        picture = self._draw_curves()
        self._check_result(result)
        for prefix, whose in (("", "Final"), ("ema_", "Averaged weights:")):
            if f"{prefix}{self._names[0]}" in scores:
                accuracy, nll = (scores[prefix + name] for name in self._names)
                self._say(f"{whose} {self.scored} accuracy {accuracy:.2%} ({self.scored} NLL {nll:.4f}).")
        self._say(f"Learning curves: {picture}")
        if note := summary.chance_warning(self.cfg, result, self._names[0]):
            self._say(note)

    @property
    def _names(self) -> tuple[str, str]:
        return f"{self.scored}_accuracy", f"{self.scored}_nll"

    def _draw_curves(self) -> Path | None:
        """Draws curves.png where it is missing: a finished run may have been killed before."""
        path = self.folder.path / "curves.png"
        if not hosts.is_lead() or path.exists():
            return path
        title = f"{self.dataset.name}, {config_lib.method_of(self.cfg)}"
        return curves.draw_curves(self.folder.path, title=title)

    def _check_result(self, result: dict) -> None:
        summary.check_result(result, self._names, self.programs.lengths.total, self.folder.name)
