"""Manifold Mixup (Verma et al. 2019): mixup of the hidden states of one layer, drawn anew every step.

    mix = make_mix(make_manifold_mixup(alpha=2.0))
    mixed, (lam, pairing) = mix(key, images)                    # mixed.images are the images as they were
    features, logits = model.apply(variables, mixed.images, train=True, at_stage=mixed.at_stage(last=4), ...)

The layer is a traced number, so one compiled step serves all layers. Layer 0 is mixup. The SEM penalty compares g of
the mixed hidden state with the mixture of the clean g's.
"""

from functools import partial

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.mixers.mixer import HiddenDraw, Mixer, check_alpha, per_item, require
from sem_jax.mixers.mixup import sample_mixup
from sem_jax.mixers.none import apply_none

sample_manifold_mixup = sample_mixup
apply_manifold_mixup = apply_none  # `hook_manifold_mixup` mixes the hidden states


def mix_hidden(drawn: HiddenDraw, hidden: jax.Array) -> jax.Array:
    """lam h_i + (1 - lam) h_j, computed in float32, in the dtype of `hidden` [b ...]; h_i itself where lam is 1."""
    weight = per_item(drawn.lam, hidden)
    mixed = weight * hidden + (1.0 - weight) * drawn.partners_of(hidden)
    return jnp.where(weight == 1.0, hidden, mixed.astype(hidden.dtype))


def hook_manifold_mixup(drawn: HiddenDraw, k: int, last: int, hidden: jax.Array, *, layers: tuple[int, ...]):
    """The hidden states after stage k, mixed if k is the layer drawn for this step."""
    if last < max(layers):
        raise ConfigError(f"manifold_mixup: layers {layers} need a model of {max(layers)} stages, it has {last}")
    if k not in layers:
        return hidden
    return jnp.where(drawn.step == k, mix_hidden(drawn, hidden), hidden)


def make_manifold_mixup(*, alpha: float = 2.0, layers: tuple[int, ...] = (0, 1, 2)) -> Mixer:
    """Manifold Mixup.

    Args:
      alpha: concentration, > 0; 2 in the paper for CIFAR, 0.2 for Tiny-ImageNet.
      layers: one of them is drawn, uniformly: 0 is the images, k the output of stage k.
    """
    check_alpha(alpha)
    fitting = bool(layers) and all(type(k) is int and k >= 0 for k in layers)
    require(fitting, "manifold_mixup needs layers >= 0, such as (0, 1, 2)", layers)
    return Mixer(
        partial(sample_manifold_mixup, alpha=alpha),
        apply_manifold_mixup,
        hook=partial(hook_manifold_mixup, layers=tuple(layers)),
        sample_step=lambda key: jax.random.choice(key, jnp.asarray(layers, jnp.int32)),
    )
