"""Snow, frost and fog (Hendrycks & Dietterich 2019, severities of the CIFAR sets).

See noise.py for `*_tables`, `draw_*` and `apply_*`, corruption.py for shapes and units.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.evaluation.corruptions import blur, frost_pictures, matrices
from sem_jax.evaluation.corruptions.corruption import ROUNDING, Corruption, Shape
from sem_jax.evaluation.corruptions.matrices import Array, Number


def to_gray(image: jax.Array) -> jax.Array:
    """0.299 R + 0.587 G + 0.114 B, f32[h w 1]; an image of one channel is returned unchanged."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = (image[..., i : i + 1] for i in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


class Snow(NamedTuple):
    loc: Number
    scale: Number
    rows: Array  # f32[h h]
    cols: Array  # f32[w w]
    threshold: Number
    line: blur.Line
    keep: Number


class SnowDraw(NamedTuple):
    flakes: jax.Array  # standard normal, f32[h w]
    angle: jax.Array  # degrees, f32[]


def snow_tables(parameters: tuple, shape: Shape) -> Snow:
    """Parameters (mean, deviation, zoom, threshold, radius, sigma, share of the image kept)."""
    loc, scale, zoom, threshold, radius, sigma, keep = parameters
    rows, cols = (matrices.clipped_zoom(size, zoom) for size in shape[:2])
    line = blur.line_kernel(radius, sigma, length=29)
    return Snow(np.float32(loc), np.float32(scale), rows, cols, np.float32(threshold), line, np.float32(keep))


def draw_snow(key: jax.Array, shape: Shape) -> SnowDraw:
    flakes_key, angle_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, (), minval=-135.0, maxval=-45.0)
    return SnowDraw(jax.random.normal(flakes_key, shape[:2]), angle)


def apply_snow(draw: SnowDraw, image: jax.Array, tables: Snow) -> jax.Array:
    """keep x + (1 - keep) max(x, 1.5 gray(x) + 0.5) + layer + layer turned by 180 degrees, with x in [0, 1].

    The layer is normal noise, enlarged, set to 0 below the threshold, cut to whole grey levels and blurred along a
    downward line. Departure: only the arithmetic of the blur (see `blur.apply_motion`).
    """
    flakes = matrices.resample((tables.loc + tables.scale * draw.flakes)[:, :, None], tables.rows, tables.cols)
    flakes = jnp.where(flakes < tables.threshold, 0.0, flakes)
    flakes = jnp.floor(255 * jnp.clip(flakes, 0, 1) + ROUNDING)
    layer = blur.apply_motion(draw.angle, flakes, tables.line)
    veil = jnp.maximum(image, 1.5 * to_gray(image) + 127.5)
    whitened = tables.keep * image + (1 - tables.keep) * veil
    return jnp.clip(whitened + layer + layer[::-1, ::-1], 0, 255)


SNOW = Corruption(
    (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    apply_snow,
    snow_tables,
    draw_snow,
)


class Frost(NamedTuple):
    image_weight: Number
    frost_weight: Number
    pictures: Array  # f32[p H W c], padded at the bottom and on the right
    sizes: Array  # i32[p 2], without the padding


def frost_tables(parameters: tuple[float, float], shape: Shape, frost_dir: str = "") -> Frost:
    """Parameters (weight of the image, weight of the frost)."""
    pictures, sizes = frost_pictures.stacked(frost_dir, shape)
    return Frost(np.float32(parameters[0]), np.float32(parameters[1]), pictures, sizes)


def draw_frost(key: jax.Array, shape: Shape) -> jax.Array:
    """Uniform in [0, 1), f32[3]: which picture, and how far down and across the crop lies."""
    return jax.random.uniform(key, (3,))


def apply_frost(draw: jax.Array, image: jax.Array, tables: Frost) -> jax.Array:
    """a x + b frost, clipped, where frost is a random crop of one of the five pictures."""
    height, width, channels = image.shape
    picture = jnp.floor(draw[0] * frost_pictures.COUNT).astype(jnp.int32)
    room = tables.sizes[picture] - jnp.array([height, width])
    top, left = jnp.floor(draw[1:] * room).astype(jnp.int32)
    crop = jax.lax.dynamic_slice(tables.pictures, (picture, top, left, 0), (1, height, width, channels))[0]
    return jnp.clip(tables.image_weight * image + tables.frost_weight * crop, 0, 255)


FROST = Corruption(((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)), apply_frost, frost_tables, draw_frost)


def fog_tables(parameters: tuple[float, float], shape: Shape) -> np.ndarray:
    """Parameters (amount, decay of the random displacements), f32[2]."""
    return np.array(parameters, np.float32)


def draw_fog(key: jax.Array, shape: Shape) -> jax.Array:
    """Uniform in [-1, 1), f32[m m], a number for every point of the height map; m is the next power of two."""
    size = 1 << (max(shape[:2]) - 1).bit_length()
    return jax.random.uniform(key, (size, size), minval=-1.0)


def plasma(draw: jax.Array, decay: jax.Array) -> jax.Array:
    """Height map by the diamond-square algorithm on a torus, scaled to [0, 1], f32[m m].

    It starts from a single 0, and every round doubles the grid. The middle of each square, then the middle of each
    edge, is the mean of its four neighbours plus w^2 times its draw. w is 100, divided by `decay` every round.
    """
    size = draw.shape[0]
    grid, wibble, step = jnp.zeros((1, 1)), 100.0, size
    while step >= 2:
        half = step // 2
        noise = wibble**2 * draw
        centre = (grid + jnp.roll(grid, -1, 0) + jnp.roll(grid, -1, 1) + jnp.roll(grid, (-1, -1), (0, 1))) / 4
        centre = centre + noise[half::step, half::step]
        across = (centre + jnp.roll(centre, 1, 0) + grid + jnp.roll(grid, -1, 1)) / 4 + noise[::step, half::step]
        down = (centre + jnp.roll(centre, 1, 1) + grid + jnp.roll(grid, -1, 0)) / 4 + noise[half::step, ::step]
        rows = jnp.stack([jnp.stack([grid, across], -1), jnp.stack([down, centre], -1)], 1)
        grid = rows.reshape(2 * grid.shape[0], 2 * grid.shape[1])
        wibble, step = wibble / decay, half
    grid = grid - grid.min()
    return grid / grid.max()


def apply_fog(draw: jax.Array, image: jax.Array, tables: jax.Array) -> jax.Array:
    """(x + a plasma) max(x) / (max(x) + a), where x is in [0, 1] and max is over all pixels and channels."""
    amount = 255 * tables[0]
    height, width, _ = image.shape
    fog = amount * plasma(draw, tables[1])[:height, :width, None]
    brightest = image.max()
    return jnp.clip((image + fog) * brightest / (brightest + amount), 0, 255)


FOG = Corruption(((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)), apply_fog, fog_tables, draw_fog)
