"""Paired intervals against theory and by hand; what a comparison says of two runs."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sem_jax.errors import RunError
from sem_jax.evaluation.comparison import _better, difference
from sem_jax.evaluation.context import Result
from sem_jax.evaluation.measures.paired import Difference, auroc_difference, mean_difference


def test_a_mean_difference_has_the_interval_of_theory():
    rng = np.random.default_rng(0)
    first = rng.random(4000) < 0.7
    second = np.where(rng.random(4000) < 0.9, first, ~first)  # the runs agree on most items: pairing narrows it
    change = second.astype(float) - first
    found = mean_difference(first, second)
    half = 1.96 * change.std(ddof=1) / np.sqrt(len(change))
    assert found.value == pytest.approx(change.mean(), abs=1e-12)
    assert [found.value - found.low, found.high - found.value] == pytest.approx([half, half], rel=0.1)
    assert found == mean_difference(first, second)  # the same numbers every time


def test_what_cannot_be_resampled():
    assert mean_difference([1.0, 2.0], [1.5, 2.5]) == Difference(0.5, 0.5, 0.5)
    assert mean_difference([1.0, np.nan], [np.nan, 2.0]) is None
    assert mean_difference([1.0, np.nan], [3.0, 2.0]).value == 2.0
    with pytest.raises(RunError, match="paired items"):
        mean_difference([1.0], [1.0, 2.0])
    with pytest.raises(RunError, match="agree in number"):
        auroc_difference(([1], [0]), ([1], [0, 1]))


def test_an_auroc_difference_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(1)
    runs = [(rng.integers(2, 9, 200), rng.integers(0, 7 + run, 150)) for run in (0, 1)]
    truth = np.repeat([1, 0], [200, 150])
    areas = [roc_auc_score(truth, np.concatenate(scores)) for scores in runs]
    found = auroc_difference(*runs, draws=200)
    assert found.value == pytest.approx(areas[1] - areas[0], abs=1e-12)
    assert found.low < found.value < found.high and found.high - found.low < 0.2


def test_each_scalar_finds_its_items():
    right = np.array([True, True, False, False])
    one = Result(items={"correct test": right, "correct CINIC": right, "correct fog 1": right, "correct fog 2": ~right})
    two = Result(items={name: np.ones(4, bool) for name in one.items})
    assert difference("top1", one, two).value == difference("top1 CINIC", one, two).value == 0.5
    cells = {name: it for name, it in one.items.items() if "fog" in name}
    assert difference("mean accuracy", Result(items=cells), two) == Difference(
        0.5, 0.5, 0.5
    )  # one image, all its cells
    assert difference("brier", one, two) is None and difference("AUROC msp SVHN", one, two) is None


def test_better_is_said_only_of_a_whole_interval():
    up = Difference(0.1, 0.05, 0.2)
    assert _better("top1", up, "a", "b") == "b" and _better("nll", up, "a", "b") == "a"
    assert _better("top1", Difference(0.1, -0.1, 0.2), "a", "b") == "not clear"
    assert _better("temperature", up, "a", "b") == "" == _better("top1", None, "a", "b")
