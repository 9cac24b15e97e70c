"""Pairings, by name: index vectors that say who is mixed with whom in a batch.

    pairing = draw_pairing(key, 128)                              # partner = anchor[pairing]
    pairing = PAIRINGS["other_class"](key, labels)                # i32[b] from i32[b]
    pairing = paired_within(PAIRINGS["roll"], groups=8)(key, labels)

Features and labels follow the same indices: g(x_j) = g(x_i)[pairing], also where they are no permutation.

| name | partner of an item | the item itself |
|---|---|---|
| permutation | by a uniformly random permutation | in 63% of batches, one item on average |
| derangement | the next one of a random cycle through the batch | never, from 2 items on |
| roll | the item before it (as in torchvision) | never, from 2 items on |
| flip | the item as far from the other end (as in timm) | the middle one of an odd batch |
| same_class | the next one of a random cycle through its class | where it is the only one of its class |
| other_class | a random item of any other class | where the batch has no other class |

`same_class` and `other_class` are the two halves of LISA (Yao et al. 2022), in which the data also have domains.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Key

Pairing = Callable[[Key, jax.Array], jax.Array]


def draw_pairing(key: Key, batch_size: int) -> jax.Array:
    """A uniformly random permutation of the batch, i32[batch_size]; it may pair an image with itself."""
    return jax.random.permutation(key, jnp.arange(batch_size, dtype=jnp.int32))


def pair_permutation(key: Key, labels: jax.Array) -> jax.Array:
    """`draw_pairing`. The pairings below have the same arguments and result: (key, i32[b]) -> i32[b]."""
    return draw_pairing(key, len(labels))


def pair_derangement(key: Key, labels: jax.Array) -> jax.Array:
    """One random cycle through the batch (uniform over cycles, not over all derangements)."""
    order = draw_pairing(key, len(labels))
    return jnp.zeros_like(order).at[order].set(jnp.roll(order, -1))


def pair_roll(key: Key, labels: jax.Array) -> jax.Array:
    """The item before. Nothing is drawn: the order of the data is random."""
    del key
    return jnp.roll(jnp.arange(len(labels), dtype=jnp.int32), 1)


def pair_flip(key: Key, labels: jax.Array) -> jax.Array:
    """The first with the last. Nothing is drawn."""
    del key
    return jnp.arange(len(labels), dtype=jnp.int32)[::-1]


def _by_class(key: Key, labels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Items sorted by label, in random order within a class; for each place where its class begins and ends."""
    shuffled = draw_pairing(key, len(labels))
    order = shuffled[jnp.argsort(labels[shuffled], stable=True)]
    ordered = labels[order]
    first = jnp.searchsorted(ordered, ordered, side="left").astype(jnp.int32)
    return order, first, jnp.searchsorted(ordered, ordered, side="right").astype(jnp.int32)


def pair_same_class(key: Key, labels: jax.Array) -> jax.Array:
    """A permutation that keeps the label."""
    order, first, end = _by_class(key, labels)
    place = jnp.arange(len(labels), dtype=jnp.int32)
    return jnp.zeros_like(order).at[order].set(order[jnp.where(place + 1 < end, place + 1, first)])


def pair_other_class(key: Key, labels: jax.Array) -> jax.Array:
    """Uniform over the items of other labels, drawn for each item alone: with a class of more than half the batch no
    permutation could do it.
    """
    order_key, pick_key = jax.random.split(key)
    order, first, end = _by_class(order_key, labels)
    others = len(labels) - (end - first)
    pick = jax.random.randint(pick_key, labels.shape, 0, jnp.maximum(others, 1))
    pick = jnp.where(pick < first, pick, pick + (end - first))  # step over the item's own class
    place = jnp.arange(len(labels), dtype=jnp.int32)
    return jnp.zeros_like(order).at[order].set(order[jnp.where(others > 0, pick, place)])


PAIRINGS: dict[str, Pairing] = {
    "permutation": pair_permutation,
    "derangement": pair_derangement,
    "roll": pair_roll,
    "flip": pair_flip,
    "same_class": pair_same_class,
    "other_class": pair_other_class,
}
BY_LABEL = ("same_class", "other_class")  # the ones that read the labels


def paired_within(pair: Pairing, groups: int) -> Pairing:
    """`pair` within each of `groups` equal parts of the batch, such as one part a device.

    Raises:
      ConfigError: by the pairing, for a batch that cannot be split so.
    """
    if groups == 1:
        return pair

    def grouped(key: Key, labels: jax.Array) -> jax.Array:
        if len(labels) % groups:
            raise ConfigError(f"a batch of {len(labels)} cannot be paired within {groups} equal parts")
        parts = labels.reshape(groups, -1)
        start = jnp.arange(groups, dtype=jnp.int32)[:, None] * parts.shape[1]
        return (jax.vmap(pair)(jax.random.split(key, groups), parts) + start).reshape(-1)

    return grouped


def paired_apart(pair: Pairing, first: int) -> Pairing:
    """`pair` among the first items of the batch, and among the others; 0 = `pair` itself."""
    if not first:
        return pair

    def apart(key: Key, labels: jax.Array) -> jax.Array:
        first_key, rest_key = jax.random.split(key)
        return jnp.concatenate([pair(first_key, labels[:first]), pair(rest_key, labels[first:]) + first])

    return apart
