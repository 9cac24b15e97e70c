"""AlignMix (Venkataramanan et al. 2022): the last feature maps, brought into line by optimal transport, then mixed.

    mix = make_mix(make_alignmix(alpha=2.0))
    mixed, (lam, pairing) = mix(key, images)
    features, logits = model.apply(variables, mixed.images, train=True, at_stage=mixed.at_stage(last=4), ...)

A step is one of three, drawn at random: half of them are mixup of the images; the others mix the last map, with x_j
aligned to x_i or the reverse. Any map [b ... d] will do, its positions flattened; the plan is not differentiated.

Worth knowing: both marginals of the plan are uniform, so that aligning does not change a map's mean. Where the last
map is mean-pooled and what follows is linear, an aligned step is therefore a mixture of the pooled vectors whatever
the plan, and the SEM penalty of it is zero. `stage=-2` aligns one stage earlier, where the rest of the net sees it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Key
from sem_jax.mixers.manifold_mixup import apply_manifold_mixup, mix_hidden, sample_manifold_mixup
from sem_jax.mixers.mixer import HiddenDraw, Mixer, check_alpha, per_item, require


class AlignmixStep(NamedTuple):
    on_images: jax.Array  # bool[], mixup of the images
    reverse: jax.Array  # bool[], x_i aligned to x_j


sample_alignmix = sample_manifold_mixup  # lam ~ Beta(alpha, alpha)
apply_alignmix = apply_manifold_mixup  # (anchor, lam): everything is mixed by `hook_alignmix`, the images too


def sinkhorn(a: jax.Array, b: jax.Array, *, epsilon: float, iterations: int, tolerance: float) -> jax.Array:
    """The plan between the positions of two maps: min_P <P, C> - epsilon H(P), marginals uniform.

    C is the squared distance. Log-domain updates of both potentials, until the first one's change, summed over the
    positions, is below the tolerance. The last update makes the column sums exact, the row sums are so in the limit.

    Args:
      a: f32[n d].
      b: f32[n d].
      epsilon: of the entropy, > 0.
      iterations: at most.
      tolerance: 0 = all iterations.

    Returns:
      f32[n n]; rows are positions of a, columns of b; sums to one.
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
    """One pair of maps [... d], aligned and mixed: lam A_i + (1 - lam) A_j with one of the two moved to the other."""
    a, b = (x.reshape(-1, x.shape[-1]).astype(jnp.float32) for x in (anchor, partner))
    plan = len(a) * sinkhorn(jax.lax.stop_gradient(a), jax.lax.stop_gradient(b), **options)
    plan = jax.lax.stop_gradient(plan)
    mixed = jnp.where(reverse, lam * (plan.T @ a) + (1.0 - lam) * b, lam * a + (1.0 - lam) * (plan @ b))
    return mixed.reshape(anchor.shape).astype(anchor.dtype)


def hook_alignmix(drawn: HiddenDraw, k: int, last: int, hidden: jax.Array, *, stage: int, **options) -> jax.Array:
    """Mixup at k = 0, or aligned mixing at the stage, as drawn for this step; an item of lam 1 is left as it is."""
    wanted = stage if stage >= 0 else last + 1 + stage
    if not 1 <= wanted <= last:
        raise ConfigError(f"alignmix: stage {stage} is not one of the model's {last} stages")
    if k == 0:
        return jnp.where(drawn.step.on_images, mix_hidden(hidden, drawn.lam, drawn.pairing), hidden)
    if k != wanted:
        return hidden
    if hidden.ndim < 3:
        raise ConfigError(f"alignmix needs a map [b ... d] at stage {k}, got the shape {hidden.shape}")
    mixed = jax.vmap(partial(align, **options), in_axes=(0, 0, 0, None))(
        hidden, hidden[drawn.pairing], drawn.lam, drawn.step.reverse
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
      stage: whose output is aligned; -1 the last.
      input_prob: probability that a step mixes the images instead.
      reverse_prob: probability that of the others one aligns x_i to x_j.
      epsilon: of the entropy, > 0.
      iterations: of Sinkhorn's updates, at most; >= 1.
      tolerance: where they stop; 0 = never early.
    """
    check_alpha(alpha)
    fitting = 0.0 <= input_prob <= 1.0 and 0.0 <= reverse_prob <= 1.0
    require(fitting, "alignmix: probabilities must be in [0, 1]", input_prob, reverse_prob)
    fitting = epsilon > 0.0 and iterations >= 1 and tolerance >= 0.0
    needs = "alignmix needs epsilon > 0, iterations >= 1 and tolerance >= 0"
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
