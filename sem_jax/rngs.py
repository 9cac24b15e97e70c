"""Makes every random key from the run's key, a name and a step.

    key = jax.random.key(cfg.seed)
    key_for(key, "mixer", step)    # the mixer's key at this step

So a resumed run needs no random state, and a new name changes no other key.
"""

import hashlib

import jax


def key_for(key: jax.Array, name: str, step: jax.Array | int) -> jax.Array:
    """The key of one use at one step, a typed key [].

    Args:
      key: typed key of the run, shape [].
      name: of the use; the key is folded with the first 32 bits of sha1(name).
      step: i32[] or int; the optimizer step, or the epoch for what changes once an epoch.
    """
    word = int.from_bytes(hashlib.sha1(name.encode()).digest()[:4], "big")
    return jax.random.fold_in(jax.random.fold_in(key, word), step)
