"""Classification metrics against hand-made examples and plain NumPy counts."""

import numpy as np
import pytest

from sem_jax.errors import RunError
from sem_jax.evaluation.measures import metrics

HAND = np.log(np.array([[0.8, 0.2], [0.4, 0.6]]))  # two items, two classes, the second is wrong for label 0


def case(seed=0, n=500, k=10):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)).astype(np.float32) * 3, rng.integers(0, k, n).astype(np.int32)


def test_hand_computed_two_by_two():
    labels = np.array([0, 0])
    assert metrics.top1(HAND, labels) == 0.5
    assert metrics.top5(HAND, labels) == 1.0
    np.testing.assert_allclose(metrics.nll(HAND, labels), -(np.log(0.8) + np.log(0.4)) / 2, rtol=1e-14)
    np.testing.assert_allclose(metrics.brier(HAND, labels), (2 * 0.2**2 + 2 * 0.6**2) / 2, rtol=1e-14)
    assert metrics.confusion_matrix(HAND, labels).tolist() == [[1, 1], [0, 0]]
    accuracy = metrics.per_class_accuracy(HAND, labels)
    assert accuracy[0] == 0.5 and np.isnan(accuracy[1])


@pytest.mark.parametrize("k", [2, 3, 10, 100])
def test_top1_and_top5_equal_a_count(k):
    logits, labels = case(k=k)
    assert metrics.top1(logits, labels) == np.sum(logits.argmax(1) == labels) / len(labels)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert metrics.top5(logits, labels) == np.mean((best == labels[:, None]).any(axis=1))


def test_ties_go_to_the_lower_class_as_in_argmax():
    logits, labels = case(k=7)
    logits = np.round(logits / 3)
    assert metrics.top1(logits, labels) == np.mean(logits.argmax(1) == labels)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert metrics.top5(logits, labels) == np.mean((best == labels[:, None]).any(axis=1))
    assert metrics.top1(np.zeros((3, 4)), np.array([0, 1, 2])) == 1 / 3


def test_matrix_and_class_accuracy_agree_with_top1():
    logits, labels = case()
    matrix = metrics.confusion_matrix(logits, labels)
    assert matrix.sum() == len(labels) and np.array_equal(matrix.sum(1), np.bincount(labels, minlength=10))
    assert matrix.trace() / len(labels) == metrics.top1(logits, labels)
    for label in range(10):
        expected = np.mean(logits[labels == label].argmax(1) == label)
        np.testing.assert_allclose(metrics.per_class_accuracy(logits, labels)[label], expected, rtol=1e-14)


def test_nll_and_brier_against_a_plain_loop():
    logits, labels = case(n=50)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    losses = [-np.log(row[y]) for row, y in zip(p, labels, strict=True)]
    np.testing.assert_allclose(metrics.nll(logits, labels), np.mean(losses), rtol=1e-13)
    squares = [sum((row[c] - (c == y)) ** 2 for c in range(10)) for row, y in zip(p, labels, strict=True)]
    np.testing.assert_allclose(metrics.brier(logits, labels), np.mean(squares), rtol=1e-13)


def test_large_logits_do_not_overflow_and_a_shift_changes_nothing():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    assert metrics.nll(logits, np.array([0, 0])) == 5e3
    shifted, labels = case()
    assert abs(metrics.nll(shifted.astype(np.float64) + 500, labels) - metrics.nll(shifted, labels)) < 1e-10


@pytest.mark.parametrize("metric", [*metrics.METRICS.values(), metrics.confusion_matrix, metrics.per_class_accuracy])
def test_not_finite_is_refused_with_the_number_of_rows(metric):
    logits, labels = case()
    logits[3, 1], logits[7] = np.nan, np.inf
    with pytest.raises(RunError, match=r"2 of 500 rows are not finite \(the first is row 3\)"):
        metric(logits, labels)


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (np.zeros((0, 3)), np.zeros(0, int), "no rows"),
        (np.zeros(3), np.zeros(3, int), r"\[n k\]"),
        (np.zeros((3, 2)), np.zeros(2, int), "n=3"),
        (np.zeros((3, 2)), np.zeros((3, 1), int), "n=3"),
        (np.zeros((3, 2)), np.zeros(3), "integers"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), r"\[0, 2\).*got 0 to 2"),
        (np.zeros((3, 2)), np.array([0, -1, 1]), "got -1 to 1"),
    ],
)
def test_wrong_arrays_are_refused(logits, labels, message):
    with pytest.raises(RunError, match=message):
        metrics.top1(logits, labels)


def test_classification_has_every_metric():
    logits, labels = case()
    assert metrics.classification(logits, labels) == {n: f(logits, labels) for n, f in metrics.METRICS.items()}


CELLS = {("fog", 1): 0.9, ("fog", 2): 0.7, ("snow", 1): 0.8, ("snow", 2): 0.4}


def test_corruption_table_by_hand():
    table = metrics.corruption_table(dict(reversed(CELLS.items())))
    assert table.corruptions == ("snow", "fog") and table.severities == (1, 2)
    np.testing.assert_allclose(table.accuracy, [[0.8, 0.4], [0.9, 0.7]])
    np.testing.assert_allclose([table.mean_accuracy, table.mean_error], [0.7, 0.3])
    np.testing.assert_allclose(table.by_corruption, [0.6, 0.8])
    np.testing.assert_allclose(table.by_severity, [0.85, 0.55])


def test_incomplete_corruption_tables_give_no_number():
    with pytest.raises(RunError, match="1 cells .* missing: fog 2"):
        metrics.corruption_table({key: value for key, value in CELLS.items() if key != ("fog", 2)})
    with pytest.raises(RunError, match="empty"):
        metrics.corruption_table({})
    for wrong in (93.0, float("nan")):
        with pytest.raises(RunError, match="in \\[0, 1\\]"):
            metrics.corruption_table(CELLS | {("fog", 2): wrong})
