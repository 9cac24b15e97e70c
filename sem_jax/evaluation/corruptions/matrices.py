"""Resampling by small matrices, which are computed once on the host in float64.

A separable linear resampling of an image is `rows @ image @ cols.T`, with a matrix for each axis. The device code is
the same for all severities, which share one compiled function.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

# Tables are NumPy's on the host, where they are made, and JAX's on the device, where they are used.
Array = jax.Array | np.ndarray
Number = jax.Array | np.number


def resample(image: Array, rows: Array, cols: Array) -> jax.Array:
    """`rows @ image @ cols.T` for every channel: f32[p h], f32[h w c], f32[q w] -> f32[p q c]."""
    precision = jax.lax.Precision.HIGHEST  # full float32, which is not the default on accelerators
    image = jnp.einsum("ph,hwc->pwc", rows, image, precision=precision)
    return jnp.einsum("qw,pwc->pqc", cols, image, precision=precision)


def clipped_zoom(size: int, factor: float) -> np.ndarray:
    """Enlarges the middle of an axis by `factor` and cuts it back to `size`: linear interpolation, f32[size size].

    The middle ceil(size / factor) samples are stretched, end point on end point, to round(that * factor) samples,
    of which the middle `size` are kept (the convention of scipy.ndimage.zoom).
    """
    taken = int(np.ceil(size / factor))
    made = round(taken * factor)
    first, trim = (size - taken) // 2, (made - size) // 2
    position = (np.arange(size) + trim) * ((taken - 1) / (made - 1))
    low = np.clip(np.floor(position).astype(int), 0, taken - 2)
    weight = position - low
    matrix = np.zeros((size, size))
    matrix[np.arange(size), first + low] += 1 - weight
    matrix[np.arange(size), first + low + 1] += weight
    return matrix.astype(np.float32)


def gaussian(size: int, sigma: float, truncate: float) -> np.ndarray:
    """Gaussian filter along an axis, f32[size size], with mirrored borders (half-sample symmetric).

    sigma = 0 is the identity; `truncate` is the filter's radius in deviations.
    """
    matrix = np.eye(size)
    if sigma > 0:
        matrix = ndimage.gaussian_filter1d(matrix, sigma, axis=0, mode="reflect", truncate=truncate)
    return matrix.astype(np.float32)


def box(made: int, size: int) -> np.ndarray:
    """Box filter from `size` to `made` samples, f64[made size]: the mean of the samples whose centres lie in the box.

    The box of output i is ((i + 0.5) * size / made) +- max(size / made, 1) / 2, open on the left.
    """
    scale = size / made
    half = max(scale, 1.0) / 2
    offset = np.arange(size) + 0.5 - (np.arange(made)[:, None] + 0.5) * scale
    inside = (offset > -half) & (offset <= half)
    return inside / inside.sum(axis=1, keepdims=True)
