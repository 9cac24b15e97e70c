"""Random crop and flip of one uint8 image: the random draw and the function that applies it."""

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
    """Pads u8[h w c] with black, crops it to its old size at the drawn offset and, if drawn, mirrors left and right."""
    if padding:
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        image = jax.lax.dynamic_slice(padded, (*draw.offset, 0), image.shape)
    return jnp.where(draw.flip, image[:, ::-1], image)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """u8[... c] -> f32[... c]: scales pixels to [0, 1], subtracts the mean and divides by std, per channel."""
    shift, scale = (jnp.asarray(values).reshape((1,) * (images.ndim - 1) + (-1,)) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - shift) / scale
