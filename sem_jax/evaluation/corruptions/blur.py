"""Defocus, glass, motion and zoom blur (Hendrycks & Dietterich 2019, severities of the CIFAR sets).

See noise.py for `*_tables`, `draw_*` and `apply_*`, corruption.py for shapes and units.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.evaluation.corruptions import matrices
from sem_jax.evaluation.corruptions.corruption import ROUNDING, Corruption, Shape, of_one
from sem_jax.evaluation.corruptions.matrices import Array, Number


def correlate(image: jax.Array, kernel: Array, border: str) -> jax.Array:
    """sum_ij kernel[i, j] image[y + i - p // 2, x + j - q // 2] of f32[h w c] and f32[p q], p and q odd.

    `border` is "reflect" (dcb|abcd|cba) or "edge" (aaa|abcd|ddd). XLA fuses the loop over the taps into one pass.
    """
    height, width, _ = image.shape
    rows, cols = kernel.shape
    padded = jnp.pad(image, ((rows // 2,) * 2, (cols // 2,) * 2, (0, 0)), mode=border)
    taps = [kernel[i, j] * padded[i : i + height, j : j + width] for i in range(rows) for j in range(cols)]
    return sum(taps[1:], taps[0])


def defocus_tables(parameters: tuple[float, float], shape: Shape) -> np.ndarray:
    """A disk smoothed by a 3x3 Gaussian, f32[5 5]; parameters (radius, sigma), radius < 2."""
    radius, sigma = parameters
    axis = np.arange(-2, 3)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(float)
    disk /= disk.sum()
    side = np.exp(-1 / (2 * sigma**2))
    weights = np.array([side, 1, side]) / (1 + 2 * side)
    padded = np.pad(disk, 1)
    shifted = (weights[i] * weights[j] * padded[i : i + 5, j : j + 5] for i in range(3) for j in range(3))
    return sum(shifted, np.zeros((5, 5))).astype(np.float32)


def apply_defocus(draw: tuple[()], image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlation with the smoothed disk, mirrored borders (the edge sample is not repeated)."""
    return jnp.clip(correlate(image, kernel, "reflect"), 0, 255)


DEFOCUS_BLUR = Corruption(((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)), apply_defocus, defocus_tables)


def glass_tables(parameters: tuple[float, int, int], shape: Shape) -> tuple[np.ndarray, np.int32]:
    """(Gaussian f32[5], rounds); parameters (sigma, largest step, rounds). `apply_glass` relies on steps of 1."""
    sigma, step, rounds = parameters
    if step != 1 or rounds > 2:
        raise ValueError(f"glass_blur knows steps of 1 and at most 2 rounds, got parameters={parameters}")
    taps = np.arange(-2, 3)
    weights = np.exp(-(taps**2) / (2 * sigma**2)) * (np.abs(taps) <= int(4 * sigma + 0.5))
    return (weights / weights.sum()).astype(np.float32), np.int32(rounds)


def draw_glass(key: jax.Array, shape: Shape) -> jax.Array:
    """Four fair bits a pixel, u8[h w]: one row up or not, one column left or not; the same for the second round."""
    return jax.random.bits(key, shape[:2], jnp.uint8) & 15


def apply_glass(draw: jax.Array, image: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Gaussian blur, whole grey levels, pixels displaced at random, Gaussian blur again.

    Every pixel (y, x) with y, x >= 2, from the bottom right to the top left, takes the value of (y + dy, x + dx),
    dy and dx in {-1, 0}. The paper says that the two pixels are exchanged. But the program behind the published arrays
    exchanges NumPy views, `x[a], x[b] = x[b], x[a]`, which copies b to a and loses a; so does this function. No copy
    reads a pixel that was written in the same round, because b is always visited after a. So the sequential loop is
    exactly one selection among four shifted images.
    """
    height, width, _ = image.shape
    gaussian, rounds = tables
    vertical, horizontal = gaussian[:, None], gaussian[None, :]

    def smooth(pixels):
        return correlate(correlate(pixels, vertical, "edge"), horizontal, "edge")

    # Without the barriers XLA would fuse the stages and compute every blur again for each shifted image.
    image = jax.lax.optimization_barrier(jnp.floor(smooth(image) + ROUNDING))
    moves = (jnp.arange(height) >= 2)[:, None] & (jnp.arange(width) >= 2)[None, :]
    for index in range(2):
        up, left = ((draw[:, :, None] >> (2 * index + bit)) & 1 == 1 for bit in (0, 1))
        row, above = image, jnp.roll(image, 1, 0)
        source = jnp.where(up, jnp.where(left, jnp.roll(above, 1, 1), above), jnp.where(left, jnp.roll(row, 1, 1), row))
        image = jax.lax.optimization_barrier(jnp.where(moves[:, :, None] & (index < rounds), source, image))
    return jnp.clip(smooth(image), 0, 255)


GLASS_BLUR = Corruption(
    ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)), apply_glass, glass_tables, draw_glass
)


class Line(NamedTuple):
    weights: Array  # f32[t], zero from `taps` on
    taps: Number


def line_kernel(radius: int, sigma: float, length: int) -> Line:
    """exp(-i^2 / 2 sigma^2) for i = 0 .. 2 radius, normalised; padded with zeros to `length` taps."""
    taps = 2 * radius + 1
    weights = np.zeros(length)
    weights[:taps] = np.exp(-(np.arange(taps) ** 2) / (2 * sigma**2))
    return Line((weights / weights.sum()).astype(np.float32), np.int32(taps))


def motion_tables(parameters: tuple[int, float], shape: Shape) -> Line:
    """Parameters (radius, sigma) in pixels; the longest line of the table has 19 taps."""
    return line_kernel(*parameters, length=19)


def draw_motion(key: jax.Array, shape: Shape) -> jax.Array:
    """Angle in degrees, uniform in [-45, 45), f32[]."""
    return jax.random.uniform(key, (), minval=-45.0, maxval=45.0)


def apply_motion(angle: jax.Array, image: jax.Array, line: Line) -> jax.Array:
    """sum_i weights[i] image[y + ceil(i sin - 1/2), x + ceil(i cos - 1/2)], repeated borders, rounded.

    This is ImageMagick's motion blur: a one-sided Gaussian along a line, sampled at whole pixels. Departure:
    ImageMagick computes with 16-bit integers, this function in float32.
    """
    height, width, channels = image.shape
    reach = line.weights.shape[0] - 1
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    radians = jnp.deg2rad(angle)
    sine, cosine = jnp.sin(radians), jnp.cos(radians)

    def add(i, total):
        down = jnp.ceil(i * sine - 0.5).astype(jnp.int32)
        right = jnp.ceil(i * cosine - 0.5).astype(jnp.int32)
        tap = jax.lax.dynamic_slice(padded, (reach + down, reach + right, 0), (height, width, channels))
        return total + line.weights[i] * tap

    total = jax.lax.fori_loop(0, line.taps, add, jnp.zeros_like(image))
    return jnp.clip(jnp.floor(total + 0.5), 0, 255)


MOTION_BLUR = Corruption(((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), apply_motion, motion_tables, draw_motion)


def zoom_tables(parameters: tuple[int], shape: Shape) -> tuple[np.ndarray, np.ndarray, np.int32]:
    """Matrices f32[26 h h] and f32[26 w w] for the factors 1, 1.01, 1.02 ...; the parameter says how many are used."""
    (count,) = parameters
    factors = np.arange(1, 1.26, 0.01)  # not 1 + 0.01 i: the last bit decides how 26 * 1.25 is rounded
    rows = np.stack([matrices.clipped_zoom(shape[0], factor) for factor in factors])
    cols = np.stack([matrices.clipped_zoom(shape[1], factor) for factor in factors])
    return rows, cols, np.int32(count)


def apply_zoom(draw: tuple[()], image: jax.Array, tables: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    """(x + sum_z zoom_z(x)) / (count + 1).

    The original takes its factors from np.arange(1, 1.06, 0.01) and so on. Two of the five ranges include their end
    point by rounding, so that they have 7, 12, 16, 21 and 26 members.
    """
    rows, cols, count = tables
    total = jax.lax.fori_loop(0, count, lambda i, total: total + matrices.resample(image, rows[i], cols[i]), image)
    return jnp.clip(total / (count + 1), 0, 255)


ZOOM_BLUR = Corruption(of_one(7, 12, 16, 21, 26), apply_zoom, zoom_tables)
