"""Resampling written as small matrices, made once on the host in float64.

A separable linear resampling of an image is `rows @ image @ cols.T`. With a matrix for each axis the device code is two
matrix products, whatever the severity, so the severities share one compiled function.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

# Tables are NumPy's where they are made, on the host, and JAX's where they are used, on the device.
Array = jax.Array | np.ndarray
Number = jax.Array | np.number


def resample(image: Array, rows: Array, cols: Array) -> jax.Array:
    """`rows @ image @ cols.T` for every channel, in full float32 (accelerators round matrix products by default).

    Args:
      image: f32[h w c].
      rows: f32[p h].
      cols: f32[q w].

    Returns:
      f32[p q c].
    """
    precision = jax.lax.Precision.HIGHEST
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
    """A Gaussian filter along an axis with mirrored borders (half-sample symmetric), f32[size size]; sigma 0: identity.

    `truncate` is the filter's radius in deviations.
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
