"""Places a run's data on the devices, compiles its functions and draws its first state.

    programs = Programs(cfg, dataset)
    state, order = programs.initial_state(), programs.order(epoch)
    sums = programs.prepare(programs.mixing, state, order)
    state, sums = programs.run(programs.mixing, state, sums, order, first=0, count=50)
    programs.evaluate(state, "test")                     # {"test_accuracy": 0.97, "test_nll": 0.11}

`assemble` makes the functions, and `loop` decides when they run. Nothing is written here but a profiler trace.
"""

import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sem_jax.data.encoded_feed import EncodedFeed
from sem_jax.data.pipeline import ArrayFeed
from sem_jax.interfaces import Dataset, Feed, Scorer
from sem_jax.runs.opening import open_scorer
from sem_jax.runs.state import TrainState, jit_init_state
from sem_jax.system.compiler import compile_step
from sem_jax.system.hosts import is_lead
from sem_jax.system.output import say
from sem_jax.training import assemble
from sem_jax.training.averages import averaged, start
from sem_jax.training.calls import Sums, zero_sums
from sem_jax.training.monitor import Monitor
from sem_jax.training.step import TrainStep

if TYPE_CHECKING:  # most runs start from drawn weights
    from sem_jax.convert.pretrained import Start

HOST_STEPS_PER_CALL = 16  # how many steps' images are sent at a time from the host's memory
DEVICE_SHARE = 0.3  # share of a device's memory that the training images may take


@dataclass
class Stage:
    """A stretch of training whose steps are the same: mixing, or plain."""

    name: str
    steps: tuple[TrainStep, ...]  # one; or two, the first at every objective.penalty_every-th step
    calls: list[Any] = field(default_factory=list)  # compiled; a device loop has one, which alternates by itself
    zeros: Sums | None = None  # empty sums of the metrics, on the host; None until the stage is compiled


