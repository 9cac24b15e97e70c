"""mixup (Zhang et al. 2018; Eq. 2 of the SEM paper): a convex combination of two images.

mixed, lam = apply_mixup(sample_mixup(key, anchor.shape, alpha=1.0), anchor, partner)
"""

from functools import partial
from typing import NamedTuple

import jax

from sem_jax.interfaces import Key
from sem_jax.mixers.mixer import Mixer, check_alpha, sample_beta


class MixupDraw(NamedTuple):
    lam: jax.Array  # f32[]


def sample_mixup(key: Key, image_shape: tuple[int, int, int], *, alpha: float) -> MixupDraw:
    """lam ~ Beta(alpha, alpha)."""
    del image_shape
    return MixupDraw(sample_beta(key, alpha))


def apply_mixup(draw: MixupDraw, anchor: jax.Array, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """lam x_i + (1 - lam) x_j, f32[h w c], and lam f32[]; see `Mixer.apply`."""
    return draw.lam * anchor + (1.0 - draw.lam) * partner, draw.lam


def make_mixup(*, alpha: float = 1.0) -> Mixer:
    """mixup with Beta(alpha, alpha), alpha > 0."""
    check_alpha(alpha)
    return Mixer(partial(sample_mixup, alpha=alpha), apply_mixup)
