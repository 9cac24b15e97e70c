"""PuzzleMix (Kim et al. 2020): rearranges both images, then mixes them by a mask that keeps what is salient.

    mix = make_mix(make_puzzlemix(alpha=1.0))
    mixed, (lam, pairing) = mix(key, images, labels=labels, scorer=scorer)      # scorer(images, labels) -> saliency

The trainer gives the saliency of the label's loss under the current net (`saliency.gradient_saliency`), which costs a
forward and a backward pass. On a grid of n x n cells, n = 2, 4, 8 or 16, the mask z with values {0, 1/2, 1} minimises

    E(z) = sum_p (1 - z_p) s_i(p) + z_p s_j(p)  -  eta / n^2 sum_p log Binomial(2 z_p; 2, lam)
           + beta / (16 n) sum_(p, q neighbours) (z_p - z_q)^2,          s_i, s_j >= 0 with sum 1,

Then the cells of each image are permuted (`transport`) so that salient cells move to where the image is seen, at a cost
of epsilon times the squared distance. The permutation is an auction's; the paper's own rounds lose cells.

The paper minimises with a graph cut on the CPU (alpha-beta swaps). Here annealed mean field on a checkerboard competes
with plain descents; a test measures the gap to the exact minimum. The paper's term gamma, by which colours decide where
a seam is cheap, is left out. lam is mean(mask) of each pair, not the drawn one. The label loss is the softmax
cross-entropy, as for every mixer; the paper's is a binary cross-entropy of the softmax.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Key, Scorer
from sem_jax.mixers.masks import blend, cells_of, on_pixels
from sem_jax.mixers.mixer import Mixer, check_alpha, require, sample_beta
from sem_jax.mixers.transport import transport

LABELS = np.array([0.0, 0.5, 1.0], np.float32)  # of z
SWEEPS, DESCENTS = 24, 6
TINY = 1e-8


class PuzzlemixDraw(NamedTuple):
    lam: jax.Array  # f32[], of the prior; not the resulting lam
    grid: jax.Array  # i32[], index into `grids_of` the image


class PuzzlemixOptions(NamedTuple):
    """See `make_puzzlemix`."""

    blocks: tuple[int, ...]
    eta: float
    beta: float
    move: bool
    epsilon: float


def grids_of(image_shape: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[int, ...]:
    """The grids whose cells have at least two pixels a side; a single cell for an image too small for any."""
    return tuple(n for n in blocks if 2 * n <= min(image_shape[:2])) or (1,)


def sample_puzzlemix(
    key: Key, image_shape: tuple[int, int, int], *, alpha: float, blocks: tuple[int, ...]
) -> PuzzlemixDraw:
    """lam ~ Beta(alpha, alpha) and one of the grids."""
    lam_key, grid_key = jax.random.split(key)
    count = len(grids_of(image_shape, blocks))
    return PuzzlemixDraw(sample_beta(lam_key, alpha), jax.random.randint(grid_key, (), 0, count))


def unary_costs(anchor: jax.Array, partner: jax.Array, lam: jax.Array, eta: float) -> jax.Array:
    """n^2 times the terms of E that depend on one cell each, f32[3 n n], for z = 0, 1/2, 1; of s_i and s_j f32[n n]."""
    chances = jnp.stack([jnp.square(1.0 - lam), 2.0 * lam * (1.0 - lam), jnp.square(lam)])
    prior = -eta * jnp.log(chances + TINY)
    z = jnp.asarray(LABELS)[:, None, None]
    return anchor.size * ((1.0 - z) * anchor[None] + z * partner[None]) + prior[:, None, None]


def energy(z: jax.Array, unary: jax.Array, weight: float) -> jax.Array:
    """n^2 E(z), f32[], of z f32[n n] and `unary_costs`; `weight` is that of two neighbours, n beta / 16."""
    own = jnp.sum(jnp.where(z[None] == LABELS[:, None, None], unary, 0.0))
    seams = jnp.sum(jnp.square(jnp.diff(z, axis=0))) + jnp.sum(jnp.square(jnp.diff(z, axis=1)))
    return own + weight * seams


def sum_around(grid: jax.Array) -> jax.Array:
    """The sum of the neighbours above, below, left and right of every cell, f32[n n]."""
    padded = jnp.pad(grid, 1)
    return padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]


def solve_mask(unary: jax.Array, weight: float) -> jax.Array:
    """z f32[n n] of small energy: the best of descents to a local minimum from five starts.

    They are checkerboard mean field, cooled from 1 to 0.01, the best label of each cell alone, and the constant masks.
    """
    size = unary.shape[1]
    row, column = np.indices((size, size))
    even = (row + column) % 2 == 0
    degree = sum_around(jnp.ones((size, size), unary.dtype))
    z_all = jnp.asarray(LABELS)[:, None, None]

    def local(mean):  # cost of each label of a cell, up to a constant, given the means of its neighbours
        return unary + weight * (jnp.square(z_all) * degree[None] - 2.0 * z_all * sum_around(mean)[None])

    def cool(i, mean):
        temperature = 0.01 ** (jnp.asarray(i, unary.dtype) / (SWEEPS - 1))
        for color in (even, ~even):
            chances = jax.nn.softmax(-local(mean) / temperature, axis=0)
            mean = jnp.where(color, jnp.sum(chances * z_all, axis=0), mean)
        return mean

    def descend(mean):
        for color in (even, ~even) * DESCENTS:
            mean = jnp.where(color, jnp.asarray(LABELS)[jnp.argmin(local(mean), axis=0)], mean)
        return mean

    alone = jnp.asarray(LABELS)[jnp.argmin(unary, axis=0)]
    annealed = jax.lax.fori_loop(0, SWEEPS, cool, jnp.full((size, size), 0.5, unary.dtype))
    starts = jnp.stack([annealed, alone, *[jnp.full((size, size), v) for v in LABELS]])
    found = jax.vmap(descend)(starts)
    return found[jnp.argmin(jax.vmap(energy, in_axes=(0, None, None))(found, unary, weight))]


def pool_saliency(saliency: jax.Array, cells: int) -> jax.Array:
    """The mean of a map f32[h w] in each cell, f32[cells cells], scaled to sum 1; a map of zeros becomes uniform."""
    sides = [np.eye(cells, dtype=np.float32)[cells_of(side, cells)] for side in saliency.shape]
    rows, columns = (x / np.maximum(x.sum(0), 1.0) for x in sides)
    pooled = rows.T @ saliency.astype(jnp.float32) @ columns + TINY
    return pooled / jnp.sum(pooled)


def apply_puzzlemix(
    draw: PuzzlemixDraw,
    anchor: jax.Array,
    partner: jax.Array,
    anchor_map: jax.Array,
    partner_map: jax.Array,
    *,
    options: PuzzlemixOptions,
) -> tuple[jax.Array, jax.Array]:
    """mask Pi_i x_i + (1 - mask) Pi_j x_j, with Pi the permutations of cells, and mean(mask); see `Mixer.apply`.

    The maps are the saliency of the two images, f32[gh gw] >= 0.
    """
    height, width, _ = anchor.shape

    def on_grid(n):
        def run():
            maps = pool_saliency(anchor_map, n), pool_saliency(partner_map, n)
            z = solve_mask(unary_costs(*maps, draw.lam, options.eta), n * options.beta / 16.0)
            moved = (anchor, partner)
            if options.move and (cells := transport_grid(n, (height, width))):
                fine = jnp.repeat(jnp.repeat(z, cells // n, axis=0), cells // n, axis=1)
                moved = (
                    transport(anchor, pool_saliency(anchor_map, cells), fine > 0.0, epsilon=options.epsilon),
                    transport(partner, pool_saliency(partner_map, cells), fine < 1.0, epsilon=options.epsilon),
                )
            return blend(on_pixels(z, anchor.shape), *moved)

        return run

    return jax.lax.switch(draw.grid, [on_grid(n) for n in grids_of(anchor.shape, options.blocks)])


def transport_grid(n: int, shape: tuple[int, int]) -> int:
    """Cells a side for the transport; 0 = none. They are max(n, 8), or fewer where that does not divide the image.

    8 cells have the paper's 4 pixels at 32.
    """
    cells = max(n, 8)
    while cells >= n and (shape[0] % cells or shape[1] % cells or cells % n):
        cells //= 2
    return cells if cells >= max(n, 2) else 0


def make_puzzlemix(
    *,
    alpha: float = 1.0,
    blocks: tuple[int, ...] = (2, 4, 8, 16),
    eta: float = 0.2,
    beta: float = 1.2,
    move: bool = True,
    epsilon: float = 0.8,
    scorer: Scorer | None = None,
) -> Mixer:
    """PuzzleMix.

    Args:
      alpha: concentration of the prior weight, > 0.
      blocks: cells a side; one is drawn for a batch, as in the paper. Cells of less than two pixels are left out.
      eta: weight of the prior, >= 0.
      beta: weight of the mask's smoothness, >= 0.
      move: permute the cells.
      epsilon: price of moving a cell, per squared distance in sides of the image, >= 0.
      scorer: (images, labels) -> f32[b gh gw], for calls of `mix` without one.
    """
    check_alpha(alpha)
    fitting = all(0.0 <= value < float("inf") for value in (eta, beta, epsilon))
    require(fitting, "puzzlemix needs eta, beta and epsilon >= 0 and finite", eta, beta, epsilon)
    fitting = bool(blocks) and all(type(n) is int and n >= 1 for n in blocks)
    require(fitting, "puzzlemix needs blocks >= 1, such as (2, 4, 8, 16)", blocks)

    def score(images, labels, given):
        if (use := given or scorer) is None:
            raise ConfigError("puzzlemix needs a scorer: mix(key, images, labels=labels, scorer=...)")
        return use(images, labels)

    options = PuzzlemixOptions(tuple(blocks), eta, beta, move, epsilon)
    sample = partial(sample_puzzlemix, alpha=alpha, blocks=options.blocks)
    return Mixer(sample, partial(apply_puzzlemix, options=options), score, shared=("grid",))
