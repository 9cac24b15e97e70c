"""Many steps in one compiled call, their metrics summed on the device.

advance = make_advance(train_step, fetch)
call = make_call(advance, looped=True)
sums = zero_sums([train_step], fetch, state, data, rows, key)
state, sums = call(state, sums, data, order, 0, 50, key)
sums.means["loss"].value
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.errors import RunError, one_line
from sem_jax.interfaces import Key, Mean
from sem_jax.runs.state import TrainState
from sem_jax.training.step import TrainStep

LOOPS = ("auto", "device", "host")
Advance = Callable[..., tuple[TrainState, "Sums"]]


class Sums(NamedTuple):
    """Metrics summed over a stretch of steps."""

    means: dict[str, Mean]  # of each metric, over the finite steps that have it
    bad_steps: Any  # i32[], how many were not finite
    first_bad: Any  # i32[], the first of them; -1 = none
    first_bad_parts: Any  # i32[], its not_finite


def zero_sums(
    train_steps: Sequence[TrainStep], fetch: Callable, state: TrainState, data: Any, rows: jax.Array, key: Key
) -> Sums:
    """Empty sums of all metrics of the steps, which are traced and not run."""

    def metrics(state, data, rows, key):
        batch, take = fetch(data, rows, key, state.step)
        return [train_step(state, batch, key, take)[1] for train_step in train_steps]

    names = set().union(*jax.eval_shape(metrics, state, data, rows, key)) - {"finite", "not_finite"}
    means = {name: Mean(jnp.zeros(()), jnp.zeros(())) for name in sorted(names)}
    return Sums(means, *(jnp.full((), value, jnp.int32) for value in (0, -1, 0)))


def make_advance(train_step: TrainStep, fetch: Callable) -> Advance:
    """Fetches a batch, makes a step and adds its metrics to the sums.

    Args:
      fetch: (data, rows i32[b], key, step) -> (Batch, take), from `data.pipeline.make_fetch`.

    Returns:
      advance(state, sums, data, rows, key) -> (state, sums). Metrics that this step does not have keep their sums.
    """

    def advance(state: TrainState, sums: Sums, data: Any, rows: jax.Array, key: Key) -> tuple[TrainState, Sums]:
        batch, take = fetch(data, rows, key, state.step)
        new, metrics = train_step(state, batch, key, take)
        finite = metrics.pop("finite") > 0
        parts = metrics.pop("not_finite").astype(jnp.int32)
        means = {
            name: Mean(sums.means[name].total + jnp.where(finite, value, 0.0), sums.means[name].count + finite)
            for name, value in metrics.items()
        }
        first = (sums.first_bad < 0) & ~finite
        return new, Sums(
            sums.means | means,
            sums.bad_steps + ~finite,
            jnp.where(first, state.step, sums.first_bad),
            jnp.where(first, parts, sums.first_bad_parts),
        )

    return advance


def make_call(advance: Advance, *, looped: bool) -> Callable:
    """The compiled call of an `advance`.

    The number of steps is an argument of the compiled loop, not a constant in it. So one program serves every length,
    and a run that stops anywhere and continues is computed by the same instructions.

    On CPU `looped` should be false: the gradients of a looped step run 10 to 18 times slower there (jax 0.10.2),
    because XLA:CPU prepares convolutions for its fast kernels only outside of loops.

    Returns:
      call(state, sums, data, order i32[n b], first, count, key) -> (state, sums), jitted, state and sums donated:
      runs the steps with the rows order[first : first + count]; without `looped`, the one step order[first].
    """

    def call(state, sums, data, order, first, count, key):
        if not looped:
            return advance(state, sums, data, order[first], key)
        return jax.lax.fori_loop(0, count, lambda i, carry: advance(*carry, data, order[first + i], key), (state, sums))

    return jax.jit(call, donate_argnums=(0, 1))


def to_plain(sums: Sums) -> dict:
    """Sums as JSON, for a checkpoint in the middle of an epoch."""
    host = jax.tree.map(lambda x: np.asarray(x).item(), sums)
    return host._asdict() | {"means": {name: list(mean) for name, mean in host.means.items()}}


def from_plain(values: dict, like: Sums) -> Sums:
    """The inverse of `to_plain`, with the metrics and dtypes of `like`; it reads the form of version 0.1.0 too."""
    if "means" not in values:  # 0.1.0: one flat dictionary of totals and of numbers of steps
        of_clean = ("penalty", "gamma", "feature_norm", "clean_accuracy")
        steps = values["finite"]
        counts = {name: values.get("clean_steps", steps) if name in of_clean else steps for name in values}
        values = values | {"means": {name: (values[name], counts[name]) for name in like.means if name in values}}
    means = like.means | {name: Mean(*mean) for name, mean in values["means"].items() if name in like.means}
    saved = Sums(means, *(values[name] for name in Sums._fields[1:]))
    return jax.tree.map(lambda value, zero: np.asarray(value, zero.dtype), saved, like)


def read_progress(progress: dict, like: Sums) -> tuple[Sums, float]:
    """(sums, seconds) of the steps that an epoch had when a checkpoint was saved in its middle.

    Raises:
      RunError: it is not as a run writes it.
    """
    try:
        return from_plain(progress["sums"], like), float(progress.get("seconds", 0.0))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"the checkpoint's progress within its epoch is not as a run writes it: {one_line(error)}"
        raise RunError(message, "Delete that checkpoint; the one before it is continued.") from None
