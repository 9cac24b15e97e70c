"""SmoothMix (Lee et al. 2020): the anchor under a Gaussian bell, the partner around it.

lam is the mean of the anchor's mask. (One library swaps the two images: its labels are off by 0.24 on average.)
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key
from sem_jax.mixers.masks import blend
from sem_jax.mixers.mixer import Mixer, check_alpha, require


class SmoothmixDraw(NamedTuple):
    row: jax.Array  # of the centre, f32[] in pixels
    column: jax.Array
    sigma: jax.Array  # standard deviation as a share of each side, f32[]


def sample_smoothmix(
    key: Key, image_shape: tuple[int, int, int], *, min_sigma: float = 0.25, max_sigma: float = 0.5
) -> SmoothmixDraw:
    """A centre uniform over the image, sigma ~ U(min_sigma, max_sigma)."""
    row_key, column_key, sigma_key = jax.random.split(key, 3)
    return SmoothmixDraw(
        jax.random.uniform(row_key, (), jnp.float32, maxval=image_shape[0]),
        jax.random.uniform(column_key, (), jnp.float32, maxval=image_shape[1]),
        jax.random.uniform(sigma_key, (), jnp.float32, min_sigma, max_sigma),
    )


def apply_smoothmix(draw: SmoothmixDraw, anchor: jax.Array, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """G x_i + (1 - G) x_j with G = exp(-d^2 / (2 sigma^2)), and lam = mean(G); see `Mixer.apply`.

    d is the distance from the centre as a share of the sides.
    """
    height, width, _ = anchor.shape
    rows = jnp.exp(-0.5 * jnp.square((jnp.arange(height) + 0.5 - draw.row) / (height * draw.sigma)))
    columns = jnp.exp(-0.5 * jnp.square((jnp.arange(width) + 0.5 - draw.column) / (width * draw.sigma)))
    return blend(rows[:, None] * columns[None, :], anchor, partner)


def make_smoothmix(*, alpha: float = 1.0, min_sigma: float = 0.25, max_sigma: float = 0.5) -> Mixer:
    """SmoothMix.

    Args:
      alpha: unused; every row takes it.
      min_sigma, max_sigma: smallest (> 0) and largest standard deviation of the bell as a share of the sides.
    """
    check_alpha(alpha)
    fitting = 0.0 < min_sigma <= max_sigma < float("inf")
    require(fitting, "smoothmix needs 0 < min_sigma <= max_sigma", min_sigma, max_sigma)
    return Mixer(partial(sample_smoothmix, min_sigma=min_sigma, max_sigma=max_sigma), apply_smoothmix)
