"""Draws who is mixed with whom, and makes the images that the passes of a step are given.

draw = make_draw(make_mix(MIXERS["cutmix"](alpha=1.0)), clean_pass=True)
passes, mix = draw(state, batch, key)       # {"mixed": ..., "clean": ...}, Mix(lam, pairing)
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from sem_jax.interfaces import Batch, Key, MixFn
from sem_jax.rngs import key_for
from sem_jax.runs.state import TrainState
from sem_jax.training.forward import Passes

Draw = Callable[..., tuple[Passes, Any]]
Take = Callable[[jax.Array], jax.Array]


def draw_clean(state: TrainState, batch: Batch, key: Key, take: Take | None = None) -> tuple[Passes, None]:
    """The draw of a step without mixing (ERM, and the last stage of ES): the batch as it is."""
    del state, key, take
    return {"clean": batch.images}, None


def make_draw(
    mix: MixFn,
    *,
    clean_pass: bool,
    strength: float | Callable[[jax.Array], jax.Array] = 1.0,
    saliency: Callable[..., jax.Array] | None = None,
    name: str = "mixer",
) -> Draw:
    """The draw of a mixing step.

    Args:
      mix: from `mixers.make_mix`.
      clean_pass: whether the clean images are run beside the mixed ones; the penalty needs them.
      strength: in [0, 1], multiplies the probability of mixing; or a function of the step (`mixers.make_strength`).
      saliency: (variables, images, labels) -> f32[b gh gw], computed for mixers that use the saliency of the net in
        training.
      name: names the random key.

    Returns:
      draw(state, batch, key, take=None) -> (passes, Mix). `key` is the run's key: name and step are folded in here.
      `take(pairing)` fetches the partners' images (see `mixers.make_mix`).
    """

    def draw(state: TrainState, batch: Batch, key: Key, take: Take | None = None):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        now = strength(state.step) if callable(strength) else strength
        mixed, drawn = mix(
            key_for(key, name, state.step),
            batch.images,
            take,
            labels=batch.labels,
            strength=None if isinstance(now, float) and now == 1.0 else now,
            scorer=None if saliency is None else functools.partial(saliency, variables),
        )
        return {"mixed": mixed} | ({"clean": batch.images} if clean_pass else {}), drawn

    return draw
