"""From a configuration to the parts of a training run. Pure functions: nothing is compiled, read or written.

    lengths = assemble.lengths(cfg, num_images=50_000)
    model = assemble.model(cfg, num_classes=10)
    learning_rate = assemble.learning_rate(cfg, lengths)
    tx = assemble.optimizer(cfg, learning_rate)
    steps = assemble.mixing_steps(cfg, lengths, model, tx, on=Platform(name="cpu", devices=1))

The trainer (`programs`) and the speed experiments put their steps together here, so that what is measured is what is
trained.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from sem_jax.data.pipeline import make_fetch
from sem_jax.interfaces import Dataset, Model, Scorer
from sem_jax.mixers import make_mix, make_mixer
from sem_jax.mixers.saliency import gradient_saliency
from sem_jax.mixers.strength import make_strength
from sem_jax.models import make_model
from sem_jax.objectives.build import Gamma, has_penalty, make_objective, needs_clean_pass
from sem_jax.objectives.sem import rising
from sem_jax.training import shortcuts
from sem_jax.training.draw import draw_clean, make_draw
from sem_jax.training.forward import make_forward
from sem_jax.training.gradient import make_gradient
from sem_jax.training.optim import choose_schedule, make_optimizer, make_schedule
from sem_jax.training.step import TrainStep, make_train_step


class Lengths(NamedTuple):
    """Of a run, in optimizer steps."""

    epoch: int
    total: int


class Platform(NamedTuple):
    """What a step is put together for."""

    name: str  # "cpu", "gpu" or "tpu"
    devices: int

    def looped(self, cfg: ConfigDict) -> bool:
        """Whether the steps of a call loop on the device."""
        return cfg.runtime.loop == "device" or (cfg.runtime.loop == "auto" and self.name != "cpu")

    def stacked(self, cfg: ConfigDict) -> bool:
        """Whether mixed and clean images are run in one pass.

        Stacking puts the passes, not the items, first: over several devices that would move images between them.
        """
        alone = self.devices == 1 and self.name != "cpu"
        return cfg.runtime.passes == "stacked" or (cfg.runtime.passes == "auto" and alone)


def lengths(cfg: ConfigDict, num_images: int) -> Lengths:
    """The steps of an epoch, which drops the remainder, and of the run."""
    epoch = num_images // cfg.train.batch_size
    return Lengths(epoch, epoch * cfg.train.epochs)


def model(cfg: ConfigDict, num_classes: int) -> Model:
    """The backbone."""
    return make_model(**{**cfg.model, "num_classes": num_classes})


def learning_rate(cfg: ConfigDict, lengths: Lengths) -> Callable[..., Any]:
    """The learning rate, step -> f32[]."""
    return make_schedule(
        total_steps=lengths.total,
        learning_rate=cfg.optim.learning_rate,
        schedule=choose_schedule(cfg.optim.schedule, cfg.train.epochs),
        boundaries=cfg.optim.boundaries,
        warmup_steps=round(cfg.optim.warmup_epochs * lengths.epoch),
    )


def optimizer(cfg: ConfigDict, learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """The optimizer, and around it the average of the weights where the clean features are a teacher's."""
    names = ("name", "momentum", "nesterov", "weight_decay")
    tx = make_optimizer(learning_rate, **{name: cfg.optim[name] for name in names})
    if cfg.objective.clean_features == "ema_teacher":
        return shortcuts.with_teacher(tx, decay=cfg.objective.ema_decay)
    return tx


def fetch(cfg: ConfigDict, dataset: Dataset, *, batched: bool, sharding: jax.sharding.NamedSharding | None = None):
    """What makes a training batch of rows of the data set; see `data.pipeline.make_fetch`."""
    return make_fetch(
        mean=dataset.mean,
        std=dataset.std,
        crop_padding=cfg.data.crop_padding,
        flip=cfg.data.flip,
        sharding=sharding,
        batched=batched,
    )


