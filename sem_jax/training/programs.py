"""A run made ready: its data placed on the devices, its functions compiled, its first state drawn.

    programs = Programs(cfg, dataset)
    state, order = programs.initial_state(), programs.order(epoch)
    sums = programs.prepare(state, order, mixing=True)
    state, sums = programs.run(state, sums, order, mixing=True, first=0, count=50)
    programs.evaluate(state, "test")                     # {"test_accuracy": 0.97, "test_nll": 0.11}

The loop decides what is run and when; nothing here is written anywhere.
"""

import functools
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from tqdm import tqdm

from sem_jax.data.encoded_feed import StreamFeeder
from sem_jax.data.pipeline import Feeder, epoch_order, make_fetch
from sem_jax.interfaces import Dataset, Split
from sem_jax.mixers import gradient_saliency, make_mix, make_mixer, make_schedule
from sem_jax.models import make_model
from sem_jax.objectives.build import make_objective, needs_clean_pass
from sem_jax.objectives.sem import warmup
from sem_jax.runs.opening import open_scorer
from sem_jax.runs.predict import Batches, make_score, to_batches
from sem_jax.runs.state import TrainState, jit_init_state
from sem_jax.system.hosts import is_lead
from sem_jax.training.optim import choose_schedule, make_optimizer
from sem_jax.training.shortcuts import alternate, clean_items, counted, with_teacher
from sem_jax.training.step import make_forward, make_train_call, make_train_step, zero_sums

HOST_STEPS_PER_CALL = 16  # with the images in host memory: so many steps' worth of them is sent at a time


