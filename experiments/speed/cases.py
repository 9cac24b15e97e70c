"""The training steps that are measured, each as a compiled call on data of its own.

    setting = Setting(net="preact_resnet", depth=18, width=64, batch=128, size=32)
    bench = Bench(setting)
    bench.add("sem", Case(gamma=0.3))
    bench.runs["sem"](50)                   # 50 steps, done when it returns

A step is the shipped one (`sem_jax.training.step`), with the input pipeline in it, on random uint8 images: zeros would
let a GPU clock higher and hide denormal or sparse shortcuts.
"""

import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.speed.flops import count
from sem_jax.data.pipeline import DeviceData, epoch_order, make_fetch
from sem_jax.interfaces import Batch
from sem_jax.mixers import gradient_saliency, make_mix, make_mixer, make_scorer
from sem_jax.models import make_model
from sem_jax.objectives.build import make_objective, needs_clean_pass
from sem_jax.objectives.losses import label_loss, mixed_targets
from sem_jax.objectives.sem import sem_penalty
from sem_jax.rngs import key_for
from sem_jax.runs.state import TrainState, jit_init_state
from sem_jax.training.optim import make_optimizer
from sem_jax.training.shortcuts import clean_items, with_teacher
from sem_jax.training.step import make_forward, make_train_call, make_train_step, zero_sums

