"""SaliencyMix (Uddin et al. 2021): CutMix whose box lies where the partner is most salient.

Unlike in the published code every partner has its own box (there, that of the first image serves the batch), and
saliency is the spectral residual of Hou & Zhang (2007), not OpenCV's "fine grained".
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key
from sem_jax.mixers.boxes import box_around, paste
from sem_jax.mixers.mixer import Mixer, check_alpha, sample_beta
from sem_jax.mixers.saliency import spectral_residual


class SaliencymixDraw(NamedTuple):
    ratio: jax.Array  # of the box's side to the image's, f32[]


def sample_saliencymix(key: Key, image_shape: tuple[int, int, int], *, alpha: float) -> SaliencymixDraw:
    """sqrt(1 - lam), lam ~ Beta(alpha, alpha)."""
    del image_shape
    return SaliencymixDraw(jnp.sqrt(1.0 - sample_beta(key, alpha)))


def apply_saliencymix(
    draw: SaliencymixDraw, anchor: jax.Array, partner: jax.Array, anchor_map: jax.Array, partner_map: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The partner's box pasted where it was, and lam, the share of the pixels outside it; see `Mixer.apply`.

    The centre is the most salient cell of `partner_map` f32[gh gw]; `anchor_map` is unused.
    """
    del anchor_map
    height, width, _ = anchor.shape
    rows, columns = partner_map.shape
    peak = jnp.argmax(partner_map)
    row = ((peak // columns) * 2 + 1) * height // (2 * rows)  # the pixel in the middle of the cell
    column = ((peak % columns) * 2 + 1) * width // (2 * columns)
    return paste(partner, box_around(row, column, draw.ratio, anchor.shape), anchor)


def make_saliencymix(*, alpha: float = 1.0) -> Mixer:
    """SaliencyMix with Beta(alpha, alpha), alpha > 0; the paper mixes with probability 0.5."""
    check_alpha(alpha)
    return Mixer(
        partial(sample_saliencymix, alpha=alpha),
        apply_saliencymix,
        lambda images, labels, scorer: spectral_residual(images),
    )
