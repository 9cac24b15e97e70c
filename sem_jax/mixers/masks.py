"""Mixing by a mask with values in [0, 1], for FMix, GridMix, SmoothMix, PuzzleMix and Attentive CutMix."""

import jax
import jax.numpy as jnp
import numpy as np


def cells_of(side: int, cells: int) -> np.ndarray:
    """The cell of each pixel of a side, i32[side]; cells may differ by a pixel."""
    return np.arange(side, dtype=np.int32) * cells // side


def on_pixels(grid: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A grid f32[gh gw] as a mask f32[h w]: every pixel has the value of its cell. `shape` is (h, w, ...)."""
    return grid[cells_of(shape[0], grid.shape[0])][:, cells_of(shape[1], grid.shape[1])]


def blend(mask: jax.Array, anchor: jax.Array, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """mask x_i + (1 - mask) x_j, f32[h w c], and lam = mean(mask), f32[]; mask f32[h w] in [0, 1]."""
    weight = mask[:, :, None]
    return weight * anchor + (1.0 - weight) * partner, jnp.mean(mask)
