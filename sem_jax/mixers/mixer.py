"""A mixer is two functions of one pair of images; `make_mix` makes a function of a batch from it.

    mix = make_mix(make_cutmix(alpha=1.0), scope="sample")
    mixed, (lam, pairing) = mix(key, images)                       # images f32[b h w c]
    targets = lam[:, None] * y + (1 - lam[:, None]) * y[pairing]    # the label follows the pixels

The random half (`sample`) and the deterministic half (`apply`) are apart, so that a test or another framework can use
the same draw. A mixer of salient places also has a `score`. A mixer of hidden states has a `hook`, and its `mixed` is a
`Hooked`: images, and a function that the model calls at its stages.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Hooked, Key, Mix, MixFn, Scorer, partners_of
from sem_jax.mixers.pairing import BY_LABEL, PAIRINGS, paired_apart, paired_within
from sem_jax.registry import lookup

SCOPES = ("sample", "batch")
Draw = Any  # a NamedTuple of arrays of the mixer's own


class HiddenDraw(NamedTuple):
    """Arguments of a hook beside the hidden states."""

    draw: Draw  # arrays [b ...] with scope "sample", [...] with scope "batch"
    step: Any  # what `sample_step` drew
    lam: jax.Array  # f32[b], 1 for what is not mixed
    pairing: jax.Array  # i32[groups b/groups], the items of the batch; pairs lie within a row

    def partners_of(self, hidden: jax.Array) -> jax.Array:
        """The hidden states of the partners, [b ...] from [b ...]."""
        return partners_of(hidden, self.pairing.reshape(-1), groups=len(self.pairing))


class Mixer(NamedTuple):
    """One method of mixing a pair.

    Attributes:
      sample: (key, image_shape (h, w, c)) -> Draw; everything random about one pair.
      apply: (draw, anchor f32[h w c], partner f32[h w c]) -> (mixed f32[h w c], lam f32[]); lam is the weight of the
        anchor in the image, after any clipping, and lam == 1 returns the anchor. With `score`, the maps of both images
        are two more arguments.
      score: (images f32[b h w c], labels i32[b] or None, scorer or None) -> maps [b ...]; None: no maps.
      hook: (HiddenDraw, k, last, hidden [b ...]) -> hidden; for mixers of hidden states. An item with lam = 1 stays as
        it is.
      sample_step: key -> what is drawn once a step, for the hook; None: nothing.
      shared: arrays of the Draw that are drawn once a batch, whatever the scope: "grid", or "draws.1.grid" of a Draw
        within. A `lax.switch` by a number that pairs do not share would run every branch for every pair.
    """

    sample: Callable[[Key, tuple[int, int, int]], Draw]
    apply: Callable[..., tuple[jax.Array, jax.Array]]
    score: Callable[..., Any] | None = None
    hook: Callable[..., jax.Array] | None = None
    sample_step: Callable[[Key], Any] | None = None
    shared: tuple[str, ...] = ()


def make_mix(
    mixer: Mixer,
    *,
    scope: str = "sample",
    prob: float = 1.0,
    pairing: str = "permutation",
    groups: int = 1,
    first: int = 0,
) -> MixFn:
    """The batch form of a mixer: draws a pairing and vmaps the mixer over keys and pairs.

    >>> from sem_jax.mixers import make_mixer
    >>> mix = make_mix(make_mixer("mixup"), scope="batch", pairing="roll")
    >>> mixed, (lam, pairing) = mix(jax.random.key(0), jnp.zeros((4, 8, 8, 3)))
    >>> mixed.shape, pairing.tolist()
    ((4, 8, 8, 3), [3, 0, 1, 2])

    Args:
      mixer: a row of `MIXERS`, made with its options.
      scope: "sample" draws for every pair, "batch" draws once for all pairs of the batch.
      prob: probability in [0, 1] that a pair (scope "sample") or the batch (scope "batch") is mixed at all; else the
        anchor is returned with lam = 1.
      pairing: a name in `PAIRINGS`.
      groups: number of equal parts of the batch that are paired within themselves.
      first: so many images at the beginning of the batch, and the others, are paired within themselves (and within
        their own groups); 0 = all are one. A penalty on the first pairs needs the clean features of these alone.

    Returns:
      mix(key, images f32[b h w c], take=None, *, labels=None, strength=None, scorer=None)
      -> (mixed, Mix(lam f32[b], pairing i32[b])).
      `mixed` is f32[b h w c], or a `Hooked` where the mixer has a hook.
      `take(pairing) -> f32[b h w c]` fetches the partners; the default indexes `images`. Where images are sharded over
      devices, a trainer gathers partners from its data set, so that no image travels.
      `labels` i32[b] are for pairings by class and for scorers.
      `strength` in [0, 1], a number or a traced f32[], multiplies `prob` (see `strength.make_strength`); None = 1.
      `scorer(images, labels) -> f32[b gh gw]` is for a mixer that needs saliency.

    Raises:
      ConfigError: for an unknown scope or pairing or a probability outside [0, 1]; by `mix`, when a pairing by class
        gets no labels or a saliency mixer no scorer.
    """
    lookup(dict.fromkeys(SCOPES), "scope", scope)
    require(0.0 <= prob <= 1.0, "prob must be in [0, 1]", prob)
    pair = paired_apart(paired_within(lookup(PAIRINGS, "pairing", pairing), groups), first)
    groups = 1 if first else groups  # of the batch as a whole: its parts are no longer equal

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
        arguments = (images, partners_of(images, indices, groups=groups) if take is None else take(indices))
        if mixer.score is not None:
            maps = jax.lax.stop_gradient(mixer.score(images, labels, scorer))
            arguments += (maps, jax.tree.map(lambda x: partners_of(x, indices, groups=groups), maps))
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
            mixed = Hooked(mixed, HiddenDraw(draw, step, lam, indices.reshape(groups, -1)), mixer.hook)
        return mixed, Mix(lam, indices)

    return mix


def _sample_batch(mixer: Mixer, key: Key, shape: tuple[int, int, int], count: int, scope: str) -> tuple[Draw, Any]:
    """The draws of `count` pairs, and which of their axes is that of the pairs, as for vmap."""
    if scope == "batch":
        return mixer.sample(key, shape), None
    draw = jax.vmap(lambda k: mixer.sample(k, shape))(jax.random.split(key, count))
    if not mixer.shared:
        return draw, 0
    leaves, tree = jax.tree.flatten_with_path(draw)
    once = [jax.tree_util.keystr(path, simple=True, separator=".") in mixer.shared for path, _ in leaves]
    draw = tree.unflatten([x[0] if one else x for (_, x), one in zip(leaves, once, strict=True)])
    return draw, tree.unflatten([None if one else 0 for one in once])


def require(holds: bool, needs: str, *found: Any) -> None:
    """Raises ConfigError unless `holds`: the message says what the mixer `needs` and the values that were `found`."""
    if not holds:
        *some, last = map(str, found)
        raise ConfigError(f"{needs}, got {', '.join(some)}{' and ' if some else ''}{last}")


def check_alpha(alpha: float) -> None:
    """Raises ConfigError unless the Beta concentration is finite and positive."""
    require(0.0 < alpha < float("inf"), "alpha must be > 0 and finite", alpha)


def sample_beta(key: Key, alpha: float) -> jax.Array:
    """lam ~ Beta(alpha, alpha), f32[] in [0, 1]."""
    if alpha == 1.0:  # uniform; the general sampler is a rejection loop, which costs a GPU more than the mixing
        return jax.random.uniform(key, dtype=jnp.float32)
    return jax.random.beta(key, alpha, alpha, dtype=jnp.float32)


def per_item(values: jax.Array, like: jax.Array) -> jax.Array:
    """f[b] as f[b 1 1 ...], with as many axes as `like` [b ...]."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))
