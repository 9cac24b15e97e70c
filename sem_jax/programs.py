"""A run made ready: its data placed on the devices, its functions compiled, its first state drawn.

    programs = Programs(cfg, dataset)
    state, order = programs.initial_state(), programs.order(epoch)
    sums = programs.prepare(state, order, mixing=True)
    state, sums = programs.run(state, sums, order, mixing=True, first=0, count=50)
    programs.evaluate(state, "test")                     # {"test_accuracy": 0.97, "test_nll": 0.11}

The loop decides what is run and when; nothing here is written anywhere.
"""

import time

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from tqdm import tqdm

from sem_jax.data.pipeline import Feeder, epoch_order, make_fetch
from sem_jax.evaluation.predict import Batches, make_score, to_batches
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.models import make_model
from sem_jax.objectives.build import make_objective, needs_clean_pass
from sem_jax.optim import choose_schedule, make_optimizer
from sem_jax.shortcuts import alternate, clean_items, counted, with_teacher
from sem_jax.state import TrainState, jit_init_state
from sem_jax.step import make_forward, make_train_call, make_train_step, zero_sums
from sem_jax.types import Dataset

HOST_STEPS_PER_CALL = 16  # with the images in host memory: so many steps' worth of them is sent at a time


class Programs:
    """Everything of a run that computes.

    Args:
      cfg: a validated configuration.
      dataset: that it names; batch size and classes agree.

    Attributes:
      devices: that take part.
      model: the Linen module.
      schedule: of the learning rate, the one that "auto" stands for.
      steps_per_epoch, total_steps: optimizer steps.
      steps_per_call: as configured; 0 = whatever the caller likes.
      learning_rate: step -> float.
    """

    def __init__(self, cfg: ConfigDict, dataset: Dataset):
        self._cfg, self._dataset = cfg, dataset
        train = dataset.splits["train"]
        self.devices = jax.devices()[: cfg.runtime.devices or None]
        mesh = jax.make_mesh((len(self.devices),), ("data",), axis_types=(AxisType.Auto,), devices=self.devices)
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self._by_item = NamedSharding(mesh, PartitionSpec("data"))
        self._by_batch = NamedSharding(mesh, PartitionSpec(None, "data"))
        self.steps_per_epoch = len(train.labels) // cfg.train.batch_size
        self.total_steps = self.steps_per_epoch * cfg.train.epochs
        self._key = jax.device_put(jax.random.key(cfg.seed), self.replicated)
        self.model = make_model(**{**cfg.model, "num_classes": len(dataset.class_names)})
        self.schedule = choose_schedule(cfg.optim.schedule, cfg.train.epochs)
        options = {**cfg.optim, "schedule": self.schedule}
        warmup_steps = round(options.pop("warmup_epochs") * self.steps_per_epoch)
        self._tx, self.learning_rate = make_optimizer(
            total_steps=self.total_steps, warmup_steps=warmup_steps, **options
        )
        if cfg.objective.clean_features == "ema_teacher":
            self._tx = with_teacher(self._tx, decay=cfg.objective.ema_decay)
        self._fetch = make_fetch(
            mean=dataset.mean,
            std=dataset.std,
            crop_padding=cfg.data.crop_padding,
            flip=cfg.data.flip,
            sharding=self._by_item,
        )
        resident = cfg.runtime.residency == "device" or (cfg.runtime.residency == "auto" and self._fits(train))
        self._feed = Feeder(
            train,
            resident=resident,
            steps=min(cfg.runtime.steps_per_call or HOST_STEPS_PER_CALL, self.steps_per_epoch),
            batch_size=cfg.train.batch_size,
            sharding=self.replicated,
        )
        self.steps_per_call = cfg.runtime.steps_per_call or (0 if resident else self._feed.steps)
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
        self._calls: dict = {}  # mixing or not -> compiled call
        self._batches: dict = {}  # split -> its batches on the devices

    def _fits(self, split) -> bool:
        limit = (self.devices[0].memory_stats() or {}).get("bytes_limit")
        return limit is None or split.images.nbytes < 0.3 * limit

    def initial_state(self) -> TrainState:
        """The state before the first step, on all devices."""
        image_shape = self._dataset.splits["train"].images.shape[1:]
        return jax.device_put(jit_init_state(self.model, self._tx, image_shape=image_shape)(self._key), self.replicated)

    def order(self, epoch: int) -> jax.Array:
        """Rows of the training split for every step of an epoch, i32[steps_per_epoch batch_size]."""
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
        )
        mix = None
        if mixing:
            mix = make_mix(MIXERS[cfg.mixer.name](alpha=cfg.mixer.alpha), scope=cfg.mixer.scope, prob=cfg.mixer.prob)
        return make_train_step(
            make_forward(self.model, stacked=self._stacked, bn_running=cfg.objective.bn_running),
            self._tx,
            mix,
            objective,
            clean_pass=mixing and penalised and needs_clean_pass(gamma, o.clean_features),
            skip_nonfinite=cfg.train.on_nan == "skip",
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

    def prepare(self, state: TrainState, order: jax.Array, *, mixing: bool) -> dict:
        """Compiles the call for mixing or plain steps, when first needed, and returns empty sums for `run`."""
        data, rows, first = self._feed(order, 0, 1)
        steps = self._steps(mixing)
        sums = zero_sums(steps[0], self._fetch, state, data, rows[0], self._key)
        sums = jax.device_put(sums, self.replicated)
        if mixing not in self._calls:
            begin = time.perf_counter()
            self._calls[mixing] = [
                make_train_call(step, self._fetch, looped=self._looped)
                .lower(state, sums, data, rows, first, 1, self._key)
                .compile()
                for step in steps
            ]
            tqdm.write(f"Compiled the {'mixing' if mixing else 'plain'} step in {time.perf_counter() - begin:.1f} s.")
        return sums

    def run(
        self, state: TrainState, sums: dict, order: jax.Array, *, mixing: bool, first: int, count: int
    ) -> tuple[TrainState, dict]:
        """Runs the steps with the rows order[first : first + count]; state and sums are donated."""
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
        if split not in self._batches:
            batches = to_batches(
                self._dataset.splits[split],
                batch_size=self._cfg.runtime.eval_batch_size,
                multiple_of=len(self.devices),
            )
            self._batches[split] = jax.device_put(batches, Batches(*[self._by_batch] * 3))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        sums = {name: float(value) for name, value in self._score(variables, self._batches[split]).items()}
        return {
            f"{split}_accuracy": sums["correct"] / sums["count"],
            f"{split}_nll": sums["nll"] / sums["count"],
        }
