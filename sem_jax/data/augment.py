"""Random crop and flip of one uint8 image: the random draw and two functions that apply it, with the same result."""

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


def apply_augment_by_products(draw: AugmentDraw, image: jax.Array, *, padding: int) -> jax.Array:
    """`apply_augment` as two matrix products, which TPUs are made for; f32[h w c] with the same whole numbers.

    Each row of the matrices picks one row or column of the image, or none where the border is. Every product and sum is
    a whole number up to 255, which bfloat16 holds exactly.
    """
    height, width, _ = image.shape
    rows = jnp.arange(height) + draw.offset[0] - padding
    columns = jnp.arange(width)
    columns = jnp.where(draw.flip, width - 1 - columns, columns) + draw.offset[1] - padding
    pick_row, pick_column = (
        jax.nn.one_hot(places, side, dtype=jnp.bfloat16) for places, side in ((rows, height), (columns, width))
    )
    picked = jnp.einsum("ia,abc->ibc", pick_row, image.astype(jnp.bfloat16))
    return jnp.einsum("jb,ibc->ijc", pick_column, picked, preferred_element_type=jnp.float32)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Pixels in [0, 255], [... c] -> f32[... c]: scales to [0, 1], subtracts the mean, divides by std, per channel."""
    shift, scale = (jnp.asarray(values).reshape((1,) * (images.ndim - 1) + (-1,)) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - shift) / scale
