"""A mixer is two functions of one pair of images; `make_mix` makes a batch function of it.

    mix = make_mix(make_cutmix(alpha=1.0), scope="sample")
    mixed, (lam, pairing) = mix(key, images)                       # images f32[b h w c]
    targets = lam[:, None] * y + (1 - lam[:, None]) * y[pairing]    # the label follows the pixels

The random half (`sample`) and the deterministic half (`apply`) are apart, so that a test or another framework can
hand in the same draw. A mixer that looks where an image is salient has a third part, `score`; one that mixes hidden
states has a `hook`, and its `mixed` is a `Hooked`: images, and what the model is to call at its stages.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Hooked, Key, Mix, MixFn, Scorer
from sem_jax.mixers.pairing import BY_LABEL, PAIRINGS, paired_within
from sem_jax.registry import lookup

SCOPES = ("sample", "batch")
Draw = Any  # a NamedTuple of arrays of the mixer's own


class HiddenDraw(NamedTuple):
    """What a hook is given beside the hidden states."""

    draw: Draw  # arrays [b ...] with scope "sample", [...] with scope "batch"
    step: Any  # what `sample_step` drew
    lam: jax.Array  # f32[b], 1 for what is not mixed
    pairing: jax.Array  # i32[b]


class Mixer(NamedTuple):
    """One method of mixing a pair.

    Attributes:
      sample: (key, image_shape (h, w, c)) -> Draw; everything random about one pair.
      apply: (draw, anchor f32[h w c], partner f32[h w c]) -> (mixed f32[h w c], lam f32[]); lam is the weight of
        the anchor that is really in the image, after any clipping, and lam == 1 returns the anchor. With `score` it
        takes the two images' maps as well.
      score: (images f32[b h w c], labels i32[b] or None, scorer or None) -> maps [b ...]; None: no maps.
      hook: (HiddenDraw, k, last, hidden [b ...]) -> hidden; for mixers of hidden states. Where lam is 1 it has to
        leave an item as it is.
      sample_step: key -> what the hook has drawn once a step; None: nothing.
      shared: fields of the Draw that are drawn once for all pairs of a batch, whatever the scope: what decides which
        program runs. A `lax.switch` by a number of each pair's own would run every branch for every pair.
    """

    sample: Callable[[Key, tuple[int, int, int]], Draw]
    apply: Callable[..., tuple[jax.Array, jax.Array]]
    score: Callable[..., Any] | None = None
    hook: Callable[..., jax.Array] | None = None
    sample_step: Callable[[Key], Any] | None = None
    shared: tuple[str, ...] = ()


def make_mix(
    mixer: Mixer, *, scope: str = "sample", prob: float = 1.0, pairing: str = "permutation", groups: int = 1
) -> MixFn:
    """The batch form of a mixer: a pairing, the mixer vmapped over keys and pairs.

    >>> from sem_jax.mixers import make_mixer
    >>> mix = make_mix(make_mixer("mixup"), scope="batch", pairing="roll")
    >>> mixed, (lam, pairing) = mix(jax.random.key(0), jnp.zeros((4, 8, 8, 3)))
    >>> mixed.shape, pairing.tolist()
    ((4, 8, 8, 3), [3, 0, 1, 2])

    Args:
      mixer: a row of `MIXERS`, made with its options.
      scope: "sample" draws for every pair, "batch" draws once and uses it for all pairs of the batch.
      prob: probability in [0, 1] that a pair (scope "sample") or the whole batch (scope "batch") is mixed at all;
        what is not mixed is the anchor with lam = 1.
      pairing: a name in `PAIRINGS`.
      groups: partners are found within each of so many equal parts of the batch.

    Returns:
      mix(key, images f32[b h w c], take=None, *, labels=None, strength=None, scorer=None)
        -> (mixed, Mix(lam f32[b], pairing i32[b])).
      `mixed` is f32[b h w c], or a `Hooked` where the mixer has a hook.
      `take(pairing) -> f32[b h w c]` says how to fetch the partners; the default indexes `images`. A trainer whose
      images are sharded over devices gathers them from its data set instead, so that no image travels.
      `labels` i32[b] are for pairings by class and for scorers that want them.
      `strength` in [0, 1], a number or a traced f32[], multiplies `prob` (see `strength.make_strength`); None = 1.
      `scorer(images, labels) -> f32[b gh gw]` is used by a mixer that wants saliency and was made without a scorer.

    Raises:
      ConfigError: for an unknown scope or pairing or a probability outside [0, 1]; by `mix`, when a pairing by class
        gets no labels or a saliency mixer no scorer.
    """
    lookup(dict.fromkeys(SCOPES), "scope", scope)
    require(0.0 <= prob <= 1.0, "prob must be in [0, 1]", prob)
    pair = paired_within(lookup(PAIRINGS, "pairing", pairing), groups)

    def mix(
        key: Key,
        images: jax.Array,
        take: Callable[[jax.Array], jax.Array] | None = None,
        *,
        labels: jax.Array | None = None,
        strength: jax.Array | float | None = None,
        scorer: Scorer | None = None,
    ) -> tuple[jax.Array | Hooked, Mix]:
        batch_size, height, width, channels = images.shape
        if labels is None and pairing in BY_LABEL:
            raise ConfigError(f"pairing {pairing!r} needs the labels: mix(key, images, labels=labels)")
        pair_key, draw_key, prob_key = jax.random.split(key, 3)
        indices = pair(pair_key, jnp.zeros(batch_size, jnp.int32) if labels is None else labels)
        arguments = (images, images[indices] if take is None else take(indices))
        if mixer.score is not None:
            maps = jax.lax.stop_gradient(mixer.score(images, labels, scorer))
            arguments += (maps, jax.tree.map(lambda x: x[indices], maps))
        draw, draw_axis = _sample_batch(mixer, draw_key, (height, width, channels), batch_size, scope)
        mixed, lam = jax.vmap(mixer.apply, in_axes=(draw_axis, *[0] * len(arguments)))(draw, *arguments)
        if prob < 1.0 or strength is not None:
            shape = (batch_size,) if scope == "sample" else (1,)
            probability = prob if strength is None else prob * strength
            chosen = jnp.broadcast_to(jax.random.bernoulli(prob_key, probability, shape), (batch_size,))
            mixed = jnp.where(chosen[:, None, None, None], mixed, images)
            lam = jnp.where(chosen, lam, 1.0)
        if mixer.hook is not None:
            step = None if mixer.sample_step is None else mixer.sample_step(jax.random.fold_in(prob_key, 1))
            mixed = Hooked(mixed, HiddenDraw(draw, step, lam, indices), mixer.hook)
        return mixed, Mix(lam, indices)

    return mix


def _sample_batch(mixer: Mixer, key: Key, shape: tuple[int, int, int], count: int, scope: str) -> tuple[Draw, Any]:
    """What is drawn for `count` pairs of images of a shape, and the axes of it that pairs differ along, as for vmap."""
    if scope == "batch":
        return mixer.sample(key, shape), None
    draw = jax.vmap(lambda k: mixer.sample(k, shape))(jax.random.split(key, count))
    if not mixer.shared:
        return draw, 0
    draw = draw._replace(**{name: getattr(draw, name)[0] for name in mixer.shared})
    return draw, type(draw)(*(None if name in mixer.shared else 0 for name in draw._fields))


def require(holds: bool, needs: str, *found: Any) -> None:
    """Refuses options that a mixer cannot work with.

    Raises:
      ConfigError: unless `holds`; `needs` says what has to hold, `found` are the values that do not.
    """
    if not holds:
        *some, last = map(str, found)
        raise ConfigError(f"{needs}, got {', '.join(some)}{' and ' if some else ''}{last}")


def check_alpha(alpha: float) -> None:
    """Raises ConfigError unless the Beta concentration is finite and positive."""
    require(0.0 < alpha < float("inf"), "alpha must be > 0 and finite", alpha)


def sample_beta(key: Key, alpha: float) -> jax.Array:
    """lam ~ Beta(alpha, alpha), f32[] in [0, 1].

    Beta(1, 1) is the uniform distribution and drawn as such: the general sampler is a rejection loop, whose control
    costs a GPU more than the mixing itself.
    """
    if alpha == 1.0:
        return jax.random.uniform(key)
    return jax.random.beta(key, alpha, alpha)


def per_item(values: jax.Array, like: jax.Array) -> jax.Array:
    """f[b] as f[b 1 1 ...], of as many axes as `like` [b ...] has."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))
