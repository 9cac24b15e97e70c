"""The 15 corruptions of CIFAR-10-C at its 5 severities, generated for images of any size from 32 up.

    noisy = corrupt(images, "gaussian_noise", severity=3, seed=0)      # u8[n h w 3] -> u8[n h w 3]

Operations and severities are those of the CIFAR sets of Hendrycks & Dietterich, *Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations* (2019), whose table is milder than those of ImageNet-C and
Tiny-ImageNet-C. Lengths in pixels stay what they are in larger images, except where a docstring says otherwise. The
published arrays were made without a seed and partly with ImageMagick and OpenCV, so these images agree with them
in distribution only. Results on them must be labelled "generated", never "CIFAR-10-C"; `published` reads the
published sets. Where a corruption departs from the original, its docstring says so.

Image i of a set depends on the seed, the corruption, the severity and i alone: not on the batch it came in. All but
JPEG run on the device; another kind of device may round a value to the neighbouring grey level.

Adding a corruption: the table, random half and deterministic half in a module (see noise.py), one row below.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.errors import ConfigError, DataError
from sem_jax.evaluation.corruptions import blur, digital, noise, weather
from sem_jax.registry import lookup
from sem_jax.rngs import key_for

SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIZE = 32
BLOCK_PIXELS = 2**18  # pixels (not values) that are on the device at once: 256 images of 32x32


class Corruption(NamedTuple):
    """One corruption: its severity table and its functions.

    severities: parameters of severity 1 to 5, a tuple each, in the order that `tables` documents.
    tables: (parameters, shape (h, w, c)) -> arrays that depend on nothing else; host, float64 inside.
    draw: (key, shape) -> the random half for one image.
    apply: (draw, image f32[h w c] in [0, 255], tables) -> f32[h w c] in [0, 255]; the deterministic half.
    host: (images u8[n h w c], parameters) -> u8[n h w c], instead of the other three, for what can't run on a device.
    """

    severities: tuple[tuple, ...]
    tables: Callable[..., Any] | None = None
    draw: Callable[..., Any] | None = None
    apply: Callable[..., Any] | None = None
    host: Callable[..., np.ndarray] | None = None


def _one(*values: float) -> tuple[tuple, ...]:
    """The table of a corruption with one parameter."""
    return tuple((value,) for value in values)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(
        _one(0.04, 0.06, 0.08, 0.09, 0.10), noise.gaussian_tables, noise.draw_gaussian, noise.apply_gaussian
    ),
    "shot_noise": Corruption(_one(500, 250, 100, 75, 50), noise.shot_tables, noise.draw_uniform, noise.apply_shot),
    "impulse_noise": Corruption(
        _one(0.01, 0.02, 0.03, 0.05, 0.07), noise.impulse_tables, noise.draw_uniform, noise.apply_impulse
    ),
    "defocus_blur": Corruption(
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        blur.defocus_tables,
        blur.no_draw,
        blur.apply_defocus,
    ),
    "glass_blur": Corruption(
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        blur.glass_tables,
        blur.draw_glass,
        blur.apply_glass,
    ),
    "motion_blur": Corruption(
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), blur.motion_tables, blur.draw_motion, blur.apply_motion
    ),
    "zoom_blur": Corruption(_one(7, 12, 16, 21, 26), blur.zoom_tables, blur.no_draw, blur.apply_zoom),
    "snow": Corruption(
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        weather.snow_tables,
        weather.draw_snow,
        weather.apply_snow,
    ),
    "frost": Corruption(
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        weather.frost_tables,
        weather.draw_frost,
        weather.apply_frost,
    ),
    "fog": Corruption(
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)), weather.fog_tables, weather.draw_fog, weather.apply_fog
    ),
    "brightness": Corruption(
        _one(0.05, 0.1, 0.15, 0.2, 0.3), digital.scalar_tables, blur.no_draw, digital.apply_brightness
    ),
    "contrast": Corruption(
        _one(0.75, 0.5, 0.4, 0.3, 0.15), digital.scalar_tables, blur.no_draw, digital.apply_contrast
    ),
    "elastic_transform": Corruption(
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        digital.elastic_tables,
        digital.draw_elastic,
        digital.apply_elastic,
    ),
    "pixelate": Corruption(
        _one(0.95, 0.9, 0.85, 0.75, 0.65), digital.pixelate_tables, blur.no_draw, digital.apply_pixelate
    ),
    "jpeg_compression": Corruption(_one(80, 65, 58, 50, 40), host=digital.jpeg),
}


@functools.partial(jax.jit, static_argnames=("draw", "shape"))
def _draw_block(draw, shape, key, places):
    """The random halves for the images at `places`, i32[b], of a set."""
    return jax.vmap(lambda place: draw(jax.random.fold_in(key, place), shape))(places)


@functools.partial(jax.jit, static_argnames="apply")
def _apply_block(apply, drawn, images, tables):
    """The deterministic half on u8[b h w c]. Cut, not rounded, as the published arrays were stored by a plain cast."""
    made = jax.vmap(apply, in_axes=(0, 0, None))(drawn, images.astype(jnp.float32), tables)
    return jnp.floor(made + noise.ROUNDING).astype(jnp.uint8)


def corrupt(
    images: np.ndarray, name: str, severity: int, *, seed: int = 0, start: int = 0, frost_dir: str = ""
) -> np.ndarray:
    """Applies one corruption to every image.

    Args:
      images: u8[n h w c], h and w from 32 up, c 3 or 1.
      name: a row of CORRUPTIONS.
      severity: 1 to 5.
      seed: every seed is another set of draws; corruptions and severities have draws of their own.
      start: place of images[0] in its set, for callers that hand a set over in pieces.
      frost_dir: folder with the published frost1.png ... frost5.jpg; "" for generated textures. Used by frost alone.

    Returns:
      u8[n h w c].

    Raises:
      ConfigError: unknown name or severity.
      DataError: images of another dtype, shape or size; missing frost pictures.
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
    if row.host:
        return row.host(images, parameters)
    options = {"frost_dir": frost_dir} if name == "frost" else {}
    tables = jax.device_put(row.tables(parameters, shape, **options))
    key = key_for(jax.random.key(seed, impl="threefry2x32"), f"corruptions/{name}", severity)
    result = np.empty(images.shape, np.uint8)
    # Blocks bound the memory. All have one size, the last being filled up: the compiler may round differently for
    # another size, and an image must not depend on how many others there are.
    block = max(1, BLOCK_PIXELS // (shape[0] * shape[1]))
    for first in range(0, count, block):
        places = np.minimum(np.arange(first, first + block), count - 1)
        drawn = _draw_block(row.draw, shape, key, np.int32(start + places))
        made = _apply_block(row.apply, drawn, images[places], tables)
        result[first : first + block] = np.asarray(made)[: count - first]
    return result