class Programs:
    """Everything of a run that computes.

    Args:
      cfg: a validated configuration.
      dataset: that it names; batch size and classes agree.
      trace_dir: folder for a profiler trace of the second call of `run`; "" = none.

    Attributes:
      devices: that take part.
      model: the Linen module.
      schedule: of the learning rate, the one that "auto" stands for.
      steps_per_epoch, total_steps: optimizer steps.
      steps_per_call: as configured; 0 = whatever the caller likes.
      learning_rate: step -> float.
    """

    def __init__(self, cfg: ConfigDict, dataset: Dataset, *, trace_dir: str = ""):
        self._cfg, self._dataset = cfg, dataset
        train = dataset.splits["train"]
        self.devices = jax.devices()[: cfg.runtime.devices or None]
        mesh = jax.make_mesh((len(self.devices),), ("data",), axis_types=(AxisType.Auto,), devices=self.devices)
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self._by_item = NamedSharding(mesh, PartitionSpec("data"))
        self._by_batch = NamedSharding(mesh, PartitionSpec(None, "data"))
        self.steps_per_epoch = len(train.labels) // cfg.train.batch_size
        self.total_steps = self.steps_per_epoch * cfg.train.epochs
        self._key = jax.jit(lambda: jax.random.key(cfg.seed), out_shardings=self.replicated)()
        self.model = make_model(**{**cfg.model, "num_classes": len(dataset.class_names)})
        self.schedule = choose_schedule(cfg.optim.schedule, cfg.train.epochs)
        options = {**cfg.optim, "schedule": self.schedule}
        warmup_steps = round(options.pop("warmup_epochs") * self.steps_per_epoch)
        self._tx, self.learning_rate = make_optimizer(
            total_steps=self.total_steps, warmup_steps=warmup_steps, **options
        )
        streamed = not isinstance(train.images, np.ndarray)
        if cfg.objective.clean_features == "ema_teacher":
            self._tx = with_teacher(self._tx, decay=cfg.objective.ema_decay)
        self._fetch = make_fetch(
            mean=dataset.mean,
            std=dataset.std,
            crop_padding=cfg.data.crop_padding,
            flip=cfg.data.flip,
            sharding=self._by_item,
            streamed=streamed,
        )
        self._feed = self._make_stream(train) if streamed else self._make_feed(train)
        self.steps_per_call = cfg.runtime.steps_per_call or (0 if self._feed.resident else self._feed.steps)
        self._scorer = self._open_scorer()
        self._order = jax.jit(
            lambda key, epoch: epoch_order(key, epoch, num_items=len(train.labels), batch_size=cfg.train.batch_size),
            out_shardings=self._by_batch,
        )
        on_cpu = self.devices[0].platform == "cpu"
        self._looped = cfg.runtime.loop == "device" or (cfg.runtime.loop == "auto" and not on_cpu)
        # Stacking puts the streams, not the items, first: over several devices that would move images between them.
        alone = len(self.devices) == 1 and not on_cpu
        self._stacked = cfg.runtime.streams == "stacked" or (cfg.runtime.streams == "auto" and alone)
        self._score = make_score(self.model, mean=dataset.mean, std=dataset.std)
        self._trace_dir, self._runs = trace_dir, 0
        self._calls: dict = {}  # mixing or not -> compiled call
        self._zeros: dict = {}  # mixing or not -> empty sums, on the host
        self._batches: dict = {}  # split -> its batches on the devices

    def _make_feed(self, train) -> Feeder:
        cfg = self._cfg
        resident = cfg.runtime.residency == "device" or (cfg.runtime.residency == "auto" and self._fits(train))
        return Feeder(
            train,
            resident=resident,
            steps=min(cfg.runtime.steps_per_call or HOST_STEPS_PER_CALL, self.steps_per_epoch),
            batch_size=cfg.train.batch_size,
            sharding=self.replicated,
        )

    def _make_stream(self, train) -> StreamFeeder:
        cfg = self._cfg
        return StreamFeeder(
            train,
            seed=cfg.seed,
            batch_size=cfg.train.batch_size,
            epochs=cfg.train.epochs,
            crop_scale=cfg.data.crop_scale,
            workers=cfg.runtime.workers,
            steps=cfg.runtime.steps_per_call,
            sharding=self._by_batch,
        )

    def _fits(self, split) -> bool:
        limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
        return limit is None or split.images.nbytes < 0.3 * limit

    def initial_state(self) -> TrainState:
        """The state before the first step, on all devices."""
        image_shape = self._dataset.splits["train"].images.shape[1:]
        return jax.device_put(jit_init_state(self.model, self._tx, image_shape=image_shape)(self._key), self.replicated)

    def order(self, epoch: int) -> jax.Array:
        """Rows of the training split for every step of an epoch, i32[steps_per_epoch batch_size]; streamed: batches."""
        if isinstance(self._feed, StreamFeeder):
            return self._feed.order(epoch)
        return self._order(self._key, epoch)

    def train_step(self, mixing: bool, *, penalised: bool = True):
        """The step of a mixing stage, or of a plain one (ERM, and the last stage of ES).

        With penalty_every = k > 1 the steps that have the penalty have it k times as strong.
        """
        cfg = self._cfg
        o = cfg.objective
        gamma = o.gamma * o.penalty_every if mixing and penalised else 0.0
        part = o.penalty_fraction < 1 and gamma > 0
        objective = make_objective(
            gamma=gamma,
            clean_features=cfg.objective.clean_features,
            label_smoothing=cfg.objective.label_smoothing,
            regmixup=cfg.objective.regmixup and mixing,
            distance=cfg.objective.distance,
            penalty_pairs=cfg.objective.penalty_pairs,
        )
        return make_train_step(
            make_forward(
                self.model,
                stacked=self._stacked,
                bn_running=cfg.objective.bn_running,
                remat=cfg.runtime.remat,
            ),
            self._tx,
            self._mix() if mixing else None,
            objective,
            clean_pass=mixing and penalised and needs_clean_pass(gamma, o.clean_features, o.regmixup),
            skip_nonfinite=cfg.train.on_nan == "skip",
            strength=self._strength(),
            penalty_weight=self._penalty_weight() if gamma > 0 else None,
            saliency=functools.partial(gradient_saliency, self.model),
            micro_batches=cfg.train.gradient_accumulation,
            unroll=self.devices[0].platform == "cpu",
            mixes_per_clean=o.mixes_per_clean,
            penalty_items=clean_items(o.penalty_fraction, batch_size=cfg.train.batch_size) if part else None,
            teacher=o.clean_features == "ema_teacher" and gamma > 0,
        )

    def _steps(self, mixing: bool) -> list:
        """What a stage alternates between: one step, or (penalty_every > 1, on the host) one with and one without."""
        step, every = self.train_step(mixing), self._cfg.objective.penalty_every
        if not mixing or every == 1:
            return [step]
        without = self.train_step(mixing, penalised=False)
        return [alternate(step, without, every=every)] if self._looped else [counted(step), without]

    def _mix(self):
        x = self._cfg.mixer
        mixer = make_mixer(x.name, alpha=x.alpha, options=x.options, scorer=self._scorer)
        groups = 1 if x.across_device else len(self.devices)
        return make_mix(mixer, scope=x.scope, prob=x.prob, pairing=x.pairing, groups=groups)

    def _strength(self):
        x = self._cfg.mixer
        steps = {"total_steps": x.stop_epoch * self.steps_per_epoch, "steps_per_epoch": self.steps_per_epoch}
        return None if x.schedule == "constant" else make_schedule(x.schedule, **steps)

    def _penalty_weight(self):
        steps = round(self._cfg.objective.gamma_warmup * self.total_steps)
        return warmup(steps) if steps else None

    def _open_scorer(self):
        """The frozen net that a saliency mixer asks, as a function of this run's normalised images; or None."""
        data = self._dataset
        if not self._cfg.mixer.scorer:
            return None
        shape = {"image_shape": data.splits["train"].images.shape[1:], "mean": data.mean, "std": data.std}
        return open_scorer(self._cfg.mixer.scorer, **shape, sharding=self.replicated)

    def lower(
        self, state: TrainState, order: jax.Array, *, mixing: bool, platforms: tuple[str, ...] | None = None
    ) -> tuple[list, dict]:
        """The calls that mixing or plain steps alternate between, as `jax.stages.Lowered`, and empty sums for them.

        Args:
          state, order: for their shapes and places.
          mixing: which steps.
          platforms: as ("cuda", "tpu"), which need not be here; None = the devices' own.
        """
        data, rows, first = self._feed.example(order)
        steps = self._steps(mixing)
        sums = zero_sums(steps[0], self._fetch, state, data, rows[0], self._key)
        sums = jax.device_put(sums, self.replicated)
        calls = [make_train_call(step, self._fetch, looped=self._looped) for step in steps]
        traced = [call.trace(state, sums, data, rows, first, 1, self._key) for call in calls]
        return [call.lower(lowering_platforms=platforms) for call in traced], sums

    def prepare(self, state: TrainState, order: jax.Array, *, mixing: bool) -> dict:
        """Compiles the call for mixing or plain steps, when first needed, and returns empty sums for `run`."""
        if mixing not in self._calls:
            begin = time.perf_counter()
            lowered, sums = self.lower(state, order, mixing=mixing)
            self._calls[mixing] = [call.compile() for call in lowered]
            self._zeros[mixing] = jax.device_get(sums)
            if is_lead():
                kind = "mixing" if mixing else "plain"
                tqdm.write(f"Compiled the {kind} step in {time.perf_counter() - begin:.1f} s.")
        return jax.device_put(self._zeros[mixing], self.replicated)

    def run(
        self, state: TrainState, sums: dict, order: jax.Array, *, mixing: bool, first: int, count: int
    ) -> tuple[TrainState, dict]:
        """Runs the steps with the rows order[first : first + count]; state and sums are donated."""
        self._runs += 1
        if self._trace_dir and self._runs == 2:  # in the first one, programs are loaded and buffers made
            with jax.profiler.trace(self._trace_dir):
                out = jax.block_until_ready(self._run(state, sums, order, mixing, first, count))
            tqdm.write(f"Trace of {count} steps: {self._trace_dir} (tensorboard --logdir, or xprof)")
            return out
        return self._run(state, sums, order, mixing, first, count)

    def _run(self, state, sums, order, mixing, first, count):
        data, rows, first = self._feed(order, first, count)
        calls = self._calls[mixing]
        if self._looped:
            return calls[0](state, sums, data, rows, first, count, self._key)
        step = int(state.step) if len(calls) > 1 else 0
        for i in range(count):
            call = calls[-1 if (step + i) % self._cfg.objective.penalty_every else 0]
            state, sums = call(state, sums, data, rows, first + i, 1, self._key)
        return state, sums

    def evaluate(self, state: TrainState, split: str) -> dict[str, float]:
        """Accuracy and NLL on a split, named after it."""
        if not isinstance(self._dataset.splits[split].images, np.ndarray):
            return self._evaluate_stream(state, split)
        if split not in self._batches:
            batches = to_batches(
                self._dataset.splits[split],
                batch_size=self._cfg.runtime.eval_batch_size,
                multiple_of=len(self.devices),
            )
            self._batches[split] = jax.device_put(batches, Batches(*[self._by_batch] * 3))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        sums = {name: float(value) for name, value in self._score(variables, self._batches[split]).items()}
        return _scores(split, sums)

    def _evaluate_stream(self, state: TrainState, split: str) -> dict[str, float]:
        """`evaluate` with one batch in memory at a time, the next one being decoded meanwhile."""
        images, labels = self._dataset.splits[split]
        size = min(self._cfg.runtime.eval_batch_size, len(labels))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        parts = []

        def read(first: int) -> Batches:
            rows = slice(first, first + size)
            batch = to_batches(Split(images[rows], labels[rows]), batch_size=size, multiple_of=len(self.devices))
            # The last batch has the others' shape, so that nothing is compiled for it.
            missing = -(-size // len(self.devices)) * len(self.devices) - batch.labels.shape[1]
            fill = lambda x: np.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))  # noqa: E731
            return Batches(*map(fill, batch))

        with ThreadPoolExecutor(1) as thread:
            ahead = thread.submit(read, 0)
            for first in range(size, len(labels) + size, size):
                batches = jax.device_put(ahead.result(), Batches(*[self._by_batch] * 3))
                if first < len(labels):
                    ahead = thread.submit(read, first)
                parts.append(self._score(variables, batches))
        parts = jax.device_get(parts)
        return _scores(split, {name: sum(float(part[name]) for part in parts) for name in parts[0]})

    def close(self) -> None:
        """Ends what runs beside the steps."""
        self._feed.close()


def _scores(split: str, sums: dict[str, float]) -> dict[str, float]:
    return {f"{split}_accuracy": sums["correct"] / sums["count"], f"{split}_nll": sums["nll"] / sums["count"]}
