"""Classification metrics of logits, and the summaries of a corruption x severity table.

Every function takes the logits of a whole data set, f32[n k], and its labels, i32[n], and computes in float64.
To add a metric, add a function (logits, labels) -> float and a line in `METRICS`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sem_jax.errors import RunError

Floats = NDArray[np.float64]


def require_finite(what: str, rows: ArrayLike, shape: str = "") -> Floats:
    """Returns `rows`, real[n] or real[n d], as float64. `what` is their name in messages.

    Raises:
      RunError: no rows, not of `shape` (such as "[n d]"), or rows with NaN or infinity: how many, and the first.
    """
    array = np.asarray(rows, np.float64)
    if array.ndim == 0 or array.size == 0:
        raise RunError(f"{what} has no rows to score, got shape {array.shape}")
    if shape and array.ndim != len(shape.split()):
        raise RunError(f"{what} must be {shape}, got shape {array.shape}")
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise RunError(
            f"{what}: {len(bad)} of {len(array)} rows are not finite (the first is row {bad[0]}); no number is given",
            "The checkpoint has diverged, or the images were not normalised as in training: score an earlier step.",
        )
    return array


def check(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Returns logits as f64[n k] and labels as i64[n].

    Raises:
      RunError: they cannot be scored; names the array and what was found.
    """
    scores, classes = require_finite("logits", logits, "[n k]"), np.asarray(labels)
    if classes.shape != scores.shape[:1]:
        raise RunError(f"labels must be [n] with n={len(scores)} as in logits, got shape {classes.shape}")
    if not np.issubdtype(classes.dtype, np.integer):
        raise RunError(f"labels must be integers, got dtype {classes.dtype}")
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high >= scores.shape[1]:
        raise RunError(f"labels must lie in [0, {scores.shape[1]}) for logits {scores.shape}, got {low} to {high}")
    return scores, classes.astype(np.int64)


def log_softmax(logits: Floats) -> Floats:
    """z - logsumexp(z) over the last axis, shifted by the maximum so that nothing overflows, f64[n k]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def top_k(logits: ArrayLike, labels: ArrayLike, k: int) -> float:
    """Fraction of items whose label is among the k largest logits, in [0, 1].

    Among equal logits the lower class comes first, as in `argmax`: top-1 is exactly `mean(argmax(logits) == labels)`.
    """
    scores, classes = check(logits, labels)
    own = np.take_along_axis(scores, classes[:, None], axis=1)
    before = np.arange(scores.shape[1]) < classes[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return float(np.mean(rank < k))


def top1(logits: ArrayLike, labels: ArrayLike) -> float:
    """Accuracy: fraction of items whose largest logit is that of the label, in [0, 1].

    >>> top1([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    0.5
    """
    return top_k(logits, labels, 1)


def top5(logits: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of items whose label is among the 5 largest logits, in [0, 1]; 1 with 5 classes or fewer."""
    return top_k(logits, labels, 5)


def nll(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood, -mean log p(y), in nats, >= 0."""
    scores, classes = check(logits, labels)
    return float(-np.mean(np.take_along_axis(log_softmax(scores), classes[:, None], axis=1)))


def brier(logits: ArrayLike, labels: ArrayLike) -> float:
    """Brier score, mean_n sum_c (p_c - [c = y])^2 (Brier 1950), in [0, 2]: summed, not averaged, over classes."""
    scores, classes = check(logits, labels)
    error = np.exp(log_softmax(scores))
    error[np.arange(len(error)), classes] -= 1.0
    return float(np.mean(np.square(error).sum(axis=1)))


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {"top1": top1, "top5": top5, "nll": nll, "brier": brier}


def classification(logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Every metric of `METRICS`."""
    return {name: metric(logits, labels) for name, metric in METRICS.items()}


def correct(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    """Which items are classified correctly, bool[n]; the mean is `top1`."""
    scores, classes = check(logits, labels)
    return scores.argmax(axis=1) == classes


def nll_of_each(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.float32]:
    """Negative log-likelihood of each item in nats, f32[n]; the mean is `nll`."""
    scores, classes = check(logits, labels)
    return -log_softmax(scores)[np.arange(len(classes)), classes].astype(np.float32)


def confusion_matrix(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Counts of items by true class (row) and predicted class (column), i64[k k]."""
    scores, classes = check(logits, labels)
    k = scores.shape[1]
    return np.bincount(classes * k + scores.argmax(axis=1), minlength=k * k).reshape(k, k)


def per_class_accuracy(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """Accuracy among the items of each class (recall), f64[k] in [0, 1]; NaN for a class with no item."""
    matrix = confusion_matrix(logits, labels)
    items = matrix.sum(axis=1)
    return np.divide(matrix.diagonal(), items, out=np.full(len(matrix), np.nan), where=items > 0)


class CorruptionTable(NamedTuple):
    """Accuracies by corruption and severity."""

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    accuracy: Floats  # f64[c s] in [0, 1]

    @property
    def mean_accuracy(self) -> float:
        """Mean over all cells, as in SEM's Table 2."""
        return float(self.accuracy.mean())

    @property
    def mean_error(self) -> float:
        """Mean over corruptions of 1 - accuracy: the mean corruption error (mCE) without a baseline to divide by."""
        return float((1.0 - self.by_corruption).mean())

    @property
    def by_corruption(self) -> Floats:
        """Mean over severities, f64[c]."""
        return self.accuracy.mean(axis=1)

    @property
    def by_severity(self) -> Floats:
        """Mean over corruptions, f64[s]."""
        return self.accuracy.mean(axis=0)


def corruption_table(accuracy: Mapping[tuple[str, int], float]) -> CorruptionTable:
    """The table of {(corruption, severity): accuracy}, rows in order of first appearance, severities ascending.

    Raises:
      RunError: no cell, an accuracy outside [0, 1], or a missing cell, without which a mean would not be comparable.
    """
    if not accuracy:
        raise RunError("no corruption was scored: the table is empty")
    names = tuple(dict.fromkeys(name for name, _ in accuracy))
    severities = tuple(sorted({severity for _, severity in accuracy}))
    missing = [f"{name} {severity}" for name in names for severity in severities if (name, severity) not in accuracy]
    if missing:
        raise RunError(f"{len(missing)} cells of the corruption table are missing: {', '.join(missing[:5])}")
    table = np.array([[accuracy[name, severity] for severity in severities] for name in names], np.float64)
    if not ((table >= 0) & (table <= 1)).all():
        raise RunError(f"accuracies must lie in [0, 1], got {table.min()} to {table.max()}")
    return CorruptionTable(names, severities, table)
