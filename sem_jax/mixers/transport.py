"""Rearranges the cells of an image so that salient ones come to where they are seen: the transport of PuzzleMix.

moved = transport(image, saliency, wanted, epsilon=0.8)      # the same cells in another order
"""

import jax
import jax.numpy as jnp
import numpy as np

ROUNDS, STEP = 32, 1e-3  # of the auction: saliency sums to one over the cells


def distances(cells: int) -> np.ndarray:
    """Squared distances between the cells of a grid in sides of the image, f32[cells^2 cells^2]."""
    places = np.indices((cells, cells)).reshape(2, -1).T / max(cells - 1, 1)
    return np.square(places[:, None] - places[None]).sum(-1).astype(np.float32)


def assign(cost: jax.Array, rounds: int = ROUNDS, step: float = STEP) -> jax.Array:
    """A permutation of small cost, by auction (Bertsekas 1988), all rows at once.

    In a round every row without a column bids for the one it likes best at the prices so far, by as much as it likes
    it better than the second, plus `step`; the highest bid gets the column, and who had it goes without. Once every
    row has one, the cost is at most n `step` above the least. Rows that have none after all rounds get what is left,
    so that it is a permutation in any case; and where staying is cheaper than what came out, all stay.

    Args:
      cost: f32[n n], of source and destination.
      rounds: of bidding.
      step: > 0.

    Returns:
      i32[n], the source of each destination.
    """
    n = len(cost)
    rows = jnp.arange(n)

    def bid(_, carry):
        price, owner = carry  # of each column; n = nobody
        has = jnp.zeros(n + 1, bool).at[owner].set(True)[:n]
        value = -cost - price[None, :]
        best, column = jnp.max(value, axis=1), jnp.argmax(value, axis=1)
        mine = column[:, None] == rows[None, :]
        second = jnp.max(jnp.where(mine, -jnp.inf, value), axis=1)
        offer = jnp.where(mine & ~has[:, None], (price[column] + best - second + step)[:, None], -jnp.inf)
        highest = jnp.max(offer, axis=0)
        sold = highest > -jnp.inf
        return jnp.where(sold, highest, price), jnp.where(sold, jnp.argmax(offer, axis=0), owner)

    _, owner = jax.lax.fori_loop(0, rounds, bid, (jnp.zeros(n), jnp.full(n, n)))
    has = jnp.zeros(n + 1, bool).at[owner].set(True)[:n]
    idle = jnp.argsort(has, stable=True)  # the rows without a column come first, in order
    source = jnp.where(owner < n, owner, idle[jnp.cumsum(owner == n) - 1])
    return jnp.where(jnp.sum(cost[source, rows]) < jnp.trace(cost), source, rows)


def transport(image: jax.Array, saliency: jax.Array, wanted: jax.Array, *, epsilon: float) -> jax.Array:
    """The image with its cells permuted, for more saliency in the wanted cells less epsilon times squared distances.

    Args:
      image: f32[h w c], h and w divisible by the cells.
      saliency: f32[cells cells] of sum 1.
      wanted: bool[cells cells], where the image will be seen.
      epsilon: price of distance.

    Returns:
      f32[h w c].
    """
    cells = len(saliency)
    height, width, channels = image.shape
    cost = epsilon * jnp.asarray(distances(cells)) - saliency.reshape(-1, 1) * wanted.reshape(1, -1)
    source = assign(cost)
    tiles = image.reshape(cells, height // cells, cells, width // cells, channels).swapaxes(1, 2)
    tiles = tiles.reshape(cells * cells, *tiles.shape[2:])[source].reshape(tiles.shape)
    return tiles.swapaxes(1, 2).reshape(image.shape)
