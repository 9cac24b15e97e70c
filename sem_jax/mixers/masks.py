"""Mixing by a mask of any values in [0, 1]: what FMix, GridMix, SmoothMix and the saliency mixers end in.

mixed, lam = blend(mask, anchor, partner)
mask = on_pixels(grid, anchor.shape)        # of a grid of cells
"""

import jax
import jax.numpy as jnp
import numpy as np


def cells_of(side: int, cells: int) -> np.ndarray:
    """The cell each pixel of a side belongs to, i32[side]; cells differ by a pixel where they do not divide it."""
    return np.arange(side, dtype=np.int32) * cells // side


def on_pixels(grid: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """f32[h w] of f32[gh gw]: every pixel has the value of its cell. `shape` is (h, w, ...)."""
    return grid[cells_of(shape[0], grid.shape[0])][:, cells_of(shape[1], grid.shape[1])]


def blend(mask: jax.Array, anchor: jax.Array, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """mask x_i + (1 - mask) x_j, and lam = mean(mask).

    Args:
      mask: f32[h w] in [0, 1], the anchor's weight in every pixel.
      anchor: x_i, f32[h w c].
      partner: x_j, f32[h w c].

    Returns:
      The mixed image f32[h w c] and lam f32[].
    """
    weight = mask[:, :, None]
    return weight * anchor + (1.0 - weight) * partner, jnp.mean(mask)
