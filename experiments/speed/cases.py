"""The training steps that are measured, each as compiled calls on data of its own.

    setting = Setting(net="preact_resnet", depth=18, width=64, batch=128, size=32)
    bench = Bench(setting)
    bench.add("sem", Case({"objective.gamma": 0.3}))
    bench.runs["sem"](50)                   # 50 steps, done when it returns

A case is a configuration, put together by the trainer's own functions (`sem_jax.training.assemble`), with the input
pipeline in it. The images are random uint8: zeros would let a GPU clock higher and hide denormal or sparse shortcuts.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.speed.flops import count
from sem_jax.config import get_default, override
from sem_jax.data.pipeline import DeviceData, as_rows, epoch_order
from sem_jax.interfaces import Batch, Dataset, Split
from sem_jax.mixers import make_mix, make_mixer, make_scorer
from sem_jax.objectives.losses import label_loss, mixed_targets
from sem_jax.objectives.sem import sem_penalty
from sem_jax.runs.state import jit_init_state
from sem_jax.system.compiler import compile_step
from sem_jax.training import assemble
from sem_jax.training.averages import start
from sem_jax.training.calls import make_advance, make_call, zero_sums
from sem_jax.training.draw import make_draw
from sem_jax.training.forward import make_forward
from sem_jax.training.gradient import make_gradient
from sem_jax.training.step import TrainStep, make_train_step

GAMMA = 0.3
# Of all cases, where they set nothing else: mixup, whose two passes would run one after the other.
FIELDS = {
    "mixer.name": "mixup",
    "objective.gamma": 0.0,
    "optim.learning_rate": 0.01,
    "runtime.passes": "sequential",
    "runtime.loop": "host",
}


class Setting(NamedTuple):
    """A net and a batch."""

    net: str
    depth: int
    width: int
    batch: int
    size: int = 32
    classes: int = 10
    stem: str = "3x3"
    items: int = 4096  # images of the made-up data set

    @property
    def name(self) -> str:
        label = {"preact_resnet": f"preact{self.depth}", "wide_resnet": f"wrn{self.depth}"}[self.net]
        return f"{label}-{self.width} {self.size}px batch {self.batch}"


class Case(NamedTuple):
    """One way to take a step.

    Attributes:
      fields: of the configuration, by their dotted names; the others are those of FIELDS.
      three_passes: Algorithm 1 as it is written, x_j run once more.
      pipeline: crop, flip and normalise in the step; False: normalised images lie ready.
    """

    fields: Mapping[str, Any] = {}
    three_passes: bool = False
    pipeline: bool = True


class Compiled(NamedTuple):
    """Of a case whose steps differ: the sum, the mean and the most of them."""

    compile_s: float
    flops: float  # XLA's own count of a step, for ratios between cases alone
    peak_bytes: int  # arguments, results and temporary arrays


class Parts(NamedTuple):
    """What a case is put together of."""

    cfg: ConfigDict
    tx: Any
    steps: tuple[TrainStep, ...]  # the second is taken between every objective.penalty_every-th
    fetch: Callable
    data: DeviceData


def three_pass_step(model, tx) -> TrainStep:
    """Algorithm 1 as it is written: mixed, anchor and partner images are three passes. For comparison only."""
    two = make_draw(make_mix(make_mixer("mixup", alpha=1.0)), clean_pass=True)

    def draw(state, batch: Batch, key, take=None):
        passes, mix = two(state, batch, key, take)
        return {**passes, "partner": batch.images[mix.pairing] if take is None else take(mix.pairing)}, mix

    def objective(outputs, batch: Batch, mix, step=None):
        del step
        mixed, clean, partner = (outputs[name] for name in ("mixed", "clean", "partner"))
        targets = mixed_targets(batch.labels, *mix, num_classes=mixed.logits.shape[-1])
        penalty = sem_penalty(mixed.features, clean.features, partner.features, mix.lam)
        loss = jnp.mean(label_loss(mixed.logits, targets) + GAMMA * penalty)
        return loss, {"loss": loss}

    return make_train_step(draw, make_gradient(make_forward(model, stacked=False), objective), tx)


def ready(data: DeviceData, rows: jax.Array, key: jax.Array, step: jax.Array) -> tuple[Batch, None]:
    """A fetch without an input pipeline: the images are normalised already."""
    del key, step
    return Batch(data.images[rows], data.labels[rows], jnp.ones(len(rows), jnp.float32)), None


class Bench:
    """The cases of one setting, compiled and ready to be timed.

    Attributes:
      model: the net.
      cost: of the net, see `flops.count`.
      runs: name -> function of a number of steps.
      compiled: name -> Compiled.
    """

    def __init__(self, setting: Setting):
        self.setting = setting
        rng = np.random.default_rng(0)
        shape = (setting.items, setting.size, setting.size, 3)
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        labels = rng.integers(0, setting.classes, setting.items).astype(np.int32)
        names = tuple(map(str, range(setting.classes)))
        self._dataset = Dataset("random", {"train": Split(images, labels)}, names, (0.5,) * 3, (0.25,) * 3, "")
        self._data = jax.device_put(as_rows(images, labels))
        self.key = jax.random.key(0)
        self.order = epoch_order(self.key, 0, num_items=setting.items, batch_size=setting.batch)
        self._on = assemble.Platform(jax.default_backend(), 1)
        self.model = assemble.model(self.configure(Case()), setting.classes)
        self._image_shape = shape[1:]
        self.cost = count(self.model, image_shape=self._image_shape)
        self.runs: dict[str, Callable[[int], None]] = {}
        self.compiled: dict[str, Compiled] = {}

    def configure(self, case: Case) -> ConfigDict:
        """The case's configuration."""
        s = self.setting
        net = {"model.name": s.net, "model.depth": s.depth, "model.width": s.width, "model.stem": s.stem}
        return override(get_default(), {**FIELDS, **net, "train.batch_size": s.batch, **case.fields})

    def parts(self, case: Case) -> Parts:
        """What the case is put together of, as the trainer does it."""
        cfg, data = self.configure(case), self._data
        lengths = assemble.lengths(cfg, self.setting.items)
        tx = assemble.optimizer(cfg, assemble.learning_rate(cfg, lengths))
        if case.three_passes:
            steps = (three_pass_step(self.model, tx),)
        elif cfg.mixer.name == "none":
            steps = (assemble.plain_step(cfg, self.model, tx, on=self._on),)
        else:
            scorer = self._scorer() if cfg.mixer.name == "attentive_cutmix" else None
            steps = assemble.mixing_steps(cfg, lengths, self.model, tx, on=self._on, scorer=scorer)
        if case.pipeline:
            return Parts(cfg, tx, steps, assemble.fetch(cfg, self._dataset, on=self._on, batched=False), data)
        images = data.images.reshape(-1, *self._image_shape)
        data = data._replace(images=(images.astype(jnp.float32) / 255.0 - 0.5) / 0.25)
        return Parts(cfg, tx, steps, ready, data)

    def _scorer(self):
        """For the mixer that asks a frozen net: this one, untrained, which costs what a trained one does."""
        variables = self.model.init(self.key, jnp.zeros((1, *self._image_shape)), train=False)
        return make_scorer(self.model, variables)

    def arguments(self, parts: Parts) -> tuple:
        """What a call of the parts is given: (state, sums, data, order, first, count, key), from step 0 on."""
        state = jit_init_state(self.model, parts.tx, image_shape=self._image_shape)(self.key)
        state = start(assemble.averages(parts.cfg), state)
        sums = zero_sums(parts.steps, parts.fetch, state, parts.data, self.order[0], self.key)
        return state, sums, parts.data, self.order, 0, 1, self.key

    def add(self, name: str, case: Case) -> None:
        """Compiles a case; its state is drawn anew, so that every case starts from the same weights."""
        parts = self.parts(case)
        looped, every = self._on.looped(parts.cfg), parts.cfg.objective.penalty_every
        state, sums, data, *_ = arguments = self.arguments(parts)
        begin = time.perf_counter()
        lowered = [make_call(make_advance(step, parts.fetch), looped=looped).lower(*arguments) for step in parts.steps]
        kind, vmem = jax.devices()[0].device_kind, parts.cfg.runtime.vmem
        calls = [compile_step(it, kind, vmem=vmem) for it in lowered]
        seconds = time.perf_counter() - begin
        flops = [float((it.cost_analysis() or {}).get("flops", 0.0)) for it in lowered]
        mean = (flops[0] + (every - 1) * flops[-1]) / every
        self.compiled[name] = Compiled(seconds, mean, max(_peak_bytes(call.memory_analysis()) for call in calls))
        carry, length = [state, sums], len(self.order)

        def run(steps: int) -> None:
            done = 0
            while done < steps:
                first = 0 if looped else done % length
                number = min(steps - done, length) if looped else 1
                call = calls[-1 if done % every else 0]
                carry[:] = call(*carry, data, self.order, first, number, self.key)
                done += number
            jax.block_until_ready(carry)

        self.runs[name] = run

    def drop(self, name: str) -> None:
        """Forgets a case, if it is there, with its state on the device."""
        self.runs.pop(name, None)
        self.compiled.pop(name, None)


def _peak_bytes(memory: Any) -> int:
    used = sum(getattr(memory, f"{part}_size_in_bytes", 0) for part in ("argument", "output", "temp"))
    return int(used - getattr(memory, "alias_size_in_bytes", 0))
