"""Gaussian, shot and impulse noise (Hendrycks & Dietterich 2019, severities of the CIFAR sets).

Every corruption is three functions: `*_tables` turns a row of the severity table into arrays on the host, `draw_*`
is the random half for one image, `apply_*` the deterministic half. Images are grey levels in [0, 255], float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

# Added before a result is cut down to whole grey levels, so that a value that is whole but for a float32 rounding
# (99.99999) does not lose a level.
ROUNDING = 1e-4


def gaussian_tables(parameters: tuple[float], shape: tuple[int, int, int]) -> np.float32:
    """Standard deviation in grey levels."""
    return np.float32(255 * parameters[0])


def draw_gaussian(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Standard normal, f32[h w c]."""
    return jax.random.normal(key, shape)


def apply_gaussian(draw: jax.Array, image: jax.Array, sigma: jax.Array) -> jax.Array:
    """x + sigma * n, clipped; parameters (sigma,) with x in [0, 1]."""
    return jnp.clip(image + sigma * draw, 0, 255)


def shot_tables(parameters: tuple[float], shape: tuple[int, int, int]) -> np.ndarray:
    """cdf[x, g] = P(floor(255 min(K / c, 1)) <= g) with K ~ Poisson(c x / 255), f32[256 256]."""
    (photons,) = parameters
    counts = np.arange(int(np.ceil(photons)) + 1)
    levels = np.minimum(np.floor(255 * counts / photons + ROUNDING), 255)
    last_count = np.searchsorted(levels, np.arange(256), side="right") - 1
    cdf = special.pdtr(last_count[None, :], photons * np.arange(256)[:, None] / 255)
    cdf[:, 255] = 1
    return cdf.astype(np.float32)


def draw_uniform(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Uniform in (0, 1), f32[h w c]; never 0, which would stand for an event of probability 0."""
    return jax.random.uniform(key, shape, minval=2.0**-24)


def apply_shot(draw: jax.Array, image: jax.Array, cdf: jax.Array) -> jax.Array:
    """Poisson(c x) / c, clipped; parameters (c,), the photons of a white pixel, with x in [0, 1].

    The draw is a uniform number and the count its Poisson quantile: the same distribution as a Poisson generator,
    with a random half that doesn't depend on the image, and eight look-ups a pixel instead of a rejection loop.
    """
    value = image.astype(jnp.int32)
    level = jnp.zeros_like(value)
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
        level = jnp.where(cdf[value, level + (step - 1)] < draw, level + step, level)
    return level.astype(jnp.float32)


def impulse_tables(parameters: tuple[float], shape: tuple[int, int, int]) -> np.float32:
    """Share of the values that are replaced."""
    return np.float32(parameters[0])


def apply_impulse(draw: jax.Array, image: jax.Array, amount: jax.Array) -> jax.Array:
    """Salt and pepper; parameters (amount,). Every value of every channel by itself, as in the original.

    A value whose draw is below amount / 2 turns 0, one below amount turns 255: one uniform number where the
    original draws two (hit or not; black or white), the same distribution.
    """
    return jnp.where(draw < amount / 2, 0.0, jnp.where(draw < amount, 255.0, image))
