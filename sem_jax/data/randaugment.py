"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719): a few operations, drawn anew for each image, of one magnitude.

randaugment = RandAugment(operations=2, magnitude=9)
draw = randaugment.draw(key)                 # which operations, and in which direction
image = randaugment.apply(draw, image)       # u8[h w c] -> u8[h w c], inside jit; vmap over draws and images

The operations and their sizes are torchvision's `RandAugment` with 31 magnitudes, nearest neighbours and black where
the image ends. All of them are arithmetic of whole numbers, so the pixels are the same on any device, compiled or not.
At magnitude 9 on photographs of 32 pixels torchvision's functions of tensors give the same, but for one grey level less
at up to 5% of the values (Sharpness; Color 1%, Contrast 0.5%), where its float32 falls just short of a whole number.
PIL's give the same too, but for one level at 16% (Color) and 15% (Contrast): its grey is rounded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.interfaces import Key

LEVELS = 31  # magnitudes 0 to 30
_ONE = 1 << 16  # fixed point: 16 bits after the point
# The way of a pixel of the result to the one it is taken from, (x, y) -> A (x, y) + t, from the centre of the image.
Affine = tuple[tuple[float, float, float], tuple[float, float, float]]
STILL: Affine = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


class Operation(NamedTuple):
    """One row of the table. An operation moves pixels or changes their values.

    Attributes:
      signed: drawn in both directions.
      size: magnitude in [0, 30] -> its size in the operation's own units.
      move: (size, h, w) -> where pixels come from.
      change: (pixels i32[h w c], size as a whole number i32[]) -> i32[h w c] in [0, 255].
    """

    signed: bool = False
    size: Callable[[int], float] = float
    move: Callable[[float, int, int], Affine] | None = None
    change: Callable[[jax.Array, jax.Array], jax.Array] | None = None


def _shear_x(size: float, h: int, w: int) -> Affine:
    return (1.0, size, size * h / 2), (0.0, 1.0, 0.0)  # the upper edge stays


def _shear_y(size: float, h: int, w: int) -> Affine:
    return (1.0, 0.0, 0.0), (size, 1.0, size * w / 2)  # the left edge stays


def _translate_x(size: float, h: int, w: int) -> Affine:
    return (1.0, 0.0, -float(int(size * w))), (0.0, 1.0, 0.0)


def _translate_y(size: float, h: int, w: int) -> Affine:
    return (1.0, 0.0, 0.0), (0.0, 1.0, -float(int(size * h)))


def _rotate(size: float, h: int, w: int) -> Affine:
    cos, sin = np.cos(np.radians(size)), np.sin(np.radians(size))
    return (cos, -sin, 0.0), (sin, cos, 0.0)


