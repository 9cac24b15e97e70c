"""The transport of PuzzleMix: permutes the cells of an image so that salient cells move to where they are seen."""

import jax
import jax.numpy as jnp
import numpy as np

ROUNDS, STEP = 32, 1e-3  # of the auction, for saliency that sums to one over the cells


def distances(cells: int) -> np.ndarray:
    """Squared distances between the cells of a grid, in sides of the image, f32[cells^2 cells^2]."""
    places = np.indices((cells, cells)).reshape(2, -1).T / max(cells - 1, 1)
    return np.square(places[:, None] - places[None]).sum(-1).astype(np.float32)


def assign(cost: jax.Array, rounds: int = ROUNDS, step: float = STEP) -> jax.Array:
    """A permutation of small cost f32[n n], by auction (Bertsekas 1988): the source of each destination, i32[n].

    In a round every row without a column bids for its best column at the current prices. It bids the difference of its
    value to that of the second best, plus `step`. The highest bid gets the column, and the former owner loses it. Once
    every row has a column, the cost is at most n `step` above the minimum. After the last round rows without a column
    get the columns that are left. If staying is cheaper than the result, all stay.
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
    """The image with its cells permuted, for more saliency in the wanted cells.

    Args:
      image: f32[h w c], h and w divisible by the cells.
      saliency: f32[cells cells] of sum 1.
      wanted: bool[cells cells], where the image will be seen.
      epsilon: price of a squared distance, in units of saliency.
    """
    cells = len(saliency)
    height, width, channels = image.shape
    cost = epsilon * jnp.asarray(distances(cells)) - saliency.reshape(-1, 1) * wanted.reshape(1, -1)
    source = assign(cost)
    tiles = image.reshape(cells, height // cells, cells, width // cells, channels).swapaxes(1, 2)
    tiles = tiles.reshape(cells * cells, *tiles.shape[2:])[source].reshape(tiles.shape)
    return tiles.swapaxes(1, 2).reshape(image.shape)
