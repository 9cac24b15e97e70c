"""Strength of mixing in [0, 1] as a function of the step.

    strength = make_strength("cosine", total_steps=58_650, steps_per_epoch=391)
    mixed, mix = mix(key, images, strength=strength(step))

The strength multiplies the probability that a pair (or, with scope "batch", a batch) is mixed; alpha stays as it is.
It is a traced number, so nothing is compiled again. The hard stop ES of the SEM paper is `mixer.stop_epoch`: the steps
after it are a program of their own, without a second pass.

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

# name -> (share of the mixing stage that is done f32[], epoch i32[]) -> strength f32[]
STRENGTHS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "constant": lambda done, epoch: jnp.ones_like(done),
    "linear": lambda done, epoch: 1.0 - done,
    "cosine": lambda done, epoch: 0.5 + 0.5 * jnp.cos(jnp.pi * done),
    "alternating": lambda done, epoch: jnp.where(epoch % 2 == 0, jnp.ones_like(done), 0.0),
}


def make_strength(name: str, *, total_steps: int, steps_per_epoch: int) -> Callable[[jax.Array], jax.Array]:
    """strength(step i32[]) -> f32[] in [0, 1].

    Args:
      name: a key of STRENGTHS.
      total_steps: length of the mixing stage; after it the last value is kept.
      steps_per_epoch: length of an epoch.
    """
    shape = STRENGTHS[name]

    def strength(step: jax.Array) -> jax.Array:
        done = jnp.clip(jnp.asarray(step, jnp.float32) / max(total_steps, 1), 0.0, 1.0)
        return shape(done, step // steps_per_epoch)

    return strength
