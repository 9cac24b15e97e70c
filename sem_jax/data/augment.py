"""Random crop and flip of uint8 images: a draw and its deterministic twin, one image at a time.

draw = draw_augment(key, padding=4, flip=True)
image = apply_augment(draw, image, padding=4)       # vmap over draws and images
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key


class AugmentDraw(NamedTuple):
    offset: jax.Array  # i32[2], row and column of the crop in the padded image, in [0, 2 padding]
    flip: jax.Array  # bool[]


def draw_augment(key: Key, *, padding: int, flip: bool) -> AugmentDraw:
    """Where to crop and whether to mirror, for one image."""
    crop_key, flip_key = jax.random.split(key)
    offset = jax.random.randint(crop_key, (2,), 0, 2 * padding + 1)
    return AugmentDraw(offset, jax.random.bernoulli(flip_key) if flip else jnp.zeros((), bool))


def apply_augment(draw: AugmentDraw, image: jax.Array, *, padding: int) -> jax.Array:
    """Pads with black, crops to the original size at the drawn offset, mirrors left and right if drawn.

    Args:
      draw: from `draw_augment`, with the same padding.
      image: u8[h w c].
      padding: pixels.

    Returns:
      u8[h w c].
    """
    if padding:
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        image = jax.lax.dynamic_slice(padded, (*draw.offset, 0), image.shape)
    return jnp.where(draw.flip, image[:, ::-1], image)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """u8[... c] -> f32[... c]: pixels scaled to [0, 1], minus mean, divided by std (per channel)."""
    shift, scale = (jnp.asarray(values).reshape((1,) * (images.ndim - 1) + (-1,)) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - shift) / scale
