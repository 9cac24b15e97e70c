"""Ways to pay less for the penalty than a second pass at every step. None of them is exact; all are off by default.

    tx = with_teacher(tx, decay=0.999)                       # clean features from an average of the weights
    mix = pair_within(mix, clean_items(0.5, batch_size=128))  # the penalty on the first half of the pairs
    objective = average_over_mixes(objective, 2)             # two mixed batches for one clean pass
    step = alternate(with_penalty, without, every=4)         # the penalty in every fourth step

Cost of a step in units of a plain mixup step, by operations: teacher 4/3, fraction 1 + p, every 1 + 1/k, K mixes
(3 K + 3) / 3 for K mixed batches, that is 1 + 1/K for each. The exact step costs 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Metrics, Mix, MixFn


class TeacherState(NamedTuple):
    """optax state: that of the optimizer inside, and the teacher's parameters."""

    inner: Any
    teacher: Any


def with_teacher(tx: optax.GradientTransformation, *, decay: float) -> optax.GradientTransformation:
    """An optimizer that also keeps an exponential moving average of the parameters (Tarvainen and Valpola 2017).

    The average starts at the first parameters and lives in the optimizer's state, so that a checkpoint has it.

    Args:
      tx: the optimizer; its updates are passed on unchanged.
      decay: in [0, 1); teacher = decay teacher + (1 - decay) new parameters, after every update.
    """

    def init(params):
        return TeacherState(tx.init(params), jax.tree.map(jnp.array, params))

    def update(gradient, state, params=None):
        updates, inner = tx.update(gradient, state.inner, params)
        new = optax.apply_updates(params, updates)
        return updates, TeacherState(inner, optax.incremental_update(new, state.teacher, 1.0 - decay))

    return optax.GradientTransformation(init, update)


def clean_items(fraction: float, *, batch_size: int) -> int:
    """How many pairs of a batch the penalty looks at.

    Raises:
      ConfigError: for fewer than two.
    """
    items = round(fraction * batch_size)
    if items < 2:
        raise ConfigError(
            f"objective.penalty_fraction={fraction} of train.batch_size={batch_size} leaves {items} pairs, needs 2"
        )
    return items


def pair_within(mix: MixFn, items: int) -> MixFn:
    """A mix whose first `items` images are paired among themselves, and the others among themselves.

    So the features of those `items` images are all that the penalty of their pairs needs. The order of the data is
    random, hence the first ones are a random part.
    """

    def split(key: jax.Array, images: jax.Array, take: Callable | None = None, **options) -> tuple[jax.Array, Mix]:
        labels = options.pop("labels", None)
        parts = []
        for start, stop, part_key in zip((0, items), (items, len(images)), jax.random.split(key), strict=True):
            more = options if labels is None else {**options, "labels": labels[start:stop]}
            part_take = None if take is None else lambda pairing, start=start: take(pairing + start)
            mixed, drawn = mix(part_key, images[start:stop], part_take, **more)
            parts.append((mixed, drawn._replace(pairing=drawn.pairing + start)))
        return jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)

    return split


def average_over_mixes(objective: Callable, count: int) -> Callable:
    """The mean objective of `count` mixed streams ("mixed", "mixed1", ...) that share the clean one.

    Takes a tuple of `Mix` where the objective takes one.
    """

    def averaged(outputs, batch: Batch, mixes: tuple[Mix, ...], **options) -> tuple[jax.Array, Metrics]:
        clean = {name: of for name, of in outputs.items() if name == "clean"}
        results = [
            objective({"mixed": outputs[mixed_name(k)], **clean}, batch, drawn, **options)
            for k, drawn in enumerate(mixes)
        ]
        return jax.tree.map(lambda *xs: sum(xs) / count, *results)

    return averaged


def mixed_name(k: int) -> str:
    """Name of the k-th mixed stream."""
    return f"mixed{k}" if k else "mixed"


def counted(train_step: Callable) -> Callable:
    """The step with one more metric, clean_steps = 1: it had a clean pass."""

    def step(*arguments):
        state, metrics = train_step(*arguments)
        return state, {**metrics, "clean_steps": jnp.ones(())}

    return step


def alternate(with_penalty: Callable, without: Callable, *, every: int) -> Callable:
    """A step that is `counted(with_penalty)` when state.step is a multiple of `every`, else `without`.

    One program with a branch in it, for a loop on the device. Not for CPU: XLA:CPU's convolutions are 50 times slower
    inside a branch (jax 0.10.2), so there the caller chooses between two programs.
    """

    def step(state, *arguments):
        first = counted(with_penalty)
        names = jax.eval_shape(lambda s: first(s, *arguments)[1], state)

        def plain(state):
            new, metrics = without(state, *arguments)
            return new, {name: metrics.get(name, jnp.zeros(())) for name in names}

        return jax.lax.cond(state.step % every == 0, lambda s: first(s, *arguments), plain, state)

    return step
