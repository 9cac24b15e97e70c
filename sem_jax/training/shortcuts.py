"""Cheaper forms of the penalty, without a full second pass at every step. They are not exact, and off by default.

    mix = make_mix(mixer, first=64)                          # the penalty on the first 64 pairs:
    draw = keep_clean(make_draw(mix, clean_pass=True), 64)
    draw = draw_together([first, second])                    # two mixed batches for one clean pass:
    objective = average_over_mixes(objective, 2)
    advance = alternate(with_penalty, without, every=4)      # the penalty in every fourth step

Operations of a step, relative to plain mixup: exact 2; teacher 4/3; on a fraction p of the pairs 1 + p; at every k-th
step 1 + 1/k; with K mixed batches 1 + 1/K for each of them.
"""

from collections.abc import Callable, Sequence

import jax

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Metrics, Mix
from sem_jax.runs.state import TrainState
from sem_jax.training.calls import Advance
from sem_jax.training.draw import Draw


def clean_items(fraction: float, *, batch_size: int) -> int:
    """How many pairs of a batch have a penalty; a ConfigError where they are fewer than two."""
    items = round(fraction * batch_size)
    if items < 2:
        raise ConfigError(
            f"objective.penalty_fraction={fraction} of train.batch_size={batch_size} leaves {items} pairs, needs 2"
        )
    return items


def keep_clean(draw: Draw, items: int) -> Draw:
    """A draw whose clean pass has the first `items` images only, for a mix that pairs these among themselves.

    The order of the data is random, so they are a random part.
    """

    def fewer(state, batch: Batch, key, take=None):
        passes, mix = draw(state, batch, key, take)
        return {**passes, "clean": batch.images[:items]}, mix

    return fewer


def draw_together(draws: Sequence[Draw]) -> Draw:
    """Several mixed passes ("mixed", "mixed1", ...) that share a clean one, and a tuple of their `Mix`."""

    def together(state, batch: Batch, key, take=None):
        found = [draw(state, batch, key, take) for draw in draws]
        mixed = {_mixed_name(k): passes["mixed"] for k, (passes, _) in enumerate(found)}
        return mixed | _clean_of(found[0][0]), tuple(mix for _, mix in found)

    return together


def average_over_mixes(objective: Callable, count: int) -> Callable:
    """The mean objective of `count` mixed passes that share the clean one; takes a tuple of `Mix`."""

    def averaged(outputs, batch: Batch, mixes: tuple[Mix, ...], step=None) -> tuple[jax.Array, Metrics]:
        clean = _clean_of(outputs)
        results = [
            objective({"mixed": outputs[_mixed_name(k)]} | clean, batch, mix, step) for k, mix in enumerate(mixes)
        ]
        return jax.tree.map(lambda *xs: sum(xs) / count, *results)

    return averaged


def _mixed_name(k: int) -> str:
    return f"mixed{k or ''}"


def _clean_of(passes):
    return {name: value for name, value in passes.items() if name == "clean"}


def alternate(with_penalty: Advance, without: Advance, *, every: int) -> Advance:
    """`with_penalty` where state.step is a multiple of `every`, else `without`.

    One program with a branch in it, for a loop on the device. On CPU the caller should choose between two programs
    instead: XLA:CPU's convolutions are 50 times slower inside a branch (jax 0.10.2).
    """

    def advance(state: TrainState, *arguments):
        return jax.lax.cond(state.step % every == 0, with_penalty, without, state, *arguments)

    return advance
