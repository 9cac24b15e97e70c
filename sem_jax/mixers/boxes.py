"""Boxes of whole pixels, for CutMix, ResizeMix, SaliencyMix and GridMix. `shape` is (h, w) or (h, w, c)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key


class Box(NamedTuple):
    """Rows top <= y < bottom and columns left <= x < right, i32[] each."""

    top: jax.Array
    bottom: jax.Array
    left: jax.Array
    right: jax.Array


def any_pixel(row_key: Key, column_key: Key, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Row and column of a pixel, uniform over the image; i32[] each."""
    return jax.random.randint(row_key, (), 0, shape[0]), jax.random.randint(column_key, (), 0, shape[1])


def box_around(row: jax.Array, column: jax.Array, ratio: jax.Array, shape: tuple[int, ...]) -> Box:
    """The box of floor(side ratio) pixels around the pixel (row, column), clipped to the image.

    `ratio` f32[] in [0, 1] is that of the box's side to the image's. As in the code of CutMix the half side is rounded
    down, so an odd box loses one pixel.
    """
    height, width = shape[:2]
    half_height = (height * ratio).astype(jnp.int32) // 2
    half_width = (width * ratio).astype(jnp.int32) // 2
    return Box(
        jnp.maximum(row - half_height, 0),
        jnp.minimum(row + half_height, height),
        jnp.maximum(column - half_width, 0),
        jnp.minimum(column + half_width, width),
    )


def box_within(row_key: Key, column_key: Key, rows: jax.Array, columns: jax.Array, shape: tuple[int, ...]) -> Box:
    """A box of `rows` by `columns` pixels, i32[] each, wholly inside the image at a uniform place."""
    top = jax.random.randint(row_key, (), 0, shape[0] - rows + 1)
    left = jax.random.randint(column_key, (), 0, shape[1] - columns + 1)
    return Box(top, top + rows, left, left + columns)


def inside(box: Box, shape: tuple[int, ...]) -> jax.Array:
    """bool[h w], true in the box."""
    rows = jnp.arange(shape[0])[:, None]
    columns = jnp.arange(shape[1])[None, :]
    return (box.top <= rows) & (rows < box.bottom) & (box.left <= columns) & (columns < box.right)


def paste(image: jax.Array, box: Box, anchor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The anchor with the box of another image in it, f32[h w c], and lam = 1 - area / (h w) of the box, f32[]."""
    height, width, _ = anchor.shape
    area = (box.bottom - box.top) * (box.right - box.left)
    mixed = jnp.where(inside(box, anchor.shape)[:, :, None], image, anchor)
    return mixed, 1.0 - area.astype(jnp.float32) / (height * width)
