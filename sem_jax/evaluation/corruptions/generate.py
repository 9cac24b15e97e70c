"""Generates corrupted images: `corrupt` and the compiled functions behind it.

Image i of a set depends only on the seed, the corruption, the severity and i. All corruptions but JPEG run on the
device; another kind of device may round a value to the neighbouring grey level.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.errors import ConfigError, DataError
from sem_jax.evaluation.corruptions import CORRUPTIONS, MIN_SIZE, SEVERITIES
from sem_jax.evaluation.corruptions.corruption import ROUNDING
from sem_jax.registry import lookup
from sem_jax.rngs import key_for

BLOCK_PIXELS = 2**18  # pixels (not values) that are on the device at once: 256 images of 32x32


@functools.partial(jax.jit, static_argnames=("draw", "shape"))
def _draw_block(draw, shape, key, places):
    """The random halves for the images at `places`, i32[b], of a set."""
    return jax.vmap(lambda place: draw(jax.random.fold_in(key, place), shape))(places)


@functools.partial(jax.jit, static_argnames="apply")
def _apply_block(apply, drawn, images, tables):
    """The deterministic half on u8[b h w c], cut to whole grey levels, not rounded, as in the published arrays."""
    made = jax.vmap(apply, in_axes=(0, 0, None))(drawn, images.astype(jnp.float32), tables)
    return jnp.floor(made + ROUNDING).astype(jnp.uint8)


def corrupt(
    images: np.ndarray, name: str, severity: int, *, seed: int = 0, start: int = 0, frost_dir: str = ""
) -> np.ndarray:
    """Applies one corruption to every image.

    >>> images = np.full((2, 32, 32, 3), 100, np.uint8)
    >>> corrupt(images, "brightness", 5)[0, 0, 0]
    array([176, 176, 176], dtype=uint8)

    Args:
      images: u8[n h w c], h and w from 32 up, c 3 or 1.
      name: a row of CORRUPTIONS.
      severity: 1 to 5.
      seed: of the draws.
      start: place of images[0] in its set, for callers that pass a set in pieces.
      frost_dir: folder of the published photographs frost1.png ... frost5.jpg; "" = generated textures.

    Returns:
      u8[n h w c].

    Raises:
      ConfigError: unknown name or severity.
      DataError: images of another dtype, shape or size; missing frost photographs.
    """
    row = lookup(CORRUPTIONS, "corruption", name)
    if not isinstance(severity, (int, np.integer)) or severity not in SEVERITIES:
        raise ConfigError(f"severity must be one of 1, 2, 3, 4, 5, got severity={severity!r}")
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(f"images must be uint8 [n h w 3] or [n h w 1], got {images.dtype} {list(images.shape)}")
    count, shape = len(images), images.shape[1:]
    if min(shape[:2]) < MIN_SIZE:
        raise DataError(f"images must be at least {MIN_SIZE}x{MIN_SIZE}, got {shape[0]}x{shape[1]}")

    parameters = row.severities[severity - 1]
    if row.on_host:
        return row.apply(images, parameters)
    options = {"frost_dir": frost_dir} if name == "frost" else {}
    tables = jax.device_put(row.tables(parameters, shape, **options))
    key = key_for(jax.random.key(seed, impl="threefry2x32"), f"corruptions/{name}", severity)
    result = np.empty(images.shape, np.uint8)
    # Blocks bound the memory. The last one is filled up: the compiler may round differently for another size, and an
    # image must not depend on how many others there are.
    block = max(1, BLOCK_PIXELS // (shape[0] * shape[1]))
    for first in range(0, count, block):
        places = np.minimum(np.arange(first, first + block), count - 1)
        drawn = _draw_block(row.draw, shape, key, np.int32(start + places))
        made = _apply_block(row.apply, drawn, images[places], tables)
        result[first : first + block] = np.asarray(made)[: count - first]
    return result
