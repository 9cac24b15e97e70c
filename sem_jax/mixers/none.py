"""No mixing: the anchor with lam = 1, so that ERM goes through the same functions.

mixed, lam = make_none().apply(draw, anchor, partner)     # anchor, 1.0
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key
from sem_jax.mixers.mixer import Mixer


class NoneDraw(NamedTuple):
    lam: jax.Array  # f32[], always 1


def sample_none(key: Key, image_shape: tuple[int, int, int]) -> NoneDraw:
    """lam = 1, whatever the key."""
    del key, image_shape
    return NoneDraw(jnp.ones(()))


def apply_none(draw: NoneDraw, anchor: jax.Array, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(anchor, 1)."""
    del partner
    return anchor, draw.lam


def make_none(*, alpha: float = 1.0) -> Mixer:
    """The mixer that mixes nothing; alpha is accepted and unused, as every row takes it."""
    del alpha
    return Mixer(sample_none, apply_none)
