"""Attentive CutMix (Walawalkar et al. 2020): pastes the cells of the partner that a frozen net attends to most.

    mixer = make_attentive_cutmix(k=6, scorer=make_scorer(model, variables))
    mixed, (lam, pairing) = make_mix(mixer)(key, images)

The cells are those of the scorer's feature map. They are pasted where they were. Every pair has its own mask and lam.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Key, Scorer
from sem_jax.mixers.masks import blend, on_pixels
from sem_jax.mixers.mixer import Mixer, check_alpha, require, sample_beta


class AttentiveCutmixDraw(NamedTuple):
    share: jax.Array  # of the cells to paste, f32[]; unused when k is fixed


def sample_attentive_cutmix(key: Key, image_shape: tuple[int, int, int], *, alpha: float) -> AttentiveCutmixDraw:
    """1 - lam with lam ~ Beta(alpha, alpha)."""
    del image_shape
    return AttentiveCutmixDraw(1.0 - sample_beta(key, alpha))


def apply_attentive_cutmix(
    draw: AttentiveCutmixDraw,
    anchor: jax.Array,
    partner: jax.Array,
    anchor_map: jax.Array,
    partner_map: jax.Array,
    *,
    k: int = 6,
) -> tuple[jax.Array, jax.Array]:
    """The anchor with k cells of the partner, and lam, the share of the pixels outside them; see `Mixer.apply`.

    The cells are the strongest ones of `partner_map` f32[gh gw], which is at most as fine as the image; `anchor_map`
    is unused. With k = 0 they are round(share gh gw).
    """
    del anchor_map
    require(k < partner_map.size, f"attentive_cutmix needs k < {partner_map.size}, the cells of the scorer's map", k)
    count = jnp.round(draw.share * partner_map.size) if k == 0 else float(k)
    rank = jnp.argsort(jnp.argsort(-partner_map.ravel())).reshape(partner_map.shape)
    keep = (rank >= count).astype(jnp.float32)
    return blend(on_pixels(keep, anchor.shape), anchor, partner)


def make_attentive_cutmix(*, alpha: float = 1.0, k: int = 6, scorer: Scorer | None = None) -> Mixer:
    """Attentive CutMix.

    Args:
      alpha: concentration, > 0; only used with k = 0.
      k: number of cells; 0 = round((1 - lam) cells) with lam ~ Beta(alpha, alpha) ("AttentiveMix+").
      scorer: (images, labels) -> f32[b gh gw]; None = every call of `mix` must be given one.
    """
    check_alpha(alpha)
    require(k >= 0, "attentive_cutmix needs k >= 0 cells", k)

    def score(images, labels, given):
        if (use := scorer or given) is None:
            raise ConfigError("attentive_cutmix needs a scorer: make_attentive_cutmix(scorer=make_scorer(...))")
        return use(images, labels)

    return Mixer(partial(sample_attentive_cutmix, alpha=alpha), partial(apply_attentive_cutmix, k=k), score)
