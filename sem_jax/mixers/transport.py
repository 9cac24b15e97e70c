"""Rearranges the cells of an image so that salient ones come to where they are seen: the transport of PuzzleMix.

moved = transport(image, saliency, wanted, epsilon=0.8)      # the same cells in another order
"""

import jax
import jax.numpy as jnp
import numpy as np


def distances(cells: int) -> np.ndarray:
    """Squared distances between the cells of a grid in sides of the image, f32[cells^2 cells^2]."""
    places = np.stack(np.indices((cells, cells)), axis=-1).reshape(-1, 2) / max(cells - 1, 1)
    return np.square(places[:, None] - places[None]).sum(-1).astype(np.float32)


def assign(cost: jax.Array, rounds: int) -> jax.Array:
    """A permutation of small cost: every row bids for its cheapest column, the loser of a column pays 1 more for it.

    After the rounds, the rows that have nothing get the columns that are left, in order: nothing is lost, nothing
    comes twice. (The paper's algorithm, which leaves those places black.)

    Args:
      cost: f32[n n], of source and destination.
      rounds: of bidding.

    Returns:
      i32[n], the source of each destination.
    """
    n = len(cost)

    def bid(cost):
        column = jnp.argmin(cost, axis=1)
        offers = jnp.where(column[:, None] == jnp.arange(n)[None, :], cost, jnp.inf)
        winner = jnp.argmin(offers, axis=0)
        taken = jnp.isfinite(jnp.min(offers, axis=0))
        won = winner[column] == jnp.arange(n)
        return column, winner, taken, won

    def round_(_, cost):
        column, _, _, won = bid(cost)
        return cost.at[jnp.arange(n), column].add(jnp.where(won, 0.0, 1.0))

    _, winner, taken, won = bid(jax.lax.fori_loop(0, rounds, round_, cost))
    idle = jnp.argsort(won, stable=True)  # the rows without a column come first, in order
    place = jnp.cumsum(~taken) - 1
    return jnp.where(taken, winner, idle[place])


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
    cost = epsilon * distances(cells) - saliency.reshape(-1, 1) * wanted.reshape(1, -1)
    source = assign(cost, rounds=cells)
    tiles = image.reshape(cells, height // cells, cells, width // cells, channels).swapaxes(1, 2)
    tiles = tiles.reshape(cells * cells, *tiles.shape[2:])[source].reshape(tiles.shape)
    return tiles.swapaxes(1, 2).reshape(image.shape)
