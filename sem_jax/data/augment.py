"""Random crop and flip of one uint8 image: the random draw and two functions that apply it, with one result."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key


class AugmentDraw(NamedTuple):
    offset: jax.Array  # i32[2], row and column of the crop in the padded image, in [0, 2 padding]
    flip: jax.Array  # bool[]


def draw_augment(key: Key, *, padding: int, flip: bool) -> AugmentDraw:
    """Draws where to crop one image, after a border of `padding` pixels, and whether to mirror it."""
    crop_key, flip_key = jax.random.split(key)
    offset = jax.random.randint(crop_key, (2,), 0, 2 * padding + 1)
    return AugmentDraw(offset, jax.random.bernoulli(flip_key) if flip else jnp.zeros((), bool))


def apply_augment(draw: AugmentDraw, image: jax.Array, *, padding: int) -> jax.Array:
    """Pads u8[h w c] with black, crops it to its old size at the drawn offset and, if drawn, mirrors left and right.

    A slice at a drawn place is one gather for a batch on CPU and GPU, and a loop over the images on TPU.
    """
    if padding:
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        image = jax.lax.dynamic_slice(padded, (*draw.offset, 0), image.shape)
    return jnp.where(draw.flip, image[:, ::-1], image)


def apply_augment_by_selects(draw: AugmentDraw, image: jax.Array, *, padding: int) -> jax.Array:
    """`apply_augment` without a slice at a drawn place: every offset's slice is read, and the drawn one is kept.

    In a batch these are elementwise operations with the images in the lanes of a TPU.
    """
    height, width, _ = image.shape
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    rows = padded[:height]
    for offset in range(1, 2 * padding + 1):
        rows = jnp.where(draw.offset[0] == offset, padded[offset : offset + height], rows)
    cropped = rows[:, :width]
    for offset in range(1, 2 * padding + 1):
        cropped = jnp.where(draw.offset[1] == offset, rows[:, offset : offset + width], cropped)
    return jnp.where(draw.flip, cropped[:, ::-1], cropped)


def pick(indices: jax.Array, images: jax.Array) -> jax.Array:
    """images[indices] of u8[b h w c], as a matrix product with one-hot rows: f32 with the same whole numbers.

    bfloat16 holds whole numbers up to 256 exactly, and each sum has one term. XLA:TPU would gather image by image.
    """
    chosen = jax.nn.one_hot(indices, len(images), dtype=jnp.bfloat16)
    return jnp.einsum("pb,bhwc->phwc", chosen, images.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Pixels in [0, 255], [... c] -> f32[... c]: scales to [0, 1], subtracts the mean, divides by std, per channel."""
    shift, scale = (jnp.asarray(values).reshape((1,) * (images.ndim - 1) + (-1,)) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - shift) / scale
