"""The notes on runs that learned nothing, or may not."""

import numpy as np
import pytest
from scipy.stats import binomtest

from sem_jax.training.summary import chance, chance_warning, few_steps
from tests.helpers.training import configure


@pytest.mark.parametrize(("classes", "items"), [(10, 360), (2, 100), (3, 7)])
def test_near_chance_is_where_the_binomial_interval_includes_the_majority(classes, items):
    labels = np.arange(items) % classes
    share = np.bincount(labels).max() / items
    seen = set()
    for correct in range(items + 1):
        found = chance(correct / items, labels)
        expected = binomtest(correct, items).proportion_ci(0.95, "exact").low <= share
        assert found == {"majority_share": share, "near_chance": expected}, correct
        seen.add(expected)
    assert seen == {True, False}
    assert chance(float("nan"), labels)["near_chance"]


def test_the_notes_say_what_to_change():
    cfg, labels = configure("mixup+sem"), np.arange(100) % 10
    bad, good = ({"test_accuracy": it} | chance(it, labels) for it in (0.11, 0.5))
    note = chance_warning(cfg, bad, "test_accuracy")
    assert note.startswith("Note: test_accuracy 11.0% is near chance (the most frequent class is 10.0% of the data)")
    assert "objective.gamma_warmup=0.5" in note and chance_warning(cfg, good, "test_accuracy") == ""
    assert "gamma" not in chance_warning(configure("mixup"), bad, "test_accuracy")
    assert chance_warning(cfg, bad | {"test_accuracy": None}, "test_accuracy") == ""  # has a message of its own
    assert "an epoch has 9 steps only" in few_steps(cfg, 9) and "has 1 step only" in few_steps(cfg, 1)
    assert few_steps(cfg, 10) == ""
