"""Who is mixed with whom: index vectors over a batch.

    pairing = draw_pairing(key, 128)      # partner = anchor[pairing]

Pairings are indices, never images: features and labels follow the same indices, and on several devices a few bytes
of integers travel instead of the images.
"""

import jax
import jax.numpy as jnp

from sem_jax.types import Key


def draw_pairing(key: Key, batch_size: int) -> jax.Array:
    """A uniformly random permutation of the batch, i32[batch_size].

    A permutation may pair an image with itself (in 63% of batches of any size one or more are); mixing such a pair
    returns the image, and the penalty's distance is then exactly zero under mixup.
    """
    return jax.random.permutation(key, jnp.arange(batch_size, dtype=jnp.int32))
