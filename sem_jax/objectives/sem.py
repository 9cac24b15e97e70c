"""The SEM penalty (Eq. 9, second term): the representation of a mixture should be the mixture of representations.

penalty = sem_penalty(g(x_mixed), g(x), g(x)[pairing], lam)       # f32[b]; no model inside
loss = label_loss.mean() + gamma * penalty.mean()
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def safe_norm(vectors: jax.Array) -> jax.Array:
    """Euclidean norm over the last axis with gradient 0 (not NaN) at the zero vector.

    The derivative of sqrt at 0 is infinite, and 0 * inf is NaN. The inner `where` keeps the zero out of sqrt, the outer
    one puts it back. An epsilon inside the root would change all other values.
    """
    squared = jnp.sum(jnp.square(vectors), axis=-1)
    is_zero = squared == 0.0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squared)))


# Largest relative difference of the features of two equal images: rounding in float32 in a deep net, with a margin.
ROUNDING = 1e-5


def difference(a: jax.Array, b: jax.Array) -> jax.Array:
    """a - b, [b d], exactly zero for rows that differ by no more than rounding.

    An image that is its own partner is mixed to itself up to the last bit. Its distance is then a rounding error, but
    the gradient of the norm has length 1 for any vector, and the penalty would pull in a random direction.
    """
    d = a - b
    scale = jnp.maximum(jnp.sum(jnp.square(a), axis=-1), jnp.sum(jnp.square(b), axis=-1))
    equal = jnp.sum(jnp.square(d), axis=-1) <= ROUNDING**2 * scale
    return jnp.where(equal[:, None], 0.0, d)


def _unit(vectors: jax.Array) -> jax.Array:
    """Vectors scaled to length 1; the zero vector stays zero, with finite gradient."""
    norm = safe_norm(vectors)[:, None]
    return vectors / jnp.where(norm == 0.0, 1.0, norm)


DISTANCES = {
    "l2": lambda a, b: safe_norm(difference(a, b)),
    "squared": lambda a, b: jnp.sum(jnp.square(a - b), axis=-1),
    "normalised": lambda a, b: safe_norm(difference(_unit(a), _unit(b))),
}


def rising(gamma: float, steps: int) -> Callable[[jax.Array], jax.Array]:
    """A gamma for `make_objective` that rises linearly from 0 at step 0 to `gamma` at `steps`, and stays there.

    Not in the paper. In short runs with the whole gamma from the start, features shrank for some epochs before the
    labels were learnt (experiments/results/cpu/README.md).
    """
    return lambda step: gamma * jnp.minimum(step.astype(jnp.float32) / steps, 1.0)


def sem_penalty(
    mixed: jax.Array, anchor: jax.Array, partner: jax.Array, lam: jax.Array, *, distance: str = "l2"
) -> jax.Array:
    """|| g(x_mixed) - (lam g(x_i) + (1 - lam) g(x_j)) ||_2 for each example (Eq. 8 and 9).

    The norm is not squared. Gradients flow through all three arguments. A distance that is zero up to rounding, as of
    an image paired with itself, is zero and has gradient zero.

    Args:
      mixed: g(x_mixed), [b d].
      anchor: g(x_i), [b d].
      partner: g(x_j), [b d]; `anchor[pairing]` when x_j is a permutation of x_i.
      lam: f32[b] in [0, 1], the weight of the anchor in image and label.
      distance: "l2" (the paper's), "squared" (its square), or "normalised": both sides are scaled to length 1 first, so
        that small features do not lower it.

    Returns:
      f32[b], >= 0, computed in float32 whatever the dtype of the features.

    >>> g = jnp.asarray([[3.0, 0.0], [0.0, 4.0]])
    >>> sem_penalty(jnp.zeros((2, 2)), g, g[::-1], jnp.asarray([1.0, 0.5])).tolist()
    [3.0, 2.5]
    """
    mixed, anchor, partner = (x.astype(jnp.float32) for x in (mixed, anchor, partner))
    lam = lam.astype(jnp.float32)[:, None]
    return DISTANCES[distance](mixed, lam * anchor + (1.0 - lam) * partner)
