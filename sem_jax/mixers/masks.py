"""Mixing by a mask of any values in [0, 1]: what FMix, GridMix, SmoothMix and the saliency mixers end in.

mixed, lam = blend(mask, anchor, partner)
"""

import jax
import jax.numpy as jnp


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
