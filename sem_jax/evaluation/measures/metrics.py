"""Classification metrics of logits, and the summaries of a corruption x severity table.

Every function takes the logits of a whole data set, f32[n k], and int labels, i32[n], and accumulates in float64:
no averaging of batch means. Adding a metric: a function (logits, labels) -> float, one line in `METRICS`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sem_jax.errors import RunError

Floats = NDArray[np.float64]


def require_finite(what: str, rows: ArrayLike, shape: str = "") -> Floats:
    """Returns `rows` as float64 if every number in it is finite.

    Args:
      what: the array's name in the message.
      rows: real[n] or real[n d], n >= 1.
      shape: the one it must have, such as "[n d]"; "" = any.

    Returns:
      f64, the same shape.

    Raises:
      RunError: for no row at all, another shape, or rows with NaN or infinity: how many, and the first of them.
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
    """Returns logits as f64[n k] and labels as i64[n] if their shapes, classes and numbers can be scored.

    Raises:
      RunError: naming the array and what was found.
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
    """log p = z - logsumexp(z) over the last axis, shifted by the maximum so that nothing overflows. f64[n k]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def top_k(logits: ArrayLike, labels: ArrayLike, k: int) -> float:
    """Fraction of items whose label is among the k largest logits; of equal logits the lower class goes first.

    That order of ties is `argmax`'s, so that top-1 equals `mean(argmax(logits) == labels)` exactly. With fewer than k
    classes, k is the number of classes.

    Returns:
      float in [0, 1].
    """
    scores, classes = check(logits, labels)
    own = np.take_along_axis(scores, classes[:, None], axis=1)
    before = np.arange(scores.shape[1]) < classes[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
    return float(np.mean(rank < min(k, scores.shape[1])))


def top1(logits: ArrayLike, labels: ArrayLike) -> float:
    """Accuracy: fraction of items whose largest logit is the label's, in [0, 1].

    >>> top1([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    0.5
    """
    return top_k(logits, labels, 1)


def top5(logits: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of items whose label is among the min(5, k) largest logits, in [0, 1]."""
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


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "top1": top1,
    "top5": top5,
    "nll": nll,
    "brier": brier,
}


def classification(logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Every row of `METRICS` for one data set."""
    return {name: metric(logits, labels) for name, metric in METRICS.items()}


def correct(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    """Which items are classified as labelled, bool[n]; its mean is `top1`."""
    scores, classes = check(logits, labels)
    return scores.argmax(axis=1) == classes


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
    """Accuracies by corruption and severity, every cell filled."""

    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    accuracy: Floats  # f64[c s] in [0, 1]

    @property
    def mean_accuracy(self) -> float:
        """Mean over all cells: the number that the CIFAR-C tables print (SEM's Table 2 among them)."""
        return float(self.accuracy.mean())

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
      RunError: for an empty mapping, an accuracy outside [0, 1], or a missing cell: the mean over the cells that
        happen to be there would pass for the mean over all.
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


class CorruptionError(NamedTuple):
    """A mean corruption error and the name that it may be printed under."""

    name: str
    value: float  # fraction; can exceed 1 if normalised
    by_corruption: Floats  # f64[c]


def mean_corruption_error(
    table: CorruptionTable, baseline: Mapping[str, float | Sequence[float]] | None = None
) -> CorruptionError:
    """mCE = mean_c CE_c, CE_c = sum_s E_{s,c} / sum_s E^base_{s,c} (Hendrycks & Dietterich 2019).

    The paper's baseline is AlexNet on ImageNet-C; nobody has published one for CIFAR-C or Tiny-ImageNet-C. Without a
    baseline the result is the plain mean error, and is named so.

    Args:
      table: accuracies.
      baseline: per corruption, the baseline's errors at the table's severities, or their mean; each in (0, 1].

    Returns:
      CorruptionError, `name` "mCE" with a baseline, else "mCE (unnormalised)".

    Raises:
      RunError: for a corruption without baseline, or a baseline that is not in (0, 1] or has other severities.
    """
    error = 1.0 - table.by_corruption
    if baseline is None:
        return CorruptionError("mCE (unnormalised)", float(error.mean()), error)
    if absent := [name for name in table.corruptions if name not in baseline]:
        raise RunError(f"no baseline error for {', '.join(absent)}; given: {', '.join(sorted(baseline))}")
    bases = [np.atleast_1d(np.asarray(baseline[name], np.float64)) for name in table.corruptions]
    count = len(table.severities)
    for name, base in zip(table.corruptions, bases, strict=True):
        if base.shape not in ((1,), (count,)) or not ((base > 0) & (base <= 1)).all():
            raise RunError(f"baseline error of {name!r} must be 1 or {count} numbers in (0, 1], got {base}")
    ratios = error / np.array([base.mean() for base in bases])
    return CorruptionError("mCE", float(ratios.mean()), ratios)
