"""Exponential moving averages of the weights, kept in the state beside them: the teacher's, and those that are scored.

averages = {"ema": Average(variables_of, warmed_up(0.9999))}
state = start(averages, state)                    # state.averages["ema"] = {"params": ..., "batch_stats": ...}
train_step = with_averages(train_step, averages)
averaged(state)                                   # a state whose weights are the average, to be scored
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sem_jax.interfaces import Batch, Key
from sem_jax.runs.state import TrainState
from sem_jax.training.draw import Take
from sem_jax.training.step import TrainStep


class Average(NamedTuple):
    """What is averaged, and the share of the new value in each step: a number, or a function of the step."""

    of: Callable[[TrainState], Any]
    rate: float | Callable[[jax.Array], jax.Array]


def params_of(state: TrainState) -> Any:
    """What a mean teacher averages (Tarvainen and Valpola 2017)."""
    return state.params


def variables_of(state: TrainState) -> dict[str, Any]:
    """What is scored: the parameters and BatchNorm's running averages, as timm's and TensorFlow's EfficientNet have it.

    The statistics of averaged weights are not the average of the statistics. But they are close, and need no pass over
    the data.
    """
    return {"params": state.params, "batch_stats": state.batch_stats}


def warmed_up(decay: float) -> Callable[[jax.Array], jax.Array]:
    """The rate of an average whose decay after step t is min(decay, (1 + t) / (10 + t)).

    So the first weights, which are random, are soon forgotten. `tf.train.ExponentialMovingAverage` with `num_updates`
    has the same rule.

    >>> rate = warmed_up(0.99)
    >>> [round(1 - float(rate(t)), 3) for t in (1, 90, 100_000)]
    [0.182, 0.91, 0.99]
    """
    return lambda step: jnp.maximum(1.0 - decay, 9.0 / (10.0 + step))


def start(averages: Mapping[str, Average], state: TrainState) -> TrainState:
    """The state with copies of its values as the first averages."""
    return state._replace(averages={name: jax.tree.map(jnp.copy, it.of(state)) for name, it in averages.items()})


def with_averages(train_step: TrainStep, averages: Mapping[str, Average]) -> TrainStep:
    """A step that also moves the averages towards the new values; where it was not finite, they stay."""
    if not averages:
        return train_step

    def averaging(state: TrainState, batch: Batch, key: Key, take: Take | None = None):
        new, metrics = train_step(state, batch, key, take)

        def follow(average: Average, old: Any) -> Any:
            rate = average.rate(new.step) if callable(average.rate) else average.rate
            moved = optax.incremental_update(average.of(new), old, rate)
            return jax.tree.map(lambda a, b: jnp.where(metrics["finite"] > 0, a, b), moved, old)

        return new._replace(averages={name: follow(it, state.averages[name]) for name, it in averages.items()}), metrics

    return averaging


def averaged(state: TrainState) -> TrainState | None:
    """The state with the averaged weights; None where none are kept."""
    return state._replace(**state.averages["ema"]) if "ema" in state.averages else None
