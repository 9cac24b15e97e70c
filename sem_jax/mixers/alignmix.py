"""AlignMix (Venkataramanan et al. 2022): the last feature maps are aligned by optimal transport, then mixed.

    mix = make_mix(make_alignmix(alpha=2.0))
    mixed, (lam, pairing) = mix(key, images)
    features, logits = model.apply(variables, mixed.images, train=True, at_stage=mixed.at_stage(last=4), ...)

Half of the steps, drawn at random, are mixup of the images. The others mix the last map, with x_j aligned to x_i or the
reverse. The map may have any shape [b ... d]; its positions are flattened. The plan is not differentiated.

Both marginals of the plan are uniform, so aligning does not change a map's mean. If the last map is mean-pooled, an
aligned step is a mixture of the pooled vectors whatever the plan, and the SEM penalty is zero. `stage=-2` aligns one
stage earlier.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Key
from sem_jax.mixers.manifold_mixup import mix_hidden
from sem_jax.mixers.mixer import HiddenDraw, Mixer, check_alpha, per_item, require
from sem_jax.mixers.mixup import sample_mixup
from sem_jax.mixers.none import apply_none


class AlignmixStep(NamedTuple):
    on_images: jax.Array  # bool[], mixup of the images
    reverse: jax.Array  # bool[], x_i aligned to x_j


sample_alignmix = sample_mixup
apply_alignmix = apply_none  # `hook_alignmix` mixes everything, the images too


def sinkhorn(a: jax.Array, b: jax.Array, *, epsilon: float, iterations: int, tolerance: float) -> jax.Array:
    """The plan between the positions of two maps f32[n d]: min_P <P, C> - epsilon H(P) with uniform marginals.

    C is the squared distance. Both potentials are updated in the log domain, at most `iterations` times, until the
    change of the first one, summed over positions, is below the tolerance. Column sums are exact at the end, row sums
    in the limit.

    Returns:
      f32[n n] of sum one; rows are positions of a, columns of b.
    """
    cost = jnp.sum(jnp.square(a[:, None, :] - b[None, :, :]), axis=-1)
    log_share = -jnp.log(float(len(cost)))

    def update(carry):
        count, u, v, _ = carry
        new = epsilon * (log_share - jax.nn.logsumexp((v[None, :] - cost) / epsilon, axis=1))
        return (
            count + 1,
            new,
            epsilon * (log_share - jax.nn.logsumexp((new[:, None] - cost) / epsilon, axis=0)),
            jnp.sum(jnp.abs(new - u)),
        )

    zeros = jnp.zeros(len(cost))
    start = (jnp.zeros((), jnp.int32), zeros, zeros, jnp.full((), jnp.inf))
    _, u, v, _ = jax.lax.while_loop(lambda c: (c[0] < iterations) & (c[3] >= tolerance), update, start)
    return jnp.exp((u[:, None] + v[None, :] - cost) / epsilon)


def align(anchor: jax.Array, partner: jax.Array, lam: jax.Array, reverse: jax.Array, **options) -> jax.Array:
    """lam A_i + (1 - lam) A_j of one pair of maps [... d], after one of the two is aligned to the other."""
    a, b = (x.reshape(-1, x.shape[-1]).astype(jnp.float32) for x in (anchor, partner))
    plan = len(a) * sinkhorn(jax.lax.stop_gradient(a), jax.lax.stop_gradient(b), **options)
    plan = jax.lax.stop_gradient(plan)
    mixed = jnp.where(reverse, lam * (plan.T @ a) + (1.0 - lam) * b, lam * a + (1.0 - lam) * (plan @ b))
    return mixed.reshape(anchor.shape).astype(anchor.dtype)


def hook_alignmix(drawn: HiddenDraw, k: int, last: int, hidden: jax.Array, *, stage: int, **options) -> jax.Array:
    """Mixup at k = 0 or aligned mixing at the stage, as drawn for this step; an item with lam = 1 stays as it is."""
    wanted = stage if stage >= 0 else last + 1 + stage
    if not 1 <= wanted <= last:
        raise ConfigError(f"alignmix: stage {stage} is not one of the model's {last} stages")
    if k == 0:
        return jnp.where(drawn.step.on_images, mix_hidden(drawn, hidden), hidden)
    if k != wanted:
        return hidden
    if hidden.ndim < 3:
        raise ConfigError(f"alignmix needs a map [b ... d] at stage {k}, got the shape {hidden.shape}")
    mixed = jax.vmap(partial(align, **options), in_axes=(0, 0, 0, None))(
        hidden, drawn.partners_of(hidden), drawn.lam, drawn.step.reverse
    )
    kept = drawn.step.on_images | (per_item(drawn.lam, hidden) == 1.0)
    return jnp.where(kept, hidden, mixed)


def make_alignmix(
    *,
    alpha: float = 2.0,
    stage: int = -1,
    input_prob: float = 0.5,
    reverse_prob: float = 0.5,
    epsilon: float = 0.1,
    iterations: int = 100,
    tolerance: float = 0.1,
) -> Mixer:
    """AlignMix.

    Args:
      alpha: concentration, > 0; 2 in the paper.
      stage: the stage whose output is aligned; -1 is the last one.
      input_prob: probability that a step mixes the images instead.
      reverse_prob: probability that an aligned step aligns x_i to x_j.
      epsilon: weight of the entropy, > 0.
      iterations: largest number of Sinkhorn's updates, >= 1.
      tolerance: change at which the updates end; 0 = never early.
    """
    check_alpha(alpha)
    fitting = 0.0 <= input_prob <= 1.0 and 0.0 <= reverse_prob <= 1.0
    require(fitting, "alignmix: probabilities must be in [0, 1]", input_prob, reverse_prob)
    fitting = 0.0 < epsilon < float("inf") and iterations >= 1 and tolerance >= 0.0
    needs = "alignmix needs epsilon > 0 and finite, iterations >= 1 and tolerance >= 0"
    require(fitting, needs, epsilon, iterations, tolerance)
    require(stage != 0, "alignmix needs a stage of the model; images are mixed with probability input_prob", stage)

    def sample_step(key: Key) -> AlignmixStep:
        images_key, reverse_key = jax.random.split(key)
        return AlignmixStep(
            jax.random.bernoulli(images_key, input_prob), jax.random.bernoulli(reverse_key, reverse_prob)
        )

    options = {"epsilon": epsilon, "iterations": iterations, "tolerance": tolerance}
    return Mixer(
        partial(sample_alignmix, alpha=alpha),
        apply_alignmix,
        hook=partial(hook_alignmix, stage=stage, **options),
        sample_step=sample_step,
    )
