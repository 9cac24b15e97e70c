"""One of several mixers, drawn for every pair (scope "sample") or every batch (scope "batch"), in one compiled step.

    mixer = make_choice(alpha=1.0, choices=("mixup", "cutmix(min_area=0.1)"), weights=(0.5, 0.5))
    mixed, (lam, pairing) = make_mix(mixer, scope="batch")(key, images)

Per pair, all the mixers are computed and one result is kept; per batch, only the one that was drawn is.
"""

from functools import partial
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
    """Which mixer, by the weights, and what each of them draws."""
    index_key, *keys = jax.random.split(key, len(mixers) + 1)
    index = jax.random.choice(index_key, len(mixers), p=jnp.asarray(weights, jnp.float32) / sum(weights))
    return ChoiceDraw(index, tuple(m.sample(k, image_shape) for m, k in zip(mixers, keys, strict=True)))


def apply_choice(
    draw: ChoiceDraw, anchor: jax.Array, partner: jax.Array, *maps: tuple, mixers: tuple[Mixer, ...]
) -> tuple[jax.Array, jax.Array]:
    """What the mixer of the index makes of the pair; see `Mixer.apply`.

    `maps` are of the anchor and of the partner, a tuple with a place for each mixer, where one of them looks at any.
    """

    def branch(i):
        mine = () if mixers[i].score is None else (maps[0][i], maps[1][i])
        return lambda: mixers[i].apply(draw.draws[i], anchor, partner, *mine)

    return jax.lax.switch(draw.index, [branch(i) for i in range(len(mixers))])


def score_choice(images: jax.Array, labels: jax.Array | None, scorer: Any, *, mixers: tuple[Mixer, ...]) -> tuple:
    """The maps of each mixer that looks at any, None in the place of the others."""
    return tuple(m.score and m.score(images, labels, scorer) for m in mixers)


def hook_choice(drawn: HiddenDraw, k: int, last: int, hidden: jax.Array, *, mixers: tuple[Mixer, ...]) -> jax.Array:
    """The hooks of the mixers that have one, each with lam = 1 for the items that are not its own."""
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
      alpha: of every mixer that is given by name and says no other.
      choices: mixers, or texts as in the configuration: "cutmix", "cutmix(alpha=0.2, min_area=0.1)".
      weights: one a mixer, >= 0, of any sum; () = all the same.
      scorer: for the mixers that look at a frozen one.

    Raises:
      ConfigError: for an unknown name or option, or weights that do not fit.
    """
    named = bool(choices) and not isinstance(choices, str)
    require(named, "choice: choices must be names of mixers, such as ('mixup', 'cutmix')", repr(choices))
    weights = tuple(weights) or (1.0,) * len(choices)
    fitting = len(weights) == len(choices) and min(weights) >= 0 and 0 < sum(weights) < float("inf")
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
    )