class Programs:
    """The compiled functions of a run, with their data.

    Args:
      cfg: a validated configuration.
      dataset: the one that it names; batch size and classes agree.
      trust_model: see `runs.opening.open_run`; for the run of mixer.scorer.
      start: the weights of the first state, see `start.begin`; None = as the model draws them.

    Raises:
      SemError: model, mixer and data cannot work together, or mixer.scorer is no run; nothing has been compiled.

    Attributes:
      trace_dir: folder for a profiler trace of the second call of `run`; "" = none.
      devices, model: those of the run.
      lengths: steps of an epoch and of the run.
      steps_per_call: as configured; 0 = any number.
      learning_rate: step -> float.
      mixing, plain: the stages; the mixing one has no steps where mixer.name is "none".
    """

    def __init__(self, cfg: ConfigDict, dataset: Dataset, *, trust_model: str = "", start: "Start | None" = None):
        self._cfg, self._dataset, self.start = cfg, dataset, start
        self.devices = jax.devices()[: cfg.runtime.devices or None]
        mesh = jax.make_mesh((len(self.devices),), ("data",), axis_types=(AxisType.Auto,), devices=self.devices)
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self._by_batch = NamedSharding(mesh, PartitionSpec(None, "data"))
        on = assemble.Platform(self.devices[0].platform, len(self.devices))
        scorer = self._open_scorer(trust_model)
        assemble.check(cfg, dataset, on=on, scorer=scorer)
        self._key = jax.jit(lambda: jax.random.key(cfg.seed), out_shardings=self.replicated)()

        train = dataset.splits["train"]
        self.lengths = assemble.lengths(cfg, len(train.labels))
        self.model = assemble.model(cfg, len(dataset.class_names))
        self.learning_rate = assemble.learning_rate(cfg, self.lengths)
        self._tx = assemble.optimizer(cfg, self.learning_rate)
        self.mixing = Stage("mixing", ())
        if cfg.mixer.name != "none":
            self.mixing.steps = assemble.mixing_steps(cfg, self.lengths, self.model, self._tx, on=on, scorer=scorer)
        self.plain = Stage("plain", (assemble.plain_step(cfg, self.model, self._tx, on=on),))

        self._feed = self._make_feed()
        self.steps_per_call = cfg.runtime.steps_per_call or self._feed.steps
        by_item = NamedSharding(mesh, PartitionSpec("data"))
        self._fetch = assemble.fetch(cfg, dataset, on=on, batched=isinstance(self._feed, EncodedFeed), sharding=by_item)
        self._looped = on.looped(cfg)
        self._monitor = Monitor(self.model, dataset, batch_size=cfg.runtime.eval_batch_size, sharding=self._by_batch)
        self.trace_dir, self._runs = "", 0

    def _open_scorer(self, trust_model: str) -> Scorer | None:
        """The frozen net of a saliency mixer, as a function of this run's normalised images."""
        if not self._cfg.mixer.scorer:
            return None
        data = self._dataset
        shape = {"image_shape": data.splits["train"].images.shape[1:], "mean": data.mean, "std": data.std}
        how = {"sharding": self.replicated, "trust_model": trust_model, "fetch": True}
        return open_scorer(self._cfg.mixer.scorer, **shape, **how)

    def _make_feed(self) -> Feed:
        cfg, train = self._cfg, self._dataset.splits["train"]
        if not isinstance(train.images, np.ndarray):
            return EncodedFeed(
                train,
                seed=cfg.seed,
                batch_size=cfg.train.batch_size,
                epochs=cfg.train.epochs,
                crop_scale=cfg.data.crop_scale,
                workers=cfg.runtime.workers,
                steps=cfg.runtime.steps_per_call,
                sharding=self._by_batch,
            )
        limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
        fits = limit is None or train.images.nbytes < DEVICE_SHARE * limit
        resident = cfg.runtime.residency == "device" or (cfg.runtime.residency == "auto" and fits)
        return ArrayFeed(
            train,
            key=self._key,
            batch_size=cfg.train.batch_size,
            steps=0 if resident else min(cfg.runtime.steps_per_call or HOST_STEPS_PER_CALL, self.lengths.epoch),
            sharding=self.replicated,
            by_batch=self._by_batch,
        )

    def initial_state(self) -> TrainState:
        """The state before the first step, on all devices."""
        image_shape = self._dataset.splits["train"].images.shape[1:]
        state = jit_init_state(self.model, self._tx, image_shape=image_shape)(self._key)
        if self.start:
            found = self.start.onto({"params": state.params, "batch_stats": state.batch_stats})
            found = jax.device_put(found, self.replicated)
            state = state._replace(**found, opt_state=jax.jit(self._tx.init)(found["params"]))
        state, averages = jax.device_put(state, self.replicated), assemble.averages(self._cfg)
        return jax.jit(functools.partial(start, averages))(state) if averages else state

    def order(self, epoch: int) -> Any:
        """The order of an epoch, see `interfaces.Feed`."""
        return self._feed.order(epoch)

    def lower(
        self, stage: Stage, state: TrainState, order: Any, *, platforms: tuple[str, ...] | None = None
    ) -> tuple[list, Sums]:
        """The calls of a stage as `jax.stages.Lowered`, and empty sums for them.

        Args:
          state, order: only their shapes and places are used.
          platforms: such as ("cuda", "tpu"), which need not be here; None = the devices' own.
        """
        data, rows, first = self._feed.example(order)
        sums = zero_sums(stage.steps, self._fetch, state, data, rows[0], self._key)
        sums = jax.device_put(sums, self.replicated)
        calls = assemble.calls(self._cfg, stage.steps, self._fetch, looped=self._looped)
        traced = [call.trace(state, sums, data, rows, first, 1, self._key) for call in calls]
        return [call.lower(lowering_platforms=platforms) for call in traced], sums

    def prepare(self, stage: Stage, state: TrainState, order: Any) -> Sums:
        """Compiles the calls of a stage, when first needed, and returns empty sums for `run`."""
        if stage.zeros is None:
            begin = time.perf_counter()
            lowered, sums = self.lower(stage, state, order)
            kind, vmem = self.devices[0].device_kind, self._cfg.runtime.vmem
            stage.calls = [compile_step(call, kind, vmem=vmem) for call in lowered]
            stage.zeros = jax.device_get(sums)
            if is_lead():
                say(f"Compiled the {stage.name} step in {time.perf_counter() - begin:.1f} s.")
        return jax.device_put(stage.zeros, self.replicated)

    def run(
        self, stage: Stage, state: TrainState, sums: Sums, order: Any, *, first: int, count: int
    ) -> tuple[TrainState, Sums]:
        """Runs the steps with the rows order[first : first + count]; state and sums are donated."""
        self._runs += 1
        if self.trace_dir and self._runs == 2:  # the first run loads programs and makes buffers
            with jax.profiler.trace(self.trace_dir):
                out = jax.block_until_ready(self._run(stage, state, sums, order, first, count))
            say(f"Trace of {count} steps: {self.trace_dir} (tensorboard --logdir, or xprof)")
            return out
        return self._run(stage, state, sums, order, first, count)

    def _run(self, stage: Stage, state: TrainState, sums: Sums, order: Any, first: int, count: int):
        data, rows, first = self._feed(order, first, count)
        if self._looped:
            return stage.calls[0](state, sums, data, rows, first, count, self._key)
        step = int(state.step) if len(stage.calls) > 1 else 0
        for i in range(count):
            call = stage.calls[-1 if (step + i) % self._cfg.objective.penalty_every else 0]
            state, sums = call(state, sums, data, rows, first + i, 1, self._key)
        return state, sums

    def evaluate(self, state: TrainState, split: str) -> dict[str, float]:
        """Accuracy and NLL on a split, named after it; those of the averaged weights, where there are, as ema_..."""
        scores = self._monitor(state, split)
        if (average := averaged(state)) is not None:
            scores |= {f"ema_{name}": value for name, value in self._monitor(average, split).items()}
        return scores

    def close(self) -> None:
        """Ends the feed's threads and processes."""
        self._feed.close()
