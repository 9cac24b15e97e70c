"""Trains a configuration from its first step to its last, or from its latest checkpoint on.

    state = train_and_evaluate(cfg, "runs/digits")

The order of what happens is the order of `train_and_evaluate`; everything that computes is a pure function made
elsewhere, everything that writes is in `records` and `checkpoint`.
"""

import time

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from tqdm import tqdm

from sem_jax import config as config_lib
from sem_jax import data as data_lib
from sem_jax import records, report
from sem_jax.checkpoint import Checkpoints
from sem_jax.data.pipeline import Feeder, epoch_order, make_fetch
from sem_jax.errors import ConfigError, RunError
from sem_jax.evaluation.predict import Batches, make_score, to_batches
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.models import make_model
from sem_jax.objectives.build import make_objective, needs_clean_pass
from sem_jax.optim import make_optimizer
from sem_jax.signals import Interrupted, StopRequest
from sem_jax.state import TrainState, jit_init_state
from sem_jax.step import make_forward, make_train_call, make_train_step, zero_sums
from sem_jax.types import Dataset

HOST_STEPS_PER_CALL = 16  # with images in host memory; two calls' worth of them lie on the device
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
    with (
        Checkpoints(
            folder.checkpoints, keep=cfg.train.keep, best="val_accuracy" if cfg.data.val_size else None
        ) as checkpoints,
        StopRequest() as stop,
    ):
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
    """The compiled programs and the placed data of one run; `train` is the loop."""

    def __init__(self, cfg, dataset, folder, checkpoints, stop):
        self.cfg, self.dataset, self.folder, self.checkpoints, self.stop = cfg, dataset, folder, checkpoints, stop
        devices = jax.devices()[: cfg.runtime.devices or None]
        on_cpu = devices[0].platform == "cpu"
        mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.by_item = NamedSharding(mesh, PartitionSpec("data"))
        self.by_batch = NamedSharding(mesh, PartitionSpec(None, "data"))
        self.num_items = len(dataset.splits["train"].labels)
        self.steps_per_epoch = self.num_items // cfg.train.batch_size
        self.total_steps = self.steps_per_epoch * cfg.train.epochs
        self.key = jax.device_put(jax.random.key(cfg.seed), self.replicated)
        self.model = make_model(**{**cfg.model, "num_classes": len(dataset.class_names)})
        options = dict(cfg.optim)
        warmup_steps = round(options.pop("warmup_epochs") * self.steps_per_epoch)
        self.tx, self.learning_rate = make_optimizer(total_steps=self.total_steps, warmup_steps=warmup_steps, **options)
        image_shape = dataset.splits["train"].images.shape[1:]
        state = jit_init_state(self.model, self.tx, image_shape=image_shape)(self.key)
        self.state = jax.device_put(state, self.replicated)
        self.fetch = make_fetch(
            mean=dataset.mean,
            std=dataset.std,
            crop_padding=cfg.data.crop_padding,
            flip=cfg.data.flip,
            sharding=self.by_item,
        )
        resident = self._fits_on_device() if cfg.runtime.residency == "auto" else cfg.runtime.residency == "device"
        self.feed = Feeder(
            dataset.splits["train"],
            resident=resident,
            steps=min(cfg.runtime.steps_per_call or HOST_STEPS_PER_CALL, self.steps_per_epoch),
            batch_size=cfg.train.batch_size,
            sharding=self.replicated,
        )
        self.steps_per_call = cfg.runtime.steps_per_call or (0 if resident else self.feed.steps)
        self.order = jax.jit(
            lambda key, epoch: epoch_order(key, epoch, num_items=self.num_items, batch_size=cfg.train.batch_size),
            out_shardings=self.by_batch,
        )
        self.looped = cfg.runtime.loop == "device" or (cfg.runtime.loop == "auto" and not on_cpu)
        # Stacking puts the streams, not the items, first: over several devices that would move images between them.
        alone = len(devices) == 1 and not on_cpu
        self.stacked = cfg.runtime.streams == "stacked" or (cfg.runtime.streams == "auto" and alone)
        self.programs = {}  # mixing or not -> (compiled call, zero sums)
        self.score = make_score(self.model, mean=dataset.mean, std=dataset.std)
        self.monitor = "val" if "val" in dataset.splits else "test"
        self.batches = {}

    def train(self) -> TrainState:
        """The loop: epochs, calls within an epoch, evaluation, record, checkpoint; the result last."""
        cfg, progress = self.cfg, {}
        start = self.checkpoints.latest or 0
        if start:
            self.state, progress, _ = self.checkpoints.restore(self.state)
        if start >= self.total_steps and (done := self.folder.result()):
            print(f"{self.folder.path} is finished: test accuracy {done['test_accuracy']:.2%} (result.json).")
            return self.state
        self.folder.rewind(start)
        self._announce(start)
        with tqdm(
            total=self.total_steps, initial=start, unit="step", disable=None if cfg.runtime.progress else True,
            smoothing=0.1, dynamic_ncols=True,
        ) as bar:  # fmt: skip
            for epoch in range(start // self.steps_per_epoch, cfg.train.epochs):
                record = self._train_epoch(epoch, progress, bar)
                progress = {}
                last = epoch + 1 == cfg.train.epochs
                if (epoch + 1) % cfg.train.eval_every == 0 or last:
                    record |= self._evaluate(self.monitor)
                self.folder.append(record)
                if (epoch + 1) % cfg.train.checkpoint_every == 0 or last:
                    self.checkpoints.save(record["step"], self.state, {}, _scores(record))
                tqdm.write(_line(record, cfg.train.epochs))
                if self.stop.signal and not last:
                    self._leave({})
        self.checkpoints.wait()
        self._finish()
        return self.state

    def _train_epoch(self, epoch: int, progress: dict, bar: tqdm) -> dict:
        """Runs one epoch, or the rest of it, and returns its record."""
        cfg = self.cfg
        order = self.order(self.key, epoch)
        mixing = cfg.mixer.name != "none" and epoch < cfg.mixer.stop_epoch
        call, zeros = self._program(mixing, order)
        sums = jax.tree.map(jnp.copy, zeros)
        if progress:
            sums = {
                k: jax.device_put(jnp.asarray(v, sums[k].dtype), self.replicated) for k, v in progress["sums"].items()
            }
        done = int(self.state.step) - epoch * self.steps_per_epoch
        seconds = progress.get("seconds", 0.0)
        count = self.steps_per_call or 1
        while done < self.steps_per_epoch:
            count = min(count, self.steps_per_epoch - done)
            begin = time.perf_counter()
            data, rows, first = self.feed(order, done, count)
            if self.looped:
                self.state, sums = call(self.state, sums, data, rows, first, count, self.key)
            else:
                for i in range(first, first + count):
                    self.state, sums = call(self.state, sums, data, rows, i, 1, self.key)
            values = {name: value.item() for name, value in jax.device_get(sums).items()}
            seconds += (elapsed := time.perf_counter() - begin)
            done += count
            bar.update(count)
            finite = max(done - values["bad_steps"], 1)
            bar.set_postfix(
                epoch=f"{epoch + 1}/{cfg.train.epochs}", loss=f"{values['loss'] / finite:.3f}", refresh=False
            )
            if values["bad_steps"] and cfg.train.on_nan == "stop":
                raise RunError(
                    f"Loss or gradient is not finite at step {values['first_bad']} (epoch {epoch + 1}).",
                    f"The checkpoint of step {self.checkpoints.latest or 0} is kept; lower optim.learning_rate, or set "
                    "train.on_nan=skip in a new run.",
                )
            if self.stop.signal and done < self.steps_per_epoch:
                self._leave({"sums": values, "seconds": seconds})
            if not self.steps_per_call:
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

    def _program(self, mixing: bool, order: jax.Array):
        """The compiled call for mixing steps or for plain ones, made when first needed."""
        if mixing not in self.programs:
            cfg = self.cfg
            objective = make_objective(
                gamma=cfg.objective.gamma if mixing else 0.0,
                clean_features=cfg.objective.clean_features,
                label_smoothing=cfg.objective.label_smoothing,
            )
            mix = None
            if mixing:
                mixer = MIXERS[cfg.mixer.name](alpha=cfg.mixer.alpha)
                mix = make_mix(mixer, scope=cfg.mixer.scope, prob=cfg.mixer.prob)
            step = make_train_step(
                make_forward(self.model, stacked=self.stacked, bn_running=cfg.objective.bn_running),
                self.tx,
                mix,
                objective,
                clean_pass=mixing and needs_clean_pass(cfg.objective.gamma, cfg.objective.clean_features),
                skip_nonfinite=cfg.train.on_nan == "skip",
            )
            data, rows, _ = self.feed(order, 0, 1)
            zeros = zero_sums(step, self.fetch, self.state, data, rows[0], self.key)
            zeros = jax.device_put(zeros, self.replicated)
            begin = time.perf_counter()
            lowered = make_train_call(step, self.fetch, looped=self.looped).lower(
                self.state, zeros, data, rows, 0, 1, self.key
            )
            self.programs[mixing] = lowered.compile(), zeros
            tqdm.write(f"Compiled the {'mixing' if mixing else 'plain'} step in {time.perf_counter() - begin:.1f} s.")
        return self.programs[mixing]

    def _record(self, epoch: int, values: dict, seconds: float, mixing: bool) -> dict:
        steps = self.steps_per_epoch
        finite = max(steps - values["bad_steps"], 1)
        means = {
            name: value / finite for name, value in values.items() if name not in ("bad_steps", "first_bad", "finite")
        }
        record = {
            "step": (epoch + 1) * steps,
            "epoch": epoch + 1,
            "mixing": mixing,
            "learning_rate": float(self.learning_rate((epoch + 1) * steps - 1)),
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

    def _evaluate(self, split: str) -> dict:
        """Accuracy and NLL on a split, named after it."""
        if split not in self.batches:
            devices = self.by_item.mesh.size
            batches = to_batches(
                self.dataset.splits[split], batch_size=self.cfg.runtime.eval_batch_size, multiple_of=devices
            )
            self.batches[split] = jax.device_put(batches, Batches(*[self.by_batch] * 3))
        variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        sums = {k: float(v) for k, v in self.score(variables, self.batches[split]).items()}
        return {
            f"{split}_accuracy": sums["correct"] / sums["count"],
            f"{split}_nll": sums["nll"] / sums["count"],
        }

    def _fits_on_device(self) -> bool:
        stats = self.by_item.mesh.devices.flat[0].memory_stats() or {}
        limit = stats.get("bytes_limit")
        return limit is None or self.dataset.splits["train"].images.nbytes < 0.3 * limit

    def _announce(self, start: int) -> None:
        cfg, devices = self.cfg, self.by_item.mesh.devices.flatten()
        sizes = ", ".join(f"{len(s.labels):,} {n}" for n, s in self.dataset.splits.items())
        count = sum(x.size for x in jax.tree.leaves(self.state.params))
        print(
            f"{config_lib.method_of(cfg)} | {self.dataset.name}: {sizes}, {len(self.dataset.class_names)} classes\n"
            f"{cfg.model.name}: {count:,} parameters | {len(devices)} x {devices[0].device_kind}, "
            f"{jnp.dtype(self.model.dtype).name} | run folder: {self.folder.path}"
        )
        if start:
            print(f"Continuing from step {start:,} of {self.total_steps:,}.")

    def _finish(self) -> None:
        """Scores test for the result, writes it and draws the curves."""
        log = records.read_metrics(self.folder.path)
        scores = self._evaluate("test")
        result = {
            "test_accuracy": scores["test_accuracy"],
            "test_nll": scores["test_nll"],
            "method": config_lib.method_of(self.cfg),
            "seed": self.cfg.seed,
            "steps": self.total_steps,
            "epochs": self.cfg.train.epochs,
            "wall_time_s": round(sum(r["seconds"] for r in log), 3),
            "data": {"name": self.dataset.name, "fingerprint": self.dataset.fingerprint},
            "devices": [d.device_kind for d in self.by_item.mesh.devices.flatten()],
            "dtype": jnp.dtype(self.model.dtype).name,
            **records.environment(),
        }
        if self.monitor == "val":
            best = max((r for r in log if r.get("val_accuracy") is not None), key=lambda r: r["val_accuracy"])
            result["best_val"] = {name: best[name] for name in ("step", "epoch", "val_accuracy")}
        self.folder.finish(result)
        picture = report.draw_curves(self.folder.path, title=f"{self.dataset.name}, {result['method']}")
        print(f"Final test accuracy {scores['test_accuracy']:.2%} (test NLL {scores['test_nll']:.4f}).")
        print(f"Learning curves: {picture}")


def _scores(record: dict) -> dict[str, float]:
    return {name: record[name] for name in ("val_accuracy", "val_nll") if name in record}


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
