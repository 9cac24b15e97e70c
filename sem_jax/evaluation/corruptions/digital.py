"""Brightness, contrast, elastic transform, pixelate and JPEG (Hendrycks & Dietterich 2019, CIFAR severities).

See noise.py for `*_tables`, `draw_*` and `apply_*`, corruption.py for shapes and units.
"""

import io
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from sem_jax.evaluation.corruptions import matrices
from sem_jax.evaluation.corruptions.corruption import Corruption, Shape, of_one
from sem_jax.evaluation.corruptions.matrices import Array, Number


def apply_brightness(draw: tuple[()], image: jax.Array, amount: jax.Array) -> jax.Array:
    """V of HSV, the largest channel, becomes min(V + amount, 1); parameters (amount,).

    At fixed hue and saturation all channels are multiplied by V' / V, so there is no conversion to HSV and back. A
    black pixel, which has no hue, becomes grey.
    """
    value = image.max(axis=-1, keepdims=True)
    brighter = jnp.minimum(value + 255 * amount, 255)
    return jnp.where(value > 0, image * (brighter / jnp.maximum(value, 1)), brighter)


BRIGHTNESS = Corruption(of_one(0.05, 0.1, 0.15, 0.2, 0.3), apply_brightness)


def apply_contrast(draw: tuple[()], image: jax.Array, factor: jax.Array) -> jax.Array:
    """(x - m) factor + m, clipped, where m is the mean of the channel over the image; parameters (factor,)."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return jnp.clip((image - mean) * factor + mean, 0, 255)


CONTRAST = Corruption(of_one(0.75, 0.5, 0.4, 0.3, 0.15), apply_contrast)


class Elastic(NamedTuple):
    amplitude: Number  # pixels
    rows: Array  # f32[h h]
    cols: Array  # f32[w w]
    jitter: Number  # pixels


class ElasticDraw(NamedTuple):
    corners: jax.Array  # f32[3 2] in [-1, 1)
    field: jax.Array  # f32[2 h w] in [-1, 1): down, right


def elastic_tables(parameters: tuple[float, float, float], shape: Shape) -> Elastic:
    """Parameters (amplitude, sigma, jitter) as shares of the image's shorter side."""
    amplitude, sigma, jitter = (value * min(shape[:2]) for value in parameters)
    rows, cols = (matrices.gaussian(size, sigma, truncate=3.0) for size in shape[:2])
    return Elastic(np.float32(amplitude), rows, cols, np.float32(jitter))


def draw_elastic(key: jax.Array, shape: Shape) -> ElasticDraw:
    height, width, _ = shape
    values = jax.random.uniform(key, (6 + 2 * height * width,), minval=-1.0)
    return ElasticDraw(values[:6].reshape(3, 2), values[6:].reshape(2, height, width))


def _mirror(index: jax.Array, size: int) -> jax.Array:
    """Maps any index to one inside the image, which is mirrored without its edge: dcb|abcd|cba."""
    index = jnp.abs(index) % (2 * size - 2)
    return jnp.minimum(index, 2 * size - 2 - index)


def _reflect(index: jax.Array, size: int) -> jax.Array:
    """The same for an image that is mirrored with its edge: cba|abcd|dcb."""
    index = index % (2 * size)
    return jnp.minimum(index, 2 * size - 1 - index)


def bilinear(image: jax.Array, y: jax.Array, x: jax.Array, border) -> jax.Array:
    """image, f32[h w c], at positions y and x, f32[h w]; `border(index, size)` maps indices into the image."""
    height, width, channels = image.shape
    flat = image.reshape(height * width, channels)
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    rows = [border(top.astype(jnp.int32) + i, height) * width for i in (0, 1)]
    cols = [border(left.astype(jnp.int32) + i, width) for i in (0, 1)]
    upper = flat[rows[0] + cols[0]] * (1 - right) + flat[rows[0] + cols[1]] * right
    lower = flat[rows[1] + cols[0]] * (1 - right) + flat[rows[1] + cols[1]] * right
    return upper * (1 - down) + lower * down


