"""Gaussian, shot and impulse noise (Hendrycks & Dietterich 2019, severities of the CIFAR sets).

`*_tables` turns the parameters of a severity into arrays, `draw_*` is the random half and `apply_*` the deterministic
half of a corruption; see corruption.py for shapes and units.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from sem_jax.evaluation.corruptions.corruption import ROUNDING, Corruption, Shape, of_one


def gaussian_tables(parameters: tuple[float], shape: Shape) -> np.float32:
    """Standard deviation in grey levels."""
    return np.float32(255 * parameters[0])


def draw_gaussian(key: jax.Array, shape: Shape) -> jax.Array:
    """Standard normal, f32[h w c]."""
    return jax.random.normal(key, shape)


def apply_gaussian(draw: jax.Array, image: jax.Array, sigma: jax.Array) -> jax.Array:
    """x + sigma * n, clipped; parameters (sigma,)."""
    return jnp.clip(image + sigma * draw, 0, 255)


GAUSSIAN_NOISE = Corruption(of_one(0.04, 0.06, 0.08, 0.09, 0.10), apply_gaussian, gaussian_tables, draw_gaussian)


def shot_tables(parameters: tuple[float], shape: Shape) -> np.ndarray:
    """cdf[x, g] = P(floor(255 min(K / c, 1)) <= g) with K ~ Poisson(c x / 255), f32[256 256]."""
    (photons,) = parameters
    counts = np.arange(int(np.ceil(photons)) + 1)
    levels = np.minimum(np.floor(255 * counts / photons + ROUNDING), 255)
    last_count = np.searchsorted(levels, np.arange(256), side="right") - 1
    cdf = np.asarray(special.pdtr(last_count[None, :], photons * np.arange(256)[:, None] / 255))
    cdf[:, 255] = 1
    return cdf.astype(np.float32)


def draw_uniform(key: jax.Array, shape: Shape) -> jax.Array:
    """Uniform in (0, 1), f32[h w c]; never 0, the quantile of an event of probability 0."""
    return jax.random.uniform(key, shape, minval=2.0**-24)


def apply_shot(draw: jax.Array, image: jax.Array, cdf: jax.Array) -> jax.Array:
    """Poisson(c x) / c, clipped; parameters (c,), the photons of a white pixel.

    The count is the Poisson quantile of a uniform draw. So the random half does not depend on the image, and eight
    look-ups a pixel replace the rejection loop of a Poisson generator.
    """
    value = image.astype(jnp.int32)
    level = jnp.zeros_like(value)
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
        level = jnp.where(cdf[value, level + (step - 1)] < draw, level + step, level)
    return level.astype(jnp.float32)


SHOT_NOISE = Corruption(of_one(500, 250, 100, 75, 50), apply_shot, shot_tables, draw_uniform)


def apply_impulse(draw: jax.Array, image: jax.Array, amount: jax.Array) -> jax.Array:
    """Salt and pepper; parameters (amount,), the share of the values that are replaced.

    As in the original, every channel is replaced on its own. A value with a draw below amount / 2 becomes 0, one below
    amount becomes 255. The original draws two numbers (hit or not; black or white), with the same distribution.
    """
    return jnp.where(draw < amount / 2, 0.0, jnp.where(draw < amount, 255.0, image))


IMPULSE_NOISE = Corruption(of_one(0.01, 0.02, 0.03, 0.05, 0.07), apply_impulse, draw=draw_uniform)
