"""GridMix: the partner shows through a regular grid of holes in a random crop of the anchor.

This is the "GridMixup" that libraries ship. The paper GridMix (Baek et al. 2021) also has a loss on labels of patches.

What differs from OpenMixup's:

- A hole may be empty or fill its patch, so that lam reaches 1, and 0 where the crop is the image. There it has at least
  one pixel and leaves at least one of its patch.
- The grid of holes is shifted at random within its patch. There every hole lies in its patch's corner.
- The crop's sides are rounded, fit into the image, and every place is equally likely. There they are cut to integers,
  may exceed the image at an aspect ratio far from 1, and the last row and column are never reached.
- Every pair has its own grid (`mixer.scope`). There one serves the batch.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key
from sem_jax.mixers.boxes import Box, box_within, inside
from sem_jax.mixers.masks import blend
from sem_jax.mixers.mixer import Mixer, check_alpha, require, sample_beta


class GridmixDraw(NamedTuple):
    """A hole in every patch of a grid that starts at the corner of the crop; i32[] each, in pixels."""

    crop: Box
    patch: jax.Array  # side
    hole: jax.Array  # side, at most that of a patch
    row: jax.Array  # of the hole within its patch
    column: jax.Array


def sample_gridmix(
    key: Key,
    image_shape: tuple[int, int, int],
    *,
    alpha: float,
    min_holes: int = 2,
    max_holes: int = 6,
    min_crop: float = 0.5,
    max_aspect: float = 2.0,
) -> GridmixDraw:
    """lam ~ Beta(alpha, alpha); min_holes to max_holes holes in a row, with sides sqrt(1 - lam) of a patch.

    The crop has U(min_crop, 1) of the image's area and a ratio of height to width U(1 / max_aspect, max_aspect), as far
    as it fits into the image.
    """
    height, width, _ = image_shape
    lam_key, holes_key, area_key, aspect_key, place_key, hole_key = jax.random.split(key, 6)
    ratio = jnp.sqrt(1.0 - sample_beta(lam_key, alpha))
    area = height * width * jax.random.uniform(area_key, (), jnp.float32, min_crop, 1.0)
    aspect = jax.random.uniform(aspect_key, (), jnp.float32, 1.0 / max_aspect, max_aspect)
    rows = jnp.clip(jnp.round(jnp.sqrt(area * aspect)), 1, height).astype(jnp.int32)
    columns = jnp.clip(jnp.round(jnp.sqrt(area / aspect)), 1, width).astype(jnp.int32)
    top_key, left_key = jax.random.split(place_key)
    crop = box_within(top_key, left_key, rows, columns, image_shape)
    holes = jax.random.randint(holes_key, (), min_holes, max_holes + 1)
    patch = -(-columns // holes)
    hole = jnp.floor(patch * ratio).astype(jnp.int32)
    row, column = jax.random.randint(hole_key, (2,), 0, patch - hole + 1)
    return GridmixDraw(crop, patch, hole, row, column)


def apply_gridmix(draw: GridmixDraw, anchor: jax.Array, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The partner in the holes, the anchor elsewhere, and lam, the share of the pixels outside; see `Mixer.apply`."""

    def in_hole(side, first):  # the grid starts with a whole patch, so no hole lies before the first one
        pixel = jnp.arange(side)
        return ((pixel - first) % draw.patch < draw.hole) & (pixel >= first)

    rows = in_hole(anchor.shape[0], draw.crop.top + draw.row)
    columns = in_hole(anchor.shape[1], draw.crop.left + draw.column)
    holes = rows[:, None] & columns[None, :] & inside(draw.crop, anchor.shape)
    return blend(1.0 - holes.astype(jnp.float32), anchor, partner)


def make_gridmix(
    *, alpha: float = 1.0, min_holes: int = 2, max_holes: int = 6, min_crop: float = 0.5, max_aspect: float = 2.0
) -> Mixer:
    """GridMix with Beta(alpha, alpha), alpha > 0.

    Args:
      min_holes, max_holes: fewest (>= 1) and most holes in a row of the crop.
      min_crop: smallest area of the crop as a share of the image's, in (0, 1].
      max_aspect: largest ratio of the crop's sides, >= 1.
    """
    check_alpha(alpha)
    fitting = 1 <= min_holes <= max_holes and 0.0 < min_crop <= 1.0 and 1.0 <= max_aspect < float("inf")
    needs = "gridmix needs 1 <= min_holes <= max_holes, min_crop in (0, 1] and max_aspect >= 1"
    require(fitting, needs, min_holes, max_holes, min_crop, max_aspect)
    options = {"min_holes": min_holes, "max_holes": max_holes, "min_crop": min_crop, "max_aspect": max_aspect}
    return Mixer(partial(sample_gridmix, alpha=alpha, **options), apply_gridmix)
