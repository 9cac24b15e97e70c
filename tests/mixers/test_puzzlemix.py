"""PuzzleMix: the energy of its masks against exact minima, its transport against exact assignments."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

from sem_jax.mixers.puzzlemix import (
    LABELS,
    PuzzlemixDraw,
    PuzzlemixOptions,
    apply_puzzlemix,
    energy,
    pool_saliency,
    solve_mask,
    transport_grid,
    unary_costs,
)
from sem_jax.mixers.transport import assign, distances, transport

BETA, ETA = 1.2, 0.2
OPTIONS = PuzzlemixOptions(blocks=(2, 4, 8, 16), eta=ETA, beta=BETA, move=True, epsilon=0.8)


def problem(rng, n):
    """Two saliency maps with peaks, as gradients have, and a prior weight."""
    maps = [rng.gamma(0.5, size=(n, n)) + 1e-3 for _ in range(2)]
    maps = [jnp.asarray(m / m.sum(), jnp.float32) for m in maps]
    return unary_costs(*maps, jnp.float32(rng.uniform(0.05, 0.95)), ETA), n * BETA / 16


def exact_minimum(unary, weight):
    """min E in float64, by a minimum cut: each cell is [z >= 1/2] and [z >= 1], the energy submodular in them."""
    unary = np.asarray(unary, np.float64)
    n = unary.shape[1]
    linear = np.stack([unary[1] - unary[0], unary[2] - unary[1]])  # [2 n n]
    node = np.arange(2 * n * n).reshape(2, n, n)
    source, sink, scale = 2 * n * n, 2 * n * n + 1, 1e6
    edges = {}

    def edge(a, b, capacity):
        edges[a, b] = edges.get((a, b), 0) + capacity

    pairs = [((i, j), (i + di, j + dj)) for i, j in np.ndindex(n, n) for di, dj in ((0, 1), (1, 0))]
    for p, q in pairs:
        if max(q) < n:
            for cell in (p, q):
                linear[0][cell] -= weight / 4
                linear[1][cell] += weight / 4
            for a, b in itertools.product((0, 1), repeat=2):
                edge(node[a][p], node[b][q], weight / 4)
                edge(node[b][q], node[a][p], weight / 4)
    for cell in np.ndindex(n, n):
        edge(node[1][cell], node[0][cell], 1e3)  # z >= 1 has z >= 1/2
        for level in (0, 1):
            cost = linear[level][cell]
            edge(node[level][cell], sink, cost) if cost > 0 else edge(source, node[level][cell], -cost)
    rows, columns = zip(*edges, strict=True)
    capacities = np.round(np.array(list(edges.values())) * scale).astype(np.int32)
    graph = scipy.sparse.csr_array((capacities, (rows, columns)), shape=(sink + 1, sink + 1))
    cut = scipy.sparse.csgraph.maximum_flow(scipy.sparse.csr_array(graph), source, sink).flow_value / scale
    return unary[0].sum() + np.minimum(linear, 0).sum() + cut


@pytest.mark.parametrize("n", [2, 3])
def test_the_exact_solver_is_exact(rng, n):
    """Against all 3^(n n) masks."""
    unary, weight = problem(rng, n)
    masks = jnp.asarray(list(itertools.product(LABELS.tolist(), repeat=n * n)), jnp.float32).reshape(-1, n, n)
    best = float(jax.jit(jax.vmap(energy, in_axes=(0, None, None)))(masks, unary, weight).min())
    np.testing.assert_allclose(exact_minimum(unary, weight), best, rtol=1e-4)


def test_energies_of_the_masks_are_close_to_the_exact_minima(rng):
    """Over 25 problems a grid: within 0.5% on average, 3% at worst; the best constant mask is 3% or more above."""
    for n in (2, 4, 8, 16):
        problems = [problem(rng, n) for _ in range(25)]
        weight = problems[0][1]
        unary = jnp.stack([u for u, _ in problems])
        masks = jax.jit(jax.vmap(lambda u, w=weight: solve_mask(u, w)))(unary)
        assert set(np.unique(masks)) <= {0.0, 0.5, 1.0}
        found = np.asarray(jax.vmap(lambda z, u, w=weight: energy(z, u, w))(masks, unary))
        exact = np.array([exact_minimum(u, weight) for u in unary])
        gap = found / exact - 1
        print(f"n={n}: gap mean {gap.mean():.2e}, largest {gap.max():.2e}, exact {np.mean(gap < 1e-5):.0%}")
        assert gap.min() > -1e-4  # no mask can be below: else one of the two computes another energy
        assert gap.mean() < 5e-3 and gap.max() < 3e-2
        constant = np.asarray(unary.sum((2, 3)).min(axis=1)) / exact - 1
        assert constant.mean() > 0.03


def test_a_salient_half_is_kept_and_smoothness_joins_what_is_scattered():
    """x_i is salient at the left, x_j at the right: so is the mask."""
    left = jnp.zeros((4, 4)).at[:, :2].set(1 / 8)
    unary = unary_costs(left, left[:, ::-1], jnp.float32(0.5), ETA)
    np.testing.assert_array_equal(solve_mask(unary, 4 * BETA / 16), np.repeat([[1, 1, 0, 0]], 4, axis=0))
    checkers = jnp.asarray(np.indices((4, 4)).sum(0) % 2, jnp.float32) / 8
    unary = unary_costs(checkers, 1 / 8 - checkers, jnp.float32(0.5), ETA)
    assert set(np.unique(solve_mask(unary, 0.0))) == {0.0, 1.0}
    assert len(np.unique(solve_mask(unary, 10.0))) == 1


def test_the_cells_of_a_map_of_any_size(rng):
    saliency = rng.uniform(size=(8, 12))
    expected = saliency.reshape(4, 2, 4, 3).mean((1, 3))
    np.testing.assert_allclose(pool_saliency(jnp.float32(saliency), 4), expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(pool_saliency(jnp.zeros((5, 7)), 2), 0.25, rtol=1e-5)


def test_assignments_are_permutations_near_the_best(rng):
    """Sum of costs against the exact assignment, on costs of the kind at hand: n STEP above it at most."""
    excess, saved, solve = [], [], jax.jit(assign)
    for _ in range(20):
        saliency = rng.gamma(0.5, size=64)
        wanted = np.repeat(np.repeat(rng.uniform(size=(4, 4)) < 0.5, 2, axis=0), 2, axis=1).ravel()
        cost = 0.8 * distances(8) - (saliency / saliency.sum())[:, None] * wanted[None]
        source = np.asarray(solve(jnp.asarray(cost, jnp.float32)))
        assert sorted(source.tolist()) == list(range(64))
        best = cost[scipy.optimize.linear_sum_assignment(cost)].sum()
        staying = np.trace(cost)
        excess.append((cost[source, np.arange(64)].sum() - best) / abs(best))
        saved.append((staying - best) / abs(best))
    print(f"transport: {np.mean(excess):.3f} above the best on average, {max(excess):.3f} at most")
    print(f"not moving at all: {np.mean(saved):.3f} above the best on average")
    assert np.mean(excess) < 0.01 and max(excess) < 0.05 < np.mean(saved)
    early = np.asarray(assign(jnp.asarray(cost, jnp.float32), 1))  # one that had to stop is a permutation too
    assert sorted(early.tolist()) == list(range(64))


def test_transport_keeps_every_pixel_and_brings_the_salient_cell_to_where_it_is_seen():
    image = jnp.arange(8 * 12 * 2, dtype=jnp.float32).reshape(8, 12, 2)
    saliency = jnp.zeros((4, 4)).at[0, 0].set(1.0)
    wanted = jnp.zeros((4, 4), bool).at[0, 1].set(True)
    moved = transport(image, saliency, wanted, epsilon=0.8)
    np.testing.assert_array_equal(jnp.sort(moved.ravel()), image.ravel())
    np.testing.assert_array_equal(moved[:2, 3:6], image[:2, :3])
    np.testing.assert_array_equal(transport(image, saliency, ~wanted & False, epsilon=0.8), image)


def test_grids_for_the_transport():
    assert [transport_grid(n, (32, 32)) for n in (2, 4, 8, 16)] == [8, 8, 8, 16]
    assert [transport_grid(n, (8, 6)) for n in (2, 4)] == [2, 0]
    assert transport_grid(2, (7, 8)) == 0


def test_all_grids_of_a_cifar_image(rng):
    """lam is the mask's mean of each pair, and pixels follow it, on every grid."""
    maps = [jnp.asarray(rng.gamma(0.5, size=(32, 32)), jnp.float32) for _ in range(2)]

    @jax.jit
    def lams(grid):
        draw = PuzzlemixDraw(jnp.float32(0.5), grid)
        mixed, lam = apply_puzzlemix(draw, jnp.ones((32, 32, 1)), jnp.zeros((32, 32, 1)), *maps, options=OPTIONS)
        return jnp.mean(mixed), lam

    for i in range(4):
        mean, lam = lams(jnp.int32(i))
        np.testing.assert_allclose(mean, lam, atol=1e-6)
        assert 0.1 < float(lam) < 0.9
