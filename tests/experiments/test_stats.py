"""Means and bootstrap intervals against slow ones that draw item by item."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments.paper import stats


def test_one_value_has_no_deviation_and_no_value_no_mean():
    assert stats.mean_sd([0.5]) == (0.5, None, 1)
    assert stats.mean_sd([]) == (None, None, 0)
    mean, sd, n = stats.mean_sd([1.0, 2.0, 4.0])
    np.testing.assert_allclose([mean, sd, n], [7 / 3, np.sqrt(7 / 3), 3])


def test_pairs_are_averaged_over_seeds_item_by_item():
    first = [[True, False, True], [True, True, False]]
    second = [[False, False, True], [True, False, True]]
    np.testing.assert_allclose(stats.paired(first, second), [0.5, 0.5, -0.5])


@pytest.mark.parametrize("kind", ["few values", "many values"])
def test_the_interval_of_a_mean_is_the_one_of_drawing_item_by_item(rng, kind):
    values = rng.choice([-1.0, 0.0, 1.0], 60, p=[0.1, 0.6, 0.3]) if kind == "few values" else rng.normal(0.2, 1.0, 60)
    drawn = np.sort([values[rng.integers(0, 60, 60)].mean() for _ in range(20_000)])
    low, high = stats.mean_interval(values)
    # Two Monte Carlo errors of a percentile at 10,000 draws are about 4% of the width.
    width = drawn[int(0.975 * 20_000)] - drawn[int(0.025 * 20_000)]
    assert (
        abs(low - drawn[int(0.025 * 20_000)]) < 0.06 * width and abs(high - drawn[int(0.975 * 20_000)]) < 0.06 * width
    )
    assert stats.mean_interval(values) == (low, high), "the same numbers every time"
    if kind == "many values":
        assert stats.mean_interval(values, seed=1) != (low, high)


def test_pairing_is_what_makes_the_interval_narrow(rng):
    """Two methods that agree on nearly all items: the unpaired interval would be ten times as wide."""
    without = rng.random(2000) < 0.5
    with_sem = without.copy()
    with_sem[np.flatnonzero(~without)[:20]] = True
    low, high = stats.mean_interval(stats.paired([with_sem], [without]))
    assert 0.004 < low < 0.01 < high < 0.017


def test_auroc_is_scikit_learns_also_with_ties(rng):
    inside, outside = rng.integers(0, 12, 70) + 2, rng.integers(0, 12, 50)
    truth = np.r_[np.ones(70), np.zeros(50)]
    np.testing.assert_allclose(stats.auroc(inside, outside), roc_auc_score(truth, np.r_[inside, outside]))


def test_the_interval_of_an_auroc_difference_is_the_one_of_drawing_items(rng):
    runs = [
        (rng.normal(1, 1, 40), rng.normal(0, 1, 30), rng.normal(0.5, 1, 40), rng.normal(0, 1, 30)) for _ in range(2)
    ]
    (low, high), both = stats.auroc_intervals(runs, draws=2000)
    drawn = []
    for _ in range(2000):
        i, j = rng.integers(0, 40, 40), rng.integers(0, 30, 30)
        of = [[(r[k][i][:, None] > r[k + 1][j]).mean() for k in (0, 2)] for r in runs]
        drawn.append(np.mean([a - b for a, b in of]))
    slow = np.quantile(drawn, [0.025, 0.975])
    assert np.abs(np.array([low, high]) - slow).max() < 0.12 * (slow[1] - slow[0])
    # Over seeds too: both are drawn anew, each drawn seed on the same drawn items.
    by_seed = np.array([auroc_difference(*run) for run in runs])
    assert both is not None and both[0] < min(low, by_seed.min() + 0.1) and both[1] > max(high, by_seed.max() - 0.1)


def auroc_difference(a, b, c, d):
    return stats.auroc(a, b) - stats.auroc(c, d)


def test_the_interval_over_seeds_and_items_is_the_one_of_drawing_both(rng):
    values = (rng.random((3, 80)) < np.array([[0.4], [0.5], [0.7]])) * 1.0
    items, both = stats.mean_intervals(values)
    assert items == stats.mean_interval(values.mean(axis=0)), "the one in the tables"
    drawn = [values[rng.integers(0, 3, 3)][:, rng.integers(0, 80, 80)].mean() for _ in range(20_000)]
    slow = np.quantile(drawn, [0.025, 0.975])
    assert both and np.abs(np.subtract(both, slow)).max() < 0.08 * (slow[1] - slow[0])
    assert both[1] - both[0] > 1.5 * (items[1] - items[0])
    assert stats.mean_intervals(values[:1]).both is None, "one seed says nothing of others"
