"""A mixer is two functions of one pair of images; `make_mix` makes a batch function of it.

    mix = make_mix(make_cutmix(alpha=1.0), scope="sample")
    mixed, (lam, pairing) = mix(key, images)                       # images f32[b h w c]
    targets = lam[:, None] * y + (1 - lam[:, None]) * y[pairing]    # the label follows the pixels

The random half (`sample`) and the deterministic half (`apply`) are apart, so that a test or another framework can
hand in the same draw.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.mixers.pairing import draw_pairing
from sem_jax.types import Key, Mix, MixFn

SCOPES = ("sample", "batch")
Draw = Any  # a NamedTuple of arrays of the mixer's own


class Mixer(NamedTuple):
    """One method of mixing a pair.

    Attributes:
      sample: (key, image_shape (h, w, c)) -> Draw; everything random about one pair.
      apply: (draw, anchor f32[h w c], partner f32[h w c]) -> (mixed f32[h w c], lam f32[]); lam is the weight of
        the anchor that is really in the image, after any clipping, and lam == 1 returns the anchor.
    """

    sample: Callable[[Key, tuple[int, int, int]], Draw]
    apply: Callable[[Draw, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def make_mix(mixer: Mixer, *, scope: str = "sample", prob: float = 1.0) -> MixFn:
    """The batch form of a mixer: a permutation as pairing, the mixer vmapped over keys and pairs.

    Args:
      mixer: a row of `MIXERS`, made with its options.
      scope: "sample" draws for every pair, "batch" draws once and uses it for all pairs of the batch.
      prob: probability in [0, 1] that a pair (scope "sample") or the whole batch (scope "batch") is mixed at all;
        what is not mixed is the anchor with lam = 1.

    Returns:
      mix(key, images f32[b h w c], take=None) -> (mixed f32[b h w c], Mix(lam f32[b], pairing i32[b])).
      `take(pairing) -> f32[b h w c]` says how to fetch the partners; the default indexes `images`. A trainer whose
      images are sharded over devices gathers them from its data set instead, so that no image travels.

    Raises:
      ConfigError: for an unknown scope or a probability outside [0, 1].
    """
    if scope not in SCOPES:
        raise ConfigError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    if not 0.0 <= prob <= 1.0:
        raise ConfigError(f"prob must be in [0, 1], got {prob}")

    def mix(key: Key, images: jax.Array, take: Callable | None = None) -> tuple[jax.Array, Mix]:
        batch_size, *image_shape = images.shape
        pair_key, draw_key, prob_key = jax.random.split(key, 3)
        pairing = draw_pairing(pair_key, batch_size)
        partners = images[pairing] if take is None else take(pairing)
        if scope == "sample":
            draws = jax.vmap(lambda k: mixer.sample(k, tuple(image_shape)))(jax.random.split(draw_key, batch_size))
            mixed, lam = jax.vmap(mixer.apply)(draws, images, partners)
        else:
            draw = mixer.sample(draw_key, tuple(image_shape))
            mixed, lam = jax.vmap(mixer.apply, in_axes=(None, 0, 0))(draw, images, partners)
        if prob < 1.0:
            shape = (batch_size,) if scope == "sample" else (1,)
            chosen = jnp.broadcast_to(jax.random.bernoulli(prob_key, prob, shape), (batch_size,))
            mixed = jnp.where(chosen[:, None, None, None], mixed, images)
            lam = jnp.where(chosen, lam, 1.0)
        return mixed, Mix(lam, pairing)

    return mix


def check_alpha(alpha: float) -> None:
    """Raises ConfigError unless the Beta concentration is finite and positive."""
    if not 0.0 < alpha < float("inf"):
        raise ConfigError(f"alpha must be > 0 and finite, got {alpha}")


def sample_beta(key: Key, alpha: float) -> jax.Array:
    """lam ~ Beta(alpha, alpha), f32[] in [0, 1].

    Beta(1, 1) is the uniform distribution and drawn as such: the general sampler is a rejection loop, whose control
    costs a GPU more than the mixing itself.
    """
    if alpha == 1.0:
        return jax.random.uniform(key)
    return jax.random.beta(key, alpha, alpha)
