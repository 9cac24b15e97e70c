"""How much is mixed as training goes on: a strength in [0, 1] as a function of the step.

    strength = make_schedule("cosine", total_steps=58_650, steps_per_epoch=391)
    mixed, mix = mix(key, images, strength=strength(step))

The strength multiplies the probability that a pair (or, with scope "batch", a batch) is mixed; alpha stays as it is.
It is a traced number: nothing is compiled again. A hard stop, the ES of the SEM paper, is another matter
(`mixer.stop_epoch`): its last steps are compiled apart and run no second pass.

| name | strength |
|---|---|
| constant | 1 |
| linear | falls from 1 to 0 at the end |
| cosine | falls from 1 to 0 along half a cosine |
| alternating | 1 in the first, third, ... epoch, 0 in those between |
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array], jax.Array]


def _constant(done: jax.Array, epoch: jax.Array) -> jax.Array:
    del epoch
    return jnp.ones_like(done)


def _linear(done: jax.Array, epoch: jax.Array) -> jax.Array:
    del epoch
    return 1.0 - done


def _cosine(done: jax.Array, epoch: jax.Array) -> jax.Array:
    del epoch
    return 0.5 + 0.5 * jnp.cos(jnp.pi * done)


def _alternating(done: jax.Array, epoch: jax.Array) -> jax.Array:
    return jnp.where(epoch % 2 == 0, jnp.ones_like(done), 0.0)


SCHEDULES = {"constant": _constant, "linear": _linear, "cosine": _cosine, "alternating": _alternating}


def make_schedule(name: str, *, total_steps: int, steps_per_epoch: int) -> Schedule:
    """The strength of mixing at a step.

    Args:
      name: a key of SCHEDULES.
      total_steps: of the mixing stage; from then on the value of its end is kept.
      steps_per_epoch: of the whole training.

    Returns:
      schedule(step i32[]) -> f32[] in [0, 1].
    """
    shape = SCHEDULES[name]

    def schedule(step: jax.Array) -> jax.Array:
        done = jnp.clip(jnp.asarray(step, jnp.float32) / max(total_steps, 1), 0.0, 1.0)
        return shape(done, step // steps_per_epoch)

    return schedule
