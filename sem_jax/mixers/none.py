"""No mixing: the anchor with lam = 1, so that ERM goes through the same functions."""

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key
from sem_jax.mixers.mixer import Mixer
from sem_jax.mixers.mixup import MixupDraw


def sample_none(key: Key, image_shape: tuple[int, int, int]) -> MixupDraw:
    """lam = 1, whatever the key."""
    del key, image_shape
    return MixupDraw(jnp.ones((), jnp.float32))


def apply_none(draw: MixupDraw, anchor: jax.Array, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(anchor, lam): the pixels stay as they are."""
    del partner
    return anchor, draw.lam


def make_none(*, alpha: float = 1.0) -> Mixer:
    """The mixer that mixes nothing. alpha is unused; every row takes it."""
    del alpha
    return Mixer(sample_none, apply_none)
