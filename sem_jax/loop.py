"""Trains a configuration from its first step to its last, or from its latest checkpoint on.

    state = train_and_evaluate(cfg, "runs/digits")

The order of what happens is the order of `_Run.train`. What computes is in `programs`, what is written in `records`
and `checkpoint`.
"""

import time

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from tqdm import tqdm

from sem_jax import config as config_lib
from sem_jax import data as data_lib
from sem_jax import records, report
from sem_jax.checkpoint import Checkpoints
from sem_jax.errors import ConfigError, RunError
from sem_jax.programs import Programs
from sem_jax.signals import Interrupted, StopRequest
from sem_jax.state import TrainState
from sem_jax.types import Dataset

SECONDS_PER_CALL = 1.0


def train_and_evaluate(cfg: ConfigDict, workdir: str) -> TrainState:
    """Trains, evaluates, records and checkpoints; continues where an earlier call in the same folder ended.

    Args:
      cfg: a configuration; validated here.
      workdir: the run folder: config.json, data.json, metrics.jsonl, tensorboard/, checkpoints/, curves.png,
        result.json.

    Returns:
      The final state.

    Raises:
      SemError: a configuration, data or folder that cannot be used, before the first step; a loss or gradient that
        is not finite (with train.on_nan = "stop"), after the call in which it came up.
      Interrupted: after SIGINT or SIGTERM, when the state is saved.
    """
    config_lib.validate(cfg, num_devices=len(jax.devices()))
    dataset = data_lib.load(
        cfg.data.name,
        data_dir=cfg.data.dir,
        val_size=cfg.data.val_size,
        val_seed=cfg.seed,
        image_size=cfg.data.image_size,
    )
    _check_against_data(cfg, dataset)
    folder = records.RunFolder(workdir, writer=jax.process_index() == 0)
    folder.claim(config_lib.to_dict(cfg), describe(dataset), ignore=config_lib.SPEED_ONLY)
    best = "val_accuracy" if cfg.data.val_size else None
    with Checkpoints(folder.checkpoints, keep=cfg.train.keep, best=best) as checkpoints, StopRequest() as stop:
        return _Run(cfg, dataset, folder, checkpoints, stop).train()