def apply_elastic(draw: ElasticDraw, image: jax.Array, tables: Elastic) -> jax.Array:
    """A random affine map, then a smooth random displacement, both with bilinear interpolation.

    The affine map moves three corners of a square, whose side is two thirds of the image's, by up to `jitter` pixels
    each; outside, the image is mirrored without its edge. The displacement is uniform noise, smoothed by a Gaussian
    and multiplied by `amplitude` (0 at severity 1); outside, the image is mirrored with its edge. Departures: OpenCV
    rounds the positions of the affine map to 1/32 pixel, here they are exact. In an image that is not square the three
    corners lie around its middle; the original confuses row and column.
    """
    height, width, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(height, dtype=jnp.float32), jnp.arange(width, dtype=jnp.float32), indexing="ij")
    third = min(height, width) // 3
    signs = np.array([[1, 1], [1, -1], [-1, -1]], np.float32)  # x, y
    old = np.array([width // 2, height // 2], np.float32) + third * signs
    new = old + tables.jitter * draw.corners
    # The inverse map, from the corrupted image to the clean one, sends `new` to `old`.
    (a, c), (b, d) = new[1] - new[0], new[2] - new[0]
    across, along = ((x - new[0, 0]) * d - (y - new[0, 1]) * b), ((y - new[0, 1]) * a - (x - new[0, 0]) * c)
    first, second = old[1] - old[0], old[2] - old[0]
    scale = 1 / (a * d - b * c)
    source_x = old[0, 0] + scale * (first[0] * across + second[0] * along)
    source_y = old[0, 1] + scale * (first[1] * across + second[1] * along)
    image = bilinear(image, source_y, source_x, _mirror)

    field = matrices.resample(draw.field.transpose(1, 2, 0), tables.rows, tables.cols) * tables.amplitude
    return jnp.clip(bilinear(image, y + field[..., 0], x + field[..., 1], _reflect), 0, 255)


ELASTIC_TRANSFORM = Corruption(
    ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    apply_elastic,
    elastic_tables,
    draw_elastic,
)


def pixelate_tables(parameters: tuple[float], shape: Shape) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Matrices [f32[h h], f32[w w]] to the smaller size and back; parameters (smaller side / side,).

    Rows and columns beyond the smaller size are 0, so that all severities have the same shapes.
    """
    down, up = [], []
    for size in shape[:2]:
        small = int(size * parameters[0])
        down.append(np.pad(matrices.box(small, size), ((0, size - small), (0, 0))).astype(np.float32))
        up.append(np.pad(matrices.box(size, small), ((0, 0), (0, size - small))).astype(np.float32))
    return down, up


def apply_pixelate(draw: tuple[()], image: jax.Array, tables: tuple[list[Array], list[Array]]) -> jax.Array:
    """Box filter to a smaller size and back; equals Pillow's, which rounds after each of the four passes."""
    precision = jax.lax.Precision.HIGHEST
    for rows, cols in tables:
        image = jnp.floor(jnp.einsum("qw,hwc->hqc", cols, image, precision=precision) + 0.5)
        image = jnp.floor(jnp.einsum("ph,hwc->pwc", rows, image, precision=precision) + 0.5)
    return image


PIXELATE = Corruption(of_one(0.95, 0.9, 0.85, 0.75, 0.65), apply_pixelate, pixelate_tables)


def jpeg(images: np.ndarray, parameters: tuple[int]) -> np.ndarray:
    """JPEG of the given quality and back by Pillow, u8[n h w c] -> same; parameters (quality,)."""
    (quality,) = parameters
    result = np.empty(images.shape, np.uint8)
    for i, pixels in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as picture:
            result[i] = np.asarray(picture).reshape(pixels.shape)
    return result


JPEG_COMPRESSION = Corruption(of_one(80, 65, 58, 50, 40), jpeg, on_host=True)