def _blend(pixels: jax.Array, other: jax.Array, percent: jax.Array, *, parts: int = 1) -> jax.Array:
    """percent of the pixels and the rest of `other`, which is in `parts` of a grey level; more than 100 exaggerates."""
    mixed = percent * parts * pixels + (100 - percent) * other
    return jnp.clip(mixed // (100 * parts), 0, 255)


def _grey(pixels: jax.Array) -> jax.Array:
    """i32[h w 1], the luma of ITU-R 601."""
    if pixels.shape[-1] != 3:
        return pixels[..., :1]
    return (pixels @ jnp.asarray([2989, 5870, 1140]) // 10_000)[..., None]


def _brightness(pixels: jax.Array, percent: jax.Array) -> jax.Array:
    return _blend(pixels, jnp.zeros_like(pixels), percent)


def _color(pixels: jax.Array, percent: jax.Array) -> jax.Array:
    return _blend(pixels, _grey(pixels), percent) if pixels.shape[-1] == 3 else pixels


def _contrast(pixels: jax.Array, percent: jax.Array) -> jax.Array:
    """The other is the mean of the grey image, in hundredths of a level."""
    grey = _grey(pixels).astype(jnp.uint32)
    total, count = jnp.sum(grey), jnp.uint32(grey.size)
    mean = 100 * (total // count) + 100 * (total % count) // count
    return _blend(pixels, mean.astype(jnp.int32), percent, parts=100)


def _sharpness(pixels: jax.Array, percent: jax.Array) -> jax.Array:
    """The other is smoothed: the neighbours have weight 1, the pixel itself 5; the border stays."""
    h, w, _ = pixels.shape
    if min(h, w) <= 2:
        return pixels
    around = sum(pixels[i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3))
    smooth = (2 * (around + 4 * pixels[1:-1, 1:-1]) + 13) // 26
    return _blend(pixels, pixels.at[1:-1, 1:-1].set(smooth), percent)


def _posterize(pixels: jax.Array, bits: jax.Array) -> jax.Array:
    step = 1 << (8 - bits)
    return pixels // step * step


def _solarize(pixels: jax.Array, threshold: jax.Array) -> jax.Array:
    return jnp.where(pixels >= threshold, 255 - pixels, pixels)


def _auto_contrast(pixels: jax.Array, size: jax.Array) -> jax.Array:
    del size
    low, high = (f(pixels, axis=(0, 1), keepdims=True) for f in (jnp.min, jnp.max))
    return jnp.where(high > low, 255 * (pixels - low) // jnp.maximum(high - low, 1), pixels)


def _equalize(pixels: jax.Array, size: jax.Array) -> jax.Array:
    """Per channel; a channel with so few pixels below its highest value that there is no step stays."""
    del size

    def channel(values):
        counts = jnp.zeros(256, jnp.int32).at[values].add(1)
        below = jnp.cumsum(counts) - counts
        step = below[jnp.max(values)] // 255
        table = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step > 0, table[values], values)

    flat = pixels.reshape(-1, pixels.shape[-1])
    return jax.vmap(channel, in_axes=1, out_axes=1)(flat).reshape(pixels.shape)


def _shift(level: int) -> float:
    return 150 / 331 * level / (LEVELS - 1)


def _percent(level: int) -> float:
    return 3.0 * level  # 0.9 at the most


OPERATIONS: dict[str, Operation] = {
    "Identity": Operation(),
    "ShearX": Operation(True, lambda level: 0.01 * level, move=_shear_x),
    "ShearY": Operation(True, lambda level: 0.01 * level, move=_shear_y),
    "TranslateX": Operation(True, _shift, move=_translate_x),
    "TranslateY": Operation(True, _shift, move=_translate_y),
    "Rotate": Operation(True, move=_rotate),  # degrees
    "Brightness": Operation(True, _percent, change=_brightness),
    "Color": Operation(True, _percent, change=_color),
    "Contrast": Operation(True, _percent, change=_contrast),
    "Sharpness": Operation(True, _percent, change=_sharpness),
    "Posterize": Operation(size=lambda level: 8 - np.round(level / 7.5), change=_posterize),
    "Solarize": Operation(size=lambda level: np.ceil(255 - 8.5 * level), change=_solarize),
    "AutoContrast": Operation(change=_auto_contrast),
    "Equalize": Operation(change=_equalize),
}
NAMES = tuple(OPERATIONS)


class RandAugmentDraw(NamedTuple):
    operation: jax.Array  # i32[n], indices of OPERATIONS
    negative: jax.Array  # bool[n], the direction of the signed ones


class RandAugment(NamedTuple):
    """The random draw for an image, and the function that applies it.

    >>> image = jnp.full((8, 8, 3), 200, jnp.uint8)
    >>> draw = RandAugmentDraw(jnp.asarray([NAMES.index("Solarize")]), jnp.asarray([False]))
    >>> RandAugment(operations=1, magnitude=9).apply(draw, image)[0, 0].tolist()
    [55, 55, 55]

    Attributes:
      operations: how many are applied, one after the other.
      magnitude: a whole number in [0, 30].
    """

    operations: int
    magnitude: int

    def draw(self, key: Key) -> RandAugmentDraw:
        """Draws the operations for one image, each with the same probability, and their directions."""
        operation_key, sign_key = jax.random.split(key)
        operation = jax.random.randint(operation_key, (self.operations,), 0, len(OPERATIONS))
        return RandAugmentDraw(operation, jax.random.bernoulli(sign_key, shape=(self.operations,)))

    def apply(self, draw: RandAugmentDraw, image: jax.Array) -> jax.Array:
        """Applies drawn operations to an image [h w c] of whole numbers in [0, 255]; u8[h w c]."""
        h, w, _ = image.shape
        moves = np.stack([[self._move(it, sign, h, w) for sign in (1, -1)] for it in OPERATIONS.values()])
        sizes = np.stack([[self._size(it, sign) for sign in (1, -1)] for it in OPERATIONS.values()])
        changes = [it.change or (lambda pixels, size: pixels) for it in OPERATIONS.values()]

        pixels = image.astype(jnp.int32)
        for k in range(self.operations):
            index, negative = draw.operation[k], draw.negative[k].astype(jnp.int32)
            pixels = _moved(pixels, jnp.asarray(moves)[index, negative])
            pixels = jax.lax.switch(index, changes, pixels, jnp.asarray(sizes)[index, negative])
        return pixels.astype(jnp.uint8)

    def _move(self, row: Operation, sign: int, h: int, w: int) -> np.ndarray:
        """i32[2 3] in fixed point."""
        affine: Any = row.move(sign * row.size(self.magnitude), h, w) if row.move else STILL
        return np.round(np.asarray(affine) * _ONE).astype(np.int32)

    def _size(self, row: Operation, sign: int) -> np.int32:
        size = row.size(self.magnitude)
        return np.int32(round(100 + sign * size if row.signed else size))


def _moved(pixels: jax.Array, move: jax.Array) -> jax.Array:
    """The pixels at the nearest places of an affine map; black where it leads out of the image."""
    h, w, c = pixels.shape
    # Centres of pixels, from the centre of the image; doubled, since they may be halves.
    y, x = 2 * jnp.arange(h)[:, None] + 1 - h, 2 * jnp.arange(w)[None, :] + 1 - w

    def place(row, side):
        return (row[0] * x + row[1] * y + 2 * row[2] + side * _ONE) // (2 * _ONE)  # the pixel in which it lies

    source_x, source_y = place(move[0], w), place(move[1], h)
    inside = (source_x >= 0) & (source_x < w) & (source_y >= 0) & (source_y < h)
    found = pixels.reshape(h * w, c)[jnp.clip(source_y, 0, h - 1) * w + jnp.clip(source_x, 0, w - 1)]
    return jnp.where(inside[..., None], found, 0)