def describe(dataset: Dataset) -> dict:
    """What data.json says of a data set: enough to rebuild the model and to recognise the data."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "class_names": list(dataset.class_names),
        "image_shape": list(dataset.splits["train"].images.shape[1:]),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "sizes": {name: len(split.labels) for name, split in dataset.splits.items()},
    }


def _check_against_data(cfg: ConfigDict, dataset: Dataset) -> None:
    classes, count = len(dataset.class_names), len(dataset.splits["train"].labels)
    if cfg.model.num_classes not in (0, classes):
        raise ConfigError(
            f"model.num_classes must be 0 or {classes}, the classes of the data, got {cfg.model.num_classes}"
        )
    if cfg.train.batch_size > count:
        raise ConfigError(f"train.batch_size must be at most {count}, the training images, got {cfg.train.batch_size}")


class _Run:
    """One call of `train_and_evaluate`."""

    def __init__(self, cfg, dataset, folder, checkpoints, stop):
        self.cfg, self.dataset, self.folder, self.checkpoints, self.stop = cfg, dataset, folder, checkpoints, stop
        self.programs = Programs(cfg, dataset)
        self.state = self.programs.initial_state()
        self.monitor = "val" if "val" in dataset.splits else "test"

    def train(self) -> TrainState:
        """Restore; then every epoch: train, evaluate, record, checkpoint; the result last."""
        cfg, total, per_epoch = self.cfg, self.programs.total_steps, self.programs.steps_per_epoch
        progress = {}
        start = self.checkpoints.latest or 0
        if start:
            self.state, progress, _ = self.checkpoints.restore(self.state)
        if start >= total and (done := self.folder.result()):
            print(f"{self.folder.path} is finished: test accuracy {done['test_accuracy']:.2%} (result.json).")
            return self.state
        self.folder.rewind(start)
        self._announce(start)
        hidden = None if cfg.runtime.progress else True  # None: shown on a terminal
        with tqdm(total=total, initial=start, unit="step", disable=hidden, smoothing=0.1, dynamic_ncols=True) as bar:
            for epoch in range(start // per_epoch, cfg.train.epochs):
                record = self._train_epoch(epoch, progress, bar)
                progress = {}
                last = epoch + 1 == cfg.train.epochs
                if (epoch + 1) % cfg.train.eval_every == 0 or last:
                    record |= self.programs.evaluate(self.state, self.monitor)
                self.folder.append(record)
                if (epoch + 1) % cfg.train.checkpoint_every == 0 or last:
                    scores = {name: record[name] for name in ("val_accuracy", "val_nll") if name in record}
                    self.checkpoints.save(record["step"], self.state, {}, scores)
                tqdm.write(_line(record, cfg.train.epochs))
                if self.stop.signal and not last:
                    self._leave({})
        self.checkpoints.wait()
        self._finish()
        return self.state

    def _train_epoch(self, epoch: int, progress: dict, bar: tqdm) -> dict:
        """Runs one epoch, or the rest of it, and returns its record."""
        cfg, programs = self.cfg, self.programs
        order = programs.order(epoch)
        mixing = cfg.mixer.name != "none" and epoch < cfg.mixer.stop_epoch
        sums = programs.prepare(self.state, order, mixing=mixing)
        if progress:
            values = {name: jnp.asarray(value, sums[name].dtype) for name, value in progress["sums"].items()}
            sums = jax.device_put(values, programs.replicated)
        done = int(self.state.step) - epoch * programs.steps_per_epoch
        seconds = progress.get("seconds", 0.0)
        count = programs.steps_per_call or 1
        while done < programs.steps_per_epoch:
            count = min(count, programs.steps_per_epoch - done)
            begin = time.perf_counter()
            self.state, sums = programs.run(self.state, sums, order, mixing=mixing, first=done, count=count)
            values = {name: value.item() for name, value in jax.device_get(sums).items()}
            seconds += (elapsed := time.perf_counter() - begin)
            done += count
            bar.update(count)
            loss = values["loss"] / max(done - values["bad_steps"], 1)
            bar.set_postfix(epoch=f"{epoch + 1}/{cfg.train.epochs}", loss=f"{loss:.3f}", refresh=False)
            if values["bad_steps"] and cfg.train.on_nan == "stop":
                raise RunError(
                    f"Loss or gradient is not finite at step {values['first_bad']} (epoch {epoch + 1}).",
                    f"The checkpoint of step {self.checkpoints.latest or 0} is kept; lower optim.learning_rate, or set "
                    "train.on_nan=skip in a new run.",
                )
            if self.stop.signal and done < programs.steps_per_epoch:
                self._leave({"sums": values, "seconds": seconds})
            if not programs.steps_per_call:
                count = max(1, min(2 * count, round(count * SECONDS_PER_CALL / elapsed)))
        return self._record(epoch, values, seconds, mixing)

    def _leave(self, progress: dict) -> None:
        """Saves, in the middle of an epoch with what it has summed so far, and ends the run for now."""
        step = int(self.state.step)
        self.checkpoints.save(step, self.state, progress)
        self.checkpoints.wait()
        self.folder.close()
        tqdm.write(f"Saved step {step:,} in {self.folder.path}; the same command continues.")
        raise Interrupted(self.stop.signal)

    def _record(self, epoch: int, values: dict, seconds: float, mixing: bool) -> dict:
        """The line of metrics.jsonl: means over the epoch's finite steps."""
        steps = self.programs.steps_per_epoch
        finite = max(steps - values["bad_steps"], 1)
        clean = max(values.get("clean_steps", finite), 1)  # fewer with objective.penalty_every
        means = {
            n: v / (clean if n in ("penalty", "feature_norm", "clean_accuracy") else finite)
            for n, v in values.items()
            if n not in ("bad_steps", "first_bad", "finite", "clean_steps")
        }
        record = {
            "step": (epoch + 1) * steps,
            "epoch": epoch + 1,
            "mixing": mixing,
            "learning_rate": float(self.programs.learning_rate((epoch + 1) * steps - 1)),
            "loss": means.pop("loss"),
            "label_loss": means.pop("label_loss"),
            "train_accuracy": means.pop("accuracy"),
        }
        if "clean_accuracy" in means:
            record["train_clean_accuracy"] = means.pop("clean_accuracy")
        if "penalty" in means:
            record["penalty_relative"] = means["penalty"] / max(means["feature_norm"], 1e-12)
        record |= means
        if values["bad_steps"]:
            record["skipped_steps"] = values["bad_steps"]
        return record | {"seconds": seconds, "images_per_s": steps * self.cfg.train.batch_size / seconds}

    def _announce(self, start: int) -> None:
        """What is run, on what."""
        devices, model = self.programs.devices, self.programs.model
        sizes = ", ".join(f"{len(split.labels):,} {name}" for name, split in self.dataset.splits.items())
        count = sum(x.size for x in jax.tree.leaves(self.state.params))
        classes = len(self.dataset.class_names)
        print(
            f"{config_lib.method_of(self.cfg)} | {self.dataset.name}: {sizes}, {classes} classes\n"
            f"{self.cfg.model.name}: {count:,} parameters | {len(devices)} x {devices[0].device_kind}, "
            f"{jnp.dtype(model.dtype).name} | run folder: {self.folder.path}"
        )
        if start:
            print(f"Continuing from step {start:,} of {self.programs.total_steps:,}.")

    def _finish(self) -> None:
        """Scores test for the result, writes it and draws the curves."""
        log = records.read_metrics(self.folder.path)
        scores = self.programs.evaluate(self.state, "test")
        method = config_lib.method_of(self.cfg)
        result = {
            **scores,
            "method": method,
            "objective": dict(self.cfg.objective),
            "seed": self.cfg.seed,
            "steps": self.programs.total_steps,
            "epochs": self.cfg.train.epochs,
            "schedule": self.programs.schedule,
            "wall_time_s": round(sum(r["seconds"] for r in log), 3),
            "data": {"name": self.dataset.name, "fingerprint": self.dataset.fingerprint},
            "devices": [device.device_kind for device in self.programs.devices],
            "dtype": jnp.dtype(self.programs.model.dtype).name,
            **records.environment(),
        }
        if self.monitor == "val":
            scored = [r for r in log if r.get("val_accuracy") is not None]
            best = max(scored, key=lambda r: (r["val_accuracy"], r["step"]))  # of equals the later, as orbax
            result["best_val"] = {name: best[name] for name in ("step", "epoch", "val_accuracy")}
        self.folder.finish(result)
        picture = report.draw_curves(self.folder.path, title=f"{self.dataset.name}, {method}")
        print(f"Final test accuracy {scores['test_accuracy']:.2%} (test NLL {scores['test_nll']:.4f}).")
        print(f"Learning curves: {picture}")


def _line(record: dict, epochs: int) -> str:
    """One epoch in one line."""
    text = f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  loss {record['loss']:.4f}"
    if "penalty" in record:
        text += f"  penalty {record['penalty']:.3f} ({record['penalty_relative']:.1%} of the feature norm)"
    text += f"  train {record['train_accuracy']:.2%}"
    for split in ("val", "test"):
        if f"{split}_accuracy" in record:
            text += f"  {split} {record[f'{split}_accuracy']:.2%}"
    return text + f"  {record['images_per_s']:,.0f} images/s"
