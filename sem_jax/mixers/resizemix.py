"""ResizeMix (Qin et al. 2020): pastes the whole partner, made small, into the anchor.

Libraries disagree on how large the paste is:

  side       tau ~ U(0.1, 0.8) is the ratio of the sides, so it covers 1% to 64%; nearest neighbour (OpenMixup)
  side_beta  as `side` with tau ~ Beta(alpha, alpha), drawn uniformly where that falls outside of [0.1, 0.8]
  area       lam = 0.1 + 0.7 Beta(alpha, alpha), side ratio sqrt(1 - lam), so 20% to 90%; bilinear (MMPretrain)

The box has a uniform centre and is clipped at the edges. The partner is shrunk to the clipped box.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key
from sem_jax.mixers.boxes import Box, any_pixel, box_around, paste
from sem_jax.mixers.mixer import Mixer, check_alpha, sample_beta
from sem_jax.registry import lookup

VARIANTS = ("side", "side_beta", "area")
LOW, HIGH = 0.1, 0.8  # of the scale, in the paper and in both codes


class ResizemixDraw(NamedTuple):
    box: Box  # clipped


def sample_resizemix(
    key: Key, image_shape: tuple[int, int, int], *, alpha: float, variant: str = "side"
) -> ResizemixDraw:
    """A scale of the variant's distribution, a uniform centre, the clipped box."""
    scale_key, again_key, row_key, column_key = jax.random.split(key, 4)
    if variant == "area":
        ratio = jnp.sqrt(1.0 - (LOW + (HIGH - LOW) * sample_beta(scale_key, alpha)))
    else:
        ratio = jax.random.uniform(again_key, (), jnp.float32, LOW, HIGH)
        if variant == "side_beta":
            drawn = sample_beta(scale_key, alpha)
            ratio = jnp.where((LOW <= drawn) & (drawn <= HIGH), drawn, ratio)
    return ResizemixDraw(box_around(*any_pixel(row_key, column_key, image_shape), ratio, image_shape))


def _source(start: jax.Array, stop: jax.Array, side: int) -> jax.Array:
    """The position in the partner of each pixel of the box, f32[side]; finite outside the box too."""
    count = jnp.maximum(stop - start, 1).astype(jnp.float32)
    return (jnp.arange(side) - start + 0.5) * (side / count) - 0.5


def _resize(image: jax.Array, source: jax.Array, axis: int, smooth: bool) -> jax.Array:
    """The image read at the positions `source` f32[side] of one axis."""
    last = image.shape[axis] - 1
    if not smooth:
        return jnp.take(image, jnp.clip(jnp.round(source), 0, last).astype(jnp.int32), axis=axis)
    source = jnp.clip(source, 0.0, last)
    low = jnp.floor(source).astype(jnp.int32)
    weight = jnp.expand_dims(source - low, [i for i in range(image.ndim) if i != axis])
    below, above = jnp.take(image, low, axis=axis), jnp.take(image, jnp.minimum(low + 1, last), axis=axis)
    return (1.0 - weight) * below + weight * above


def apply_resizemix(
    draw: ResizemixDraw, anchor: jax.Array, partner: jax.Array, *, smooth: bool = False
) -> tuple[jax.Array, jax.Array]:
    """The anchor with the shrunk partner in the box, and lam, the share of the pixels outside; see `Mixer.apply`.

    `smooth` reads the partner bilinearly instead of at the nearest pixel.
    """
    height, width, _ = anchor.shape
    small = _resize(partner, _source(draw.box.top, draw.box.bottom, height), 0, smooth)
    small = _resize(small, _source(draw.box.left, draw.box.right, width), 1, smooth)
    return paste(small, draw.box, anchor)


def make_resizemix(*, alpha: float = 1.0, variant: str = "side") -> Mixer:
    """ResizeMix.

    Args:
      alpha: concentration, > 0; unused by the variant "side".
      variant: "side", "side_beta" or "area", as above.
    """
    check_alpha(alpha)
    lookup(dict.fromkeys(VARIANTS), "variant of resizemix", variant)
    return Mixer(
        partial(sample_resizemix, alpha=alpha, variant=variant), partial(apply_resizemix, smooth=variant == "area")
    )