GAMMA = 0.3


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
      mixer: a row of MIXERS, or "none" for plain training.
      gamma: of the penalty.
      clean_features, penalty_fraction, mixes_per_clean: as in the configuration.
      three_passes: Algorithm 1 as it is written, x_j run once more.
      stacked: both streams in one call.
      looped: the steps of a block loop on the device.
      pipeline: crop, flip and normalise in the step; False: normalised images lie ready.
    """

    mixer: str = "mixup"
    gamma: float = 0.0
    clean_features: str = "exact"
    three_passes: bool = False
    penalty_fraction: float = 1.0
    mixes_per_clean: int = 1
    stacked: bool = False
    looped: bool = False
    pipeline: bool = True


class Compiled(NamedTuple):
    compile_s: float
    flops: float  # XLA's own count of a call, for ratios between cases alone
    peak_bytes: int  # arguments, results and temporary arrays


def three_pass_step(model, tx, mix):
    """Algorithm 1 as it is written: mixed, anchor and partner images are three passes. For comparison only."""

    def run(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        outputs, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return outputs, updated.get("batch_stats", {})

    def train_step(state: TrainState, batch: Batch, key, take=None):
        mixed, drawn = mix(key_for(key, "mixer", state.step), batch.images, take)
        lam, pairing = drawn.lam, drawn.pairing
        partners = batch.images[pairing] if take is None else take(pairing)

        def loss_fn(params):
            anchor, stats = run(params, state.batch_stats, batch.images)
            partner, stats = run(params, stats, partners)
            mixture, stats = run(params, stats, mixed)
            targets = mixed_targets(batch.labels, lam, pairing, num_classes=mixture.logits.shape[-1])
            penalty = sem_penalty(mixture.features, anchor.features, partner.features, lam)
            return jnp.mean(label_loss(mixture.logits, targets) + GAMMA * penalty), stats

        (loss, stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        finite = jnp.isfinite(loss).astype(jnp.float32)
        metrics = {"loss": loss, "finite": finite, "not_finite": 1.0 - finite}
        return TrainState(state.step + 1, params, stats, opt_state), metrics

    return train_step


class Bench:
    """The cases of one setting, compiled and ready to be timed.

    Attributes:
      cost: of the net, see `flops.count`.
      runs: name -> function of a number of steps.
      compiled: name -> Compiled.
    """

    def __init__(self, setting: Setting, *, dtype: str = "auto"):
        self.setting = setting
        rng = np.random.default_rng(0)
        shape = (setting.items, setting.size, setting.size, 3)
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        labels = rng.integers(0, setting.classes, setting.items).astype(np.int32)
        self._data = jax.device_put(DeviceData(images, labels))
        self._key = jax.random.key(0)
        self._order = epoch_order(self._key, 0, num_items=setting.items, batch_size=setting.batch)
        self.model = make_model(
            name=setting.net,
            num_classes=setting.classes,
            dtype=dtype,
            depth=setting.depth,
            width=setting.width,
            stem=setting.stem,
        )
        self._sgd, _ = make_optimizer(total_steps=10_000, learning_rate=0.01, weight_decay=1e-4)
        self.cost = count(self.model, image_shape=shape[1:])
        self.runs: dict = {}
        self.compiled: dict[str, Compiled] = {}

    def step(self, case: Case):
        """The case's train_step."""
        mix = None if case.mixer == "none" else make_mix(make_mixer(case.mixer, alpha=1.0, scorer=self._scorer(case)))
        if case.three_passes:
            return three_pass_step(self.model, self._sgd, mix)
        part = case.penalty_fraction < 1
        return make_train_step(
            make_forward(self.model, stacked=case.stacked),
            self._optimizer(case),
            mix,
            make_objective(gamma=case.gamma, clean_features=case.clean_features),
            clean_pass=mix is not None and needs_clean_pass(case.gamma, case.clean_features),
            saliency=functools.partial(gradient_saliency, self.model),
            mixes_per_clean=case.mixes_per_clean,
            penalty_items=clean_items(case.penalty_fraction, batch_size=self.setting.batch) if part else None,
            teacher=case.clean_features == "ema_teacher",
        )

    def _scorer(self, case: Case):
        """For the mixer that asks a frozen net: this one, untrained, which costs what a trained one does."""
        if case.mixer != "attentive_cutmix":
            return None
        variables = self.model.init(self._key, self._data.images[:1].astype(jnp.float32), train=False)
        return make_scorer(self.model, variables)

    def _optimizer(self, case: Case):
        return with_teacher(self._sgd, decay=0.999) if case.clean_features == "ema_teacher" else self._sgd

    def _fetch(self, case: Case):
        options = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
        if case.pipeline:
            return make_fetch(**options, crop_padding=4, flip=True)

        def ready(data, rows, key, step):
            del key, step
            return Batch(data.images[rows], data.labels[rows], jnp.ones(len(rows), jnp.float32)), None

        return ready

    def add(self, name: str, case: Case) -> None:
        """Compiles a case; its state is drawn anew, so that every case starts from the same weights."""
        step, fetch, data = self.step(case), self._fetch(case), self._data
        if not case.pipeline:
            data = data._replace(images=(data.images.astype(jnp.float32) / 255.0 - 0.5) / 0.25)
        shape = data.images.shape[1:]
        state = jit_init_state(self.model, self._optimizer(case), image_shape=shape)(self._key)
        sums = zero_sums(step, fetch, state, data, self._order[0], self._key)
        begin = time.perf_counter()
        lowered = make_train_call(step, fetch, looped=case.looped).lower(
            state, sums, data, self._order, 0, 1, self._key
        )
        call = lowered.compile()
        seconds = time.perf_counter() - begin
        memory = call.memory_analysis()
        peak = sum(getattr(memory, f"{part}_size_in_bytes", 0) for part in ("argument", "output", "temp")) - getattr(
            memory, "alias_size_in_bytes", 0
        )
        self.compiled[name] = Compiled(seconds, float((lowered.cost_analysis() or {}).get("flops", 0.0)), int(peak))
        carry = [state, sums]
        count = len(self._order)

        def run(steps: int) -> None:
            if case.looped:
                done = 0
                while done < steps:
                    n = min(steps - done, count)
                    carry[:] = call(*carry, data, self._order, 0, n, self._key)
                    done += n
            else:
                for i in range(steps):
                    carry[:] = call(*carry, data, self._order, i % count, 1, self._key)
            jax.block_until_ready(carry)

        self.runs[name] = run

    def drop(self, name: str) -> None:
        """Forgets a case, if it is there, with its state on the device."""
        self.runs.pop(name, None)
        self.compiled.pop(name, None)

    def add_alternating(self, name: str, rare: str, common: str, *, every: int) -> None:
        """One step of case `rare`, every - 1 of case `common`, and again; blocks should be multiples of `every`."""
        a, b = self.compiled[rare], self.compiled[common]
        flops = (a.flops + (every - 1) * b.flops) / every
        self.compiled[name] = Compiled(a.compile_s + b.compile_s, flops, max(a.peak_bytes, b.peak_bytes))

        def run(steps: int) -> None:
            for i in range(steps):
                self.runs[common if i % every else rare](1)

        self.runs[name] = run