def mixing_steps(
    cfg: ConfigDict,
    lengths: Lengths,
    model: Model,
    tx: optax.GradientTransformation,
    *,
    on: Platform,
    scorer: Scorer | None = None,
) -> tuple[TrainStep, ...]:
    """The step of the mixing stage; with objective.penalty_every = k > 1 the step with the penalty, k times as strong,
    and the one without, of which k - 1 follow each of the first.

    Args:
      cfg: a validated configuration whose mixer is not "none".
      lengths, model, tx: from the functions above.
      on: what the steps are for.
      scorer: the frozen net that a saliency mixer asks, as a function of this run's normalised images.
    """
    with_penalty = _mixing_step(cfg, lengths, model, tx, _gamma(cfg, lengths), on, scorer)
    if cfg.objective.penalty_every == 1:
        return (with_penalty,)
    return with_penalty, _mixing_step(cfg, lengths, model, tx, 0.0, on, scorer, penalised=False)


def plain_step(cfg: ConfigDict, model: Model, tx: optax.GradientTransformation, *, on: Platform) -> TrainStep:
    """The step of ERM and of the last stage of ES."""
    objective = make_objective(gamma=0.0, label_smoothing=cfg.objective.label_smoothing)
    return _step(cfg, model, tx, draw_clean, objective, on)


def _gamma(cfg: ConfigDict, lengths: Lengths) -> Gamma:
    gamma = cfg.objective.gamma * cfg.objective.penalty_every
    steps = round(cfg.objective.gamma_warmup * lengths.total)
    return rising(gamma, steps) if gamma > 0 and steps else gamma


def _mixing_step(cfg, lengths, model, tx, gamma: Gamma, on: Platform, scorer, penalised: bool = True) -> TrainStep:
    o, x = cfg.objective, cfg.mixer
    mixer = make_mixer(x.name, alpha=x.alpha, options=x.options, scorer=scorer)
    mix = make_mix(mixer, scope=x.scope, prob=x.prob, pairing=x.pairing, groups=1 if x.across_device else on.devices)
    items = None
    if o.penalty_fraction < 1 and has_penalty(gamma):
        items = shortcuts.clean_items(o.penalty_fraction, batch_size=cfg.train.batch_size)
        mix = shortcuts.pair_within(mix, items)
    draws = [
        make_draw(
            mix,
            clean_pass=penalised and needs_clean_pass(gamma, o.clean_features, o.regmixup),
            strength=_strength(cfg, lengths),
            saliency=functools.partial(gradient_saliency, model),
            name=f"mixer{k}" if k else "mixer",
        )
        for k in range(o.mixes_per_clean)
    ]
    draw = draws[0] if len(draws) == 1 else shortcuts.draw_together(draws)
    objective = make_objective(
        gamma=gamma,
        clean_features=o.clean_features,
        label_smoothing=o.label_smoothing,
        regmixup=o.regmixup,
        distance=o.distance,
        penalty_pairs=o.penalty_pairs,
    )
    return _step(
        cfg,
        model,
        tx,
        draw if items is None else shortcuts.keep_clean(draw, items),
        objective if len(draws) == 1 else shortcuts.average_over_mixes(objective, len(draws)),
        on,
        teacher=o.clean_features == "ema_teacher" and has_penalty(gamma),
    )


def _strength(cfg: ConfigDict, lengths: Lengths):
    if cfg.mixer.schedule == "constant":
        return 1.0
    mixing = cfg.mixer.stop_epoch * lengths.epoch
    return make_strength(cfg.mixer.schedule, total_steps=mixing, steps_per_epoch=lengths.epoch)


def _step(cfg, model, tx, draw, objective, on: Platform, teacher: bool = False) -> TrainStep:
    forward = make_forward(model, stacked=on.stacked(cfg), bn_running=cfg.objective.bn_running, remat=cfg.runtime.remat)
    gradient_of = make_gradient(
        forward,
        objective,
        micro_batches=cfg.train.gradient_accumulation,
        unroll=on.name == "cpu",
        teacher_of=shortcuts.teacher_of if teacher else None,
    )
    return make_train_step(draw, gradient_of, tx, skip_nonfinite=cfg.train.on_nan == "skip")
