"""Label losses and accuracies of each example, f32[b].

loss = label_loss(logits, mixed_targets(labels, lam, pairing, num_classes=10))
"""

import jax
import jax.numpy as jnp
import optax


def mixed_targets(labels: jax.Array, lam: jax.Array, pairing: jax.Array, *, num_classes: int) -> jax.Array:
    """lam y_i + (1 - lam) y_j as soft targets (Eq. 2).

    Args:
      labels: i32[b].
      lam: f32[b], weight of the anchor.
      pairing: i32[b], partner = anchor[pairing].
      num_classes: k.

    Returns:
      f32[b k]; every row sums to one.

    >>> lam, pairing = jnp.asarray([1.0, 0.25]), jnp.asarray([1, 0])
    >>> mixed_targets(jnp.asarray([0, 2]), lam, pairing, num_classes=3).tolist()
    [[1.0, 0.0, 0.0], [0.75, 0.0, 0.25]]
    """
    # Partners are chosen by label: between devices numbers travel, not their one-hot rows.
    anchor, partner = (jax.nn.one_hot(x, num_classes, dtype=jnp.float32) for x in (labels, labels[pairing]))
    return lam[:, None] * anchor + (1.0 - lam[:, None]) * partner


def label_loss(logits: jax.Array, targets: jax.Array, *, label_smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy with soft targets, f32[b], computed in float32.

    Args:
      logits: [b k].
      targets: f32[b k], rows that sum to one.
      label_smoothing: s in [0, 1); the targets become (1 - s) targets + s / k.
    """
    if label_smoothing:
        targets = optax.smooth_labels(targets, label_smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def mixed_accuracy(logits: jax.Array, labels: jax.Array, lam: jax.Array, pairing: jax.Array) -> jax.Array:
    """lam [argmax = y_i] + (1 - lam) [argmax = y_j], f32[b] in [0, 1].

    A perfect classifier of many classes scores about E[max(lam, 1 - lam)], which is 0.75 at alpha 1.
    """
    hit = jnp.argmax(logits, axis=-1)
    return lam * (hit == labels) + (1.0 - lam) * (hit == labels[pairing])
