"""One of several mixers, drawn for every pair (scope "sample") or every batch (scope "batch"), in one compiled step.

    mixer = make_choice(alpha=1.0, choices=("mixup", "cutmix(min_area=0.1)"), weights=(0.5, 0.5))
    mixed, (lam, pairing) = make_mix(mixer, scope="batch")(key, images)

Per pair, all mixers are computed and one result is kept. Per batch, only the mixer that was drawn is computed. With a
mixer of hidden states among them, one is drawn a batch whatever the scope: the hidden state of a partner that another
mixer has mixed already would be that of three images, and the label is of two.
"""

from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Key
from sem_jax.mixers.mixer import HiddenDraw, Mixer, require
from sem_jax.mixers.table import make_mixer


class ChoiceDraw(NamedTuple):
    index: jax.Array  # i32[], which mixer
    draws: tuple[Any, ...]  # one of each mixer


def sample_choice(
    key: Key, image_shape: tuple[int, int, int], *, mixers: tuple[Mixer, ...], weights: tuple[float, ...]
) -> ChoiceDraw:
    """A mixer drawn by the weights, and what each mixer draws."""
    index_key, *keys = jax.random.split(key, len(mixers) + 1)
    index = jax.random.choice(index_key, len(mixers), p=jnp.asarray(weights, jnp.float32) / sum(weights))
    return ChoiceDraw(index, tuple(m.sample(k, image_shape) for m, k in zip(mixers, keys, strict=True)))


def apply_choice(
    draw: ChoiceDraw, anchor: jax.Array, partner: jax.Array, *maps: tuple, mixers: tuple[Mixer, ...]
) -> tuple[jax.Array, jax.Array]:
    """What the drawn mixer makes of the pair; see `Mixer.apply`.

    `maps` are those of the anchor and of the partner: two tuples from `score_choice`, if any mixer has a score.
    """

    def branch(i):
        mine = () if mixers[i].score is None else (maps[0][i], maps[1][i])
        return lambda: mixers[i].apply(draw.draws[i], anchor, partner, *mine)

    return jax.lax.switch(draw.index, [branch(i) for i in range(len(mixers))])


def score_choice(images: jax.Array, labels: jax.Array | None, scorer: Any, *, mixers: tuple[Mixer, ...]) -> tuple:
    """The maps of each mixer, None for a mixer without a score."""
    return tuple(m.score and m.score(images, labels, scorer) for m in mixers)


def hook_choice(drawn: HiddenDraw, k: int, last: int, hidden: jax.Array, *, mixers: tuple[Mixer, ...]) -> jax.Array:
    """Calls every mixer's hook, with lam = 1 for the items that another mixer was drawn for."""
    for i, mixer in enumerate(mixers):
        if mixer.hook is not None:
            lam = jnp.where(jnp.broadcast_to(drawn.draw.index == i, drawn.lam.shape), drawn.lam, 1.0)
            hidden = mixer.hook(HiddenDraw(drawn.draw.draws[i], drawn.step[i], lam, drawn.pairing), k, last, hidden)
    return hidden


def make_choice(
    *,
    alpha: float = 1.0,
    choices: tuple[str | Mixer, ...] = ("mixup", "cutmix"),
    weights: tuple[float, ...] = (),
    scorer: Any = None,
) -> Mixer:
    """A choice of mixers.

    Args:
      alpha: concentration of every mixer whose text names no other.
      choices: mixers, or texts as in the configuration: "cutmix", "cutmix(alpha=0.2, min_area=0.1)".
      weights: one for each mixer, >= 0, of any sum; () = all equal.
      scorer: a frozen net, for the mixers that take one.
    """
    named = isinstance(choices, tuple | list) and bool(choices) and all(isinstance(c, str | Mixer) for c in choices)
    require(named, "choice: choices must be names of mixers, such as ('mixup', 'cutmix')", repr(choices))
    weights = tuple(weights) or (1.0,) * len(choices)
    fitting = len(weights) == len(choices) and all(isinstance(w, Real) and w >= 0 for w in weights)
    fitting = fitting and 0 < sum(weights) < float("inf")
    require(fitting, f"choice: weights must be {len(choices)} numbers >= 0, not all 0", weights)
    mixers = tuple(make_mixer(c, alpha=alpha, scorer=scorer) if isinstance(c, str) else c for c in choices)
    hooked = any(m.hook is not None for m in mixers)

    def sample_step(key: Key) -> tuple:
        keys = jax.random.split(key, len(mixers))
        return tuple(m.sample_step and m.sample_step(k) for m, k in zip(mixers, keys, strict=True))

    return Mixer(
        partial(sample_choice, mixers=mixers, weights=weights),
        partial(apply_choice, mixers=mixers),
        partial(score_choice, mixers=mixers) if any(m.score for m in mixers) else None,
        partial(hook_choice, mixers=mixers) if hooked else None,
        sample_step if hooked else None,
        shared=(("index",) if hooked else ())
        + tuple(f"draws.{i}.{name}" for i, mixer in enumerate(mixers) for name in mixer.shared),
    )
