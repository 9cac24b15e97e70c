"""Equivariance numbers where theory knows them: linear maps, hand-made pairs, ranks of known matrices."""

import sys
import types

import numpy as np
import pytest

from sem_jax.errors import ConfigError, RunError
from sem_jax.evaluation.measures import equivariance as eq
from sem_jax.evaluation.suites.equivariance import tables

LAMS = np.linspace(0, 1, 11)


def pairs(seed=0, n=40, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, d))


def test_a_linear_map_has_no_error():
    anchor, partner = pairs()
    for lam in (LAMS, np.random.default_rng(1).random((11, 40))):
        mixed = eq.mixtures(anchor, partner, lam)
        result = eq.equivariance(mixed, anchor, partner, lam)
        assert result.absolute.mean.max() < 1e-14 and result.relative.quantiles.max() < 1e-14
        np.testing.assert_allclose(result.cosine.mean, 1.0)
        np.testing.assert_allclose(result.lam, lam.reshape(11, -1).mean(axis=1))
        np.testing.assert_allclose(result.norm, np.linalg.norm(mixed, axis=2).mean(axis=1))
        assert result.pairs == 40 and result.equal_pairs == 0


def test_by_hand():
    anchor, partner = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    mixed = np.array([[[1.0, 0.0]], [[2.0, 0.0]]])  # the mixtures are (1, 1) and (2, 0)
    result = eq.equivariance(mixed, anchor, partner, np.array([0.5, 1.0]))
    np.testing.assert_allclose(result.absolute.mean, [1.0, 0.0])
    np.testing.assert_allclose(result.relative.mean, [1 / np.sqrt(8), 0.0])
    np.testing.assert_allclose(result.cosine.mean, [1 / np.sqrt(2), 1.0])
    np.testing.assert_allclose(result.norm, [1.0, 2.0])
    assert result.clean_norm == 2.0


def test_scaling_the_features_moves_the_absolute_error_only():
    anchor, partner = pairs()
    mixed = np.tanh(eq.mixtures(anchor, partner, LAMS))
    one = eq.equivariance(mixed, anchor, partner, LAMS)
    small = eq.equivariance(mixed * 0.01, anchor * 0.01, partner * 0.01, LAMS)
    np.testing.assert_allclose(small.relative.quantiles, one.relative.quantiles)
    np.testing.assert_allclose(small.absolute.mean, one.absolute.mean * 0.01)
    np.testing.assert_allclose(small.rank, one.rank)
    np.testing.assert_allclose(
        one.relative.quantiles[5, 2],
        np.median(np.linalg.norm(mixed[5] - (anchor + partner) / 2, axis=1) / np.linalg.norm(anchor - partner, axis=1)),
    )


def test_equal_pairs_are_left_out_and_counted():
    anchor, partner = pairs()
    partner[:3] = anchor[:3]
    partner[2] *= 1 + 1e-8  # float32 noise counts as equal too
    mixed = eq.mixtures(anchor, partner, LAMS) + 0.1
    result = eq.equivariance(mixed, anchor, partner, LAMS)
    others = eq.equivariance(mixed[:, 3:], anchor[3:], partner[3:], LAMS)
    assert result.equal_pairs == 3
    np.testing.assert_allclose(result.relative.mean, others.relative.mean)
    collapsed = eq.equivariance(np.ones((1, 4, 2)), np.ones((4, 2)), np.ones((4, 2)), [0.5])
    assert collapsed.equal_pairs == 4 and np.isnan(collapsed.relative.mean[0]) and collapsed.rank[0] == 0


@pytest.mark.filterwarnings("error")
def test_zero_features_have_no_cosine():
    result = eq.equivariance(np.zeros((1, 4, 2)), np.zeros((4, 2)), np.zeros((4, 2)), [0.5])
    assert np.isnan(result.cosine.mean[0]) and result.norm[0] == 0 and result.clean_rank == 0


