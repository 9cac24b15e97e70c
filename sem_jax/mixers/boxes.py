"""Boxes of whole pixels, as CutMix, ResizeMix and SaliencyMix cut and paste them.

box = box_around(row, column, ratio, (height, width))       # clipped to the image
mixed = jnp.where(inside(box, (height, width))[:, :, None], partner, anchor)
lam = anchor_share(box, (height, width))                    # what is really left of the anchor
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Box(NamedTuple):
    """Rows top <= y < bottom, columns left <= x < right; i32[] each; empty where one of them is."""

    top: jax.Array
    bottom: jax.Array
    left: jax.Array
    right: jax.Array


def box_around(row: jax.Array, column: jax.Array, ratio: jax.Array, shape: tuple[int, int]) -> Box:
    """The box of floor(side ratio) pixels around a centre; what hangs over an edge is cut off.

    As in the code of CutMix the half side is rounded down, so an odd box loses one pixel.

    Args:
      row: of the centre, i32[].
      column: of the centre, i32[].
      ratio: side of the box as a part of the image's, f32[] in [0, 1].
      shape: (height, width).
    """
    height, width = shape
    half_height = (height * ratio).astype(jnp.int32) // 2
    half_width = (width * ratio).astype(jnp.int32) // 2
    return Box(
        jnp.maximum(row - half_height, 0),
        jnp.minimum(row + half_height, height),
        jnp.maximum(column - half_width, 0),
        jnp.minimum(column + half_width, width),
    )


def inside(box: Box, shape: tuple[int, int]) -> jax.Array:
    """bool[h w], true for the pixels of the box."""
    rows = jnp.arange(shape[0])[:, None]
    columns = jnp.arange(shape[1])[None, :]
    return (box.top <= rows) & (rows < box.bottom) & (box.left <= columns) & (columns < box.right)


def anchor_share(box: Box, shape: tuple[int, int]) -> jax.Array:
    """lam = 1 - area / (h w) of the clipped box, f32[]."""
    area = (box.bottom - box.top) * (box.right - box.left)
    return 1.0 - area.astype(jnp.float32) / (shape[0] * shape[1])
