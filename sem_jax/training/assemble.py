"""Makes the parts of a training run from a configuration. Pure functions: nothing is compiled, read or written.

    check(cfg, dataset, on=Platform(name="cpu", devices=1))     # ConfigError if they do not work together
    lengths = assemble.lengths(cfg, num_images=50_000)
    model = assemble.model(cfg, num_classes=10)
    learning_rate = assemble.learning_rate(cfg, lengths)
    tx = assemble.optimizer(cfg, learning_rate)
    steps = assemble.mixing_steps(cfg, lengths, model, tx, on=Platform(name="cpu", devices=1))

The trainer (`programs`) and the speed experiments both use these functions, so that the step that is timed is the step
that trains.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sem_jax.config.fields import Rules, enforce
from sem_jax.data.pipeline import make_fetch
from sem_jax.data.randaugment import RandAugment
from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Dataset, Model, Scorer
from sem_jax.mixers import make_mix, make_mixer
from sem_jax.mixers.saliency import gradient_saliency
from sem_jax.mixers.strength import make_strength
from sem_jax.models import make_model
from sem_jax.models.table import check_count
from sem_jax.objectives.build import Gamma, has_penalty, make_objective, needs_clean_pass
from sem_jax.objectives.sem import rising
from sem_jax.registry import blamed
from sem_jax.runs.state import init_state
from sem_jax.training import shortcuts
from sem_jax.training.averages import Average, params_of, start, variables_of, warmed_up, with_averages
from sem_jax.training.calls import make_advance, make_call
from sem_jax.training.draw import draw_clean, make_draw
from sem_jax.training.forward import make_forward
from sem_jax.training.freeze import Frozen, names_of
from sem_jax.training.gradient import make_gradient
from sem_jax.training.optim import choose_schedule, make_optimizer, make_schedule
from sem_jax.training.step import TrainStep, make_train_step


class Lengths(NamedTuple):
    """Optimizer steps of an epoch and of the run."""

    epoch: int
    total: int


class Platform(NamedTuple):
    """The hardware that a step is made for."""

    name: str  # "cpu", "gpu" or "tpu"
    devices: int

    def looped(self, cfg: ConfigDict) -> bool:
        """Whether the steps of a call loop on the device."""
        return cfg.runtime.loop == "device" or (cfg.runtime.loop == "auto" and self.name != "cpu")

    def stacked(self, cfg: ConfigDict) -> bool:
        """Whether the passes are run in one call.

        On several devices that would move images between them. On a TPU it is slower by XLA's own estimate.
        """
        alone = self.devices == 1 and self.name == "gpu"
        return cfg.runtime.passes == "stacked" or (cfg.runtime.passes == "auto" and alone)


def check(cfg: ConfigDict, dataset: Dataset, *, on: Platform, scorer: Scorer | None = None) -> None:
    """Refuses a configuration that cannot work with its data. Functions are traced; nothing is compiled or allocated.

    Args:
      cfg: a configuration that `config.validate` accepts.
      scorer: as `mixing_steps` takes it.

    Raises:
      ConfigError: names the field. What a model or mixer raises while it is traced becomes one, too.
    """
    train, classes, batch_size = dataset.splits["train"], len(dataset.class_names), cfg.train.batch_size
    shape, of_run = train.images.shape[1:], lengths(cfg, len(train.labels))
    enforce(cfg, _rules_with_data(cfg, of_run, shape, len(train.labels), classes))
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = jax.eval_shape(
        lambda: Batch(jnp.zeros((batch_size, *shape)), jnp.zeros(batch_size, jnp.int32), jnp.ones(batch_size))
    )
    named = f"model.name={cfg.model.name!r}"
    with blamed(f"{named} cannot take images of {'x'.join(map(str, shape))}"):
        net, tx = model(cfg, classes), optimizer(cfg, learning_rate(cfg, of_run))
        state = jax.eval_shape(lambda key: start(averages(cfg), init_state(net, tx, key, image_shape=shape)), key)
        check_count(cfg.model.name, sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        found = jax.eval_shape(lambda v, images: net.apply(v, images, train=False), variables, batch.images)
    _check_frozen(cfg, state.params)
    if found.features.shape[:-1] != (batch_size,) or found.logits.shape != (batch_size, classes):
        got = f"{found.features.shape} and {found.logits.shape}"
        raise ConfigError(
            f"{named} must return features [{batch_size} d] and logits [{batch_size} {classes}], got {got}"
        )
    with blamed(f"{named} does not work with mixer.name={cfg.mixer.name!r} and mixer.options={cfg.mixer.options!r}"):
        if _mixing_steps_of(cfg, of_run):
            step = mixing_steps(cfg, of_run, net, tx, on=on, scorer=scorer)[0]  # the plain step is a part of it
        else:
            step = plain_step(cfg, net, tx, on=on)
        jax.eval_shape(step, state, batch, key)


def _mixing_steps_of(cfg: ConfigDict, lengths: Lengths) -> int:
    return 0 if cfg.mixer.name == "none" else cfg.mixer.stop_epoch * lengths.epoch


def _rules_with_data(cfg: ConfigDict, lengths: Lengths, shape: tuple[int, ...], count: int, classes: int) -> Rules:
    yield "model.num_classes", cfg.model.num_classes in (0, classes), f"0 or {classes}, the classes of the data"
    yield "train.batch_size", cfg.train.batch_size <= count, f"at most {count}, the training images"
    most = (2**31 - 1) // max(lengths.epoch, 1)
    yield "train.epochs", cfg.train.epochs <= most, f"at most {most}: an int32 counts the {lengths.epoch} steps of each"
    side, mixing = min(shape[:2]), _mixing_steps_of(cfg, lengths)
    yield "data.crop_padding", cfg.data.crop_padding <= side, f"at most {side}, the side of the images"
    every = cfg.objective.penalty_every
    yield "objective.penalty_every", every <= max(mixing, 1), f"at most {mixing}, the steps with mixing"


def _check_frozen(cfg: ConfigDict, params: Any) -> None:
    frozen = Frozen(cfg.optim.freeze)
    if frozen:
        frozen.check(params)
        probe = frozen.only_head(names_of(params))
        none = f"0 with optim.freeze={cfg.optim.freeze!r}: frozen features have no gradient of the penalty"
        enforce(cfg, iter([("objective.gamma", not probe or cfg.objective.gamma == 0, none)]))


def lengths(cfg: ConfigDict, num_images: int) -> Lengths:
    """The lengths of a run; an epoch drops the remainder."""
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
    """The optimizer."""
    names = ("name", "momentum", "nesterov", "weight_decay", "clip_norm")
    tx = make_optimizer(learning_rate, **{name: cfg.optim[name] for name in names})
    return Frozen(cfg.optim.freeze).optimizer(tx)


def averages(cfg: ConfigDict) -> dict[str, Average]:
    """The moving averages that the state keeps: "teacher", for the clean features, and "ema", which is scored."""
    found = {}
    if cfg.objective.clean_features == "ema_teacher":
        found["teacher"] = Average(params_of, 1.0 - cfg.objective.ema_decay)
    if cfg.optim.ema_decay:
        found["ema"] = Average(variables_of, warmed_up(cfg.optim.ema_decay))
    return found


def fetch(
    cfg: ConfigDict,
    dataset: Dataset,
    *,
    on: Platform,
    batched: bool,
    sharding: jax.sharding.NamedSharding | None = None,
):
    """The function that makes a training batch of rows of the data set; see `data.pipeline.make_fetch`."""
    return make_fetch(
        image_shape=dataset.splits["train"].images.shape[1:],
        mean=dataset.mean,
        std=dataset.std,
        crop_padding=cfg.data.crop_padding,
        flip=cfg.data.flip,
        tpu=on.name == "tpu",
        randaugment=RandAugment(cfg.data.randaugment, cfg.data.randaugment_magnitude),
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
    """The step of the mixing stage, or two where objective.penalty_every = k > 1.

    The first of the two has the penalty, k times as strong; k - 1 steps without penalty follow it.

    Args:
      cfg: a validated configuration with a mixer.
      scorer: the frozen net of a saliency mixer, a function of this run's normalised images.
    """
    with_penalty = _mixing_step(cfg, lengths, model, tx, _gamma(cfg, lengths), on, scorer)
    if cfg.objective.penalty_every == 1:
        return (with_penalty,)
    return with_penalty, _mixing_step(cfg, lengths, model, tx, 0.0, on, scorer, penalised=False)


def plain_step(cfg: ConfigDict, model: Model, tx: optax.GradientTransformation, *, on: Platform) -> TrainStep:
    """The step of ERM and of the last stage of ES."""
    objective = make_objective(gamma=0.0, label_smoothing=cfg.objective.label_smoothing)
    return _step(cfg, model, tx, draw_clean, objective, on)


def calls(cfg: ConfigDict, steps: tuple[TrainStep, ...], fetch: Callable, *, looped: bool) -> list[Callable]:
    """The jitted calls of a stage; two where steps with and without penalty alternate and the host chooses."""
    advances = [make_advance(step, fetch) for step in steps]
    if looped and len(advances) > 1:
        advances = [shortcuts.alternate(*advances, every=cfg.objective.penalty_every)]
    return [make_call(advance, looped=looped) for advance in advances]


def _gamma(cfg: ConfigDict, lengths: Lengths) -> Gamma:
    gamma = cfg.objective.gamma * cfg.objective.penalty_every
    steps = round(cfg.objective.gamma_warmup * lengths.total)
    return rising(gamma, steps) if gamma > 0 and steps else gamma


def _mixing_step(cfg, lengths, model, tx, gamma: Gamma, on: Platform, scorer, penalised: bool = True) -> TrainStep:
    o, x = cfg.objective, cfg.mixer
    mixer = make_mixer(x.name, alpha=x.alpha, options=x.options, scorer=scorer)
    groups = 1 if x.across_device else on.devices
    items = 0  # pairs with a penalty; 0 = all
    if o.penalty_fraction < 1 and has_penalty(gamma):
        items = shortcuts.clean_items(o.penalty_fraction, batch_size=cfg.train.batch_size)
    mix = make_mix(mixer, scope=x.scope, prob=x.prob, pairing=x.pairing, groups=groups, first=items)
    clean_pass = penalised and needs_clean_pass(gamma, o.clean_features, o.regmixup)
    strength, saliency = _strength(cfg, lengths), functools.partial(gradient_saliency, model)
    draws = [
        make_draw(mix, clean_pass=clean_pass, strength=strength, saliency=saliency, name=f"mixer{k or ''}")
        for k in range(o.mixes_per_clean)
    ]
    names = ("clean_features", "label_smoothing", "regmixup", "distance", "penalty_pairs")
    draw, objective = draws[0], make_objective(gamma=gamma, groups=groups, **{name: o[name] for name in names})
    if len(draws) > 1:
        draw, objective = shortcuts.draw_together(draws), shortcuts.average_over_mixes(objective, len(draws))
    if items:
        draw = shortcuts.keep_clean(draw, items)
    teacher = o.clean_features == "ema_teacher" and has_penalty(gamma)
    return _step(cfg, model, tx, draw, objective, on, teacher)


def _strength(cfg: ConfigDict, lengths: Lengths):
    if cfg.mixer.schedule == "constant":
        return 1.0
    mixing = cfg.mixer.stop_epoch * lengths.epoch
    return make_strength(cfg.mixer.schedule, total_steps=mixing, steps_per_epoch=lengths.epoch)


def _step(cfg, model, tx, draw, objective, on: Platform, teacher: bool = False) -> TrainStep:
    frozen = Frozen(cfg.optim.freeze)
    model = frozen.model(model)
    forward = make_forward(
        model,
        stacked=on.stacked(cfg),
        ordered=on.name == "tpu" and on.devices == 1,  # of several, the passes share collectives
        bn_running=cfg.objective.bn_running,
        remat=cfg.runtime.remat,
    )
    gradient_of = make_gradient(
        forward,
        objective,
        micro_batches=cfg.train.gradient_accumulation,
        unroll=on.name == "cpu",
        teacher_of=(lambda state: state.averages["teacher"]) if teacher else None,
    )
    gradient_of = frozen.gradient(gradient_of)
    train_step = make_train_step(draw, gradient_of, tx, skip_nonfinite=cfg.train.on_nan == "skip")
    return with_averages(train_step, averages(cfg))