def test_effective_rank_of_known_matrices():
    identity = np.eye(7)
    np.testing.assert_allclose(eq.effective_rank(np.concatenate([identity, -identity])), 7.0)
    np.testing.assert_allclose(eq.effective_rank(identity), 6.0)  # the mean takes one direction
    rng = np.random.default_rng(0)
    one = np.outer(rng.normal(size=50), rng.normal(size=9))
    np.testing.assert_allclose(eq.effective_rank(one), 1.0)
    np.testing.assert_allclose(eq.effective_rank(one + 1000.0), 1.0, rtol=1e-6)
    assert eq.effective_rank(np.full((20, 4), 3.3)) == 0.0
    p = np.array([3.0, 1.0]) / 4
    rows = np.diag([3.0, 1.0])
    np.testing.assert_allclose(eq.effective_rank(np.r_[rows, -rows]), np.exp(-(p * np.log(p)).sum()))


@pytest.mark.parametrize(
    "shape, lam, message",
    [
        ((2, 4, 3), [0.5], r"lam must be \[l\] or \[l n\]"),
        ((2, 5, 3), [0.5, 0.5], r"mixed must be \[l n d\]"),
        ((2, 4, 3), [0.5, 1.5], "got 0.5 to 1.5"),
        ((2, 4, 3), [0.5, np.nan], "lam must lie"),
    ],
)
def test_wrong_arrays_are_refused(shape, lam, message):
    anchor, partner = pairs(n=4, d=3)
    with pytest.raises(RunError, match=message):
        eq.equivariance(np.zeros(shape), anchor, partner, lam)


def test_features_that_are_not_finite_are_refused():
    anchor, partner = pairs(n=4, d=3)
    mixed = np.zeros((1, 4, 3))
    mixed[0, 2, 1] = np.nan
    with pytest.raises(RunError, match="mixed features at lam 0.50: 1 of 4 rows"):
        eq.equivariance(mixed, anchor, partner, [0.5])


def test_tables_have_a_row_for_each_run_and_lam():
    anchor, partner = pairs()
    result = eq.equivariance(np.tanh(eq.mixtures(anchor, partner, LAMS)), anchor, partner, LAMS)
    summary, by_lam = tables([("mixup", result), ("mixup + SEM", result)])
    assert [row[:2] for row in summary["rows"]] == [["mixup", 0.5], ["mixup + SEM", 0.5]]
    assert len(by_lam["rows"]) == 22
    for table in (summary, by_lam):
        assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_pca_plane_is_common_and_keeps_distances_of_planar_data():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    anchor, partner = rng.normal(size=(20, 2)) @ plane, rng.normal(size=(20, 2)) @ plane
    mixed = eq.mixtures(anchor, partner, LAMS) + (rng.normal(size=2) @ plane)
    picture = eq.embed(mixed, anchor, partner, LAMS)
    assert picture.mixed.shape == picture.target.shape == (11, 20, 2)
    expected = np.linalg.norm(mixed - eq.mixtures(anchor, partner, LAMS), axis=2)
    np.testing.assert_allclose(np.linalg.norm(picture.mixed - picture.target, axis=2), expected)
    again = eq.embed(mixed, anchor, partner, LAMS)
    assert np.array_equal(again.mixed, picture.mixed)
    assert eq.embed(mixed[..., :1], anchor[:, :1], partner[:, :1], LAMS).mixed.shape == (11, 20, 2)


def test_umap_gets_all_points_at_once_and_a_seed(monkeypatch):
    seen = {}

    class UMAP:
        def __init__(self, **options):
            seen.update(options)

        def fit_transform(self, points):
            seen["points"] = points
            return points[:, :2]

    module = types.ModuleType("umap")
    module.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", module)
    monkeypatch.setattr(eq, "umap_missing", lambda: "")
    anchor, partner = pairs(n=5)
    picture = eq.embed(np.tanh(eq.mixtures(anchor, partner, LAMS)), anchor, partner, LAMS, method="umap", seed=3)
    assert seen["points"].shape == (2 * 11 * 5, 5) and seen["random_state"] == 3
    np.testing.assert_allclose(picture.target[-1], anchor[:, :2], atol=1e-6)


def test_umap_that_is_not_installed_says_so_in_one_line(monkeypatch):
    monkeypatch.setattr(eq.importlib.util, "find_spec", lambda name: None)
    anchor, partner = pairs()
    with pytest.raises(RunError, match="^UMAP picture left out: umap-learn is not installed .*$"):
        eq.embed(eq.mixtures(anchor, partner, LAMS), anchor, partner, LAMS, method="umap")
    with pytest.raises(ConfigError, match="Unknown embedding 'tsne'"):
        eq.embed(eq.mixtures(anchor, partner, LAMS), anchor, partner, LAMS, method="tsne")
