"""Means over seeds, and paired bootstrap intervals over test items.

    mean_sd([0.91, 0.93])                             # (0.92, 0.0141, 2); sd is None for a single value
    difference = paired(with_sem, without)            # f64[n]: bool[seeds n] each; a mean over seeds for each item
    mean_interval(difference)                         # (low, high), percentiles of the mean over resampled items
    auroc_interval([(id_a, ood_a, id_b, ood_b), ...]) # for the difference of two AUROCs; one tuple a seed

What is resampled: test items, the same ones for both methods and all seeds. The runs stay as they are, so an interval
says how far the number depends on the choice of test items, and nothing of another training run: that is what the
standard deviation over seeds is for.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
DRAWS = 10_000
AUROC_DRAWS = 1_000  # each needs a pass over all scores


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None, int]:
    """(mean, standard deviation with n - 1, n); no mean of nothing, no deviation of one value."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return None, None, 0
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None, len(numbers)


def paired(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """For each item the mean over seeds of first - second; real[seeds n] or bool[seeds n] -> f64[n]."""
    return np.mean(np.asarray(first, np.float64) - np.asarray(second, np.float64), axis=0)


def _percentiles(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_interval(values: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of f64[n] under resampling of its items with replacement.

    Equal values are drawn together: how often each distinct value comes up is multinomial, which is the same
    distribution as drawing the items one by one.
    """
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    total = counts.sum()
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, draws, 1000):  # in parts: there may be as many distinct values as items
        hits = rng.multinomial(total, counts / total, size=min(1000, draws - start))
        means.append(hits @ distinct / total)
    return _percentiles(np.concatenate(means))


class _Ranked:
    """AUROC of one run under changing weights of its items: sorted once."""

    def __init__(self, inside: np.ndarray, outside: np.ndarray):
        scores = np.concatenate([inside, outside]).astype(np.float64)
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        self.count = len(inside)

    def __call__(self, inside: np.ndarray, outside: np.ndarray) -> float:
        """Weights f64[n] of the ID items and f64[m] of the OOD items -> P(ID > OOD) + P(equal) / 2."""
        is_inside = self.order < self.count
        weight = np.concatenate([inside, outside])[self.order]
        ins = np.add.reduceat(np.where(is_inside, weight, 0.0), self.starts)
        out = np.add.reduceat(np.where(is_inside, 0.0, weight), self.starts)
        return float((ins * (np.cumsum(out) - out / 2)).sum() / (ins.sum() * out.sum()))


def auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """Area under the ROC curve of scores that are higher for the ID items."""
    first, second = np.asarray(inside), np.asarray(outside)
    return _Ranked(first, second)(np.ones(len(first)), np.ones(len(second)))


def auroc_interval(
    runs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], *, draws: int = AUROC_DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over seeds of AUROC(a) - AUROC(b), ID and OOD items resampled apart.

    Args:
      runs: a seed each: scores of the ID and the OOD items by a, then by b; items in the same order in all.
    """
    ranked = [(_Ranked(a, b), _Ranked(c, d)) for a, b, c, d in runs]
    n, m = len(runs[0][0]), len(runs[0][1])
    rng = np.random.default_rng(seed)
    out = np.empty(draws)
    for i in range(draws):
        weights = np.bincount(rng.integers(0, n, n), minlength=n), np.bincount(rng.integers(0, m, m), minlength=m)
        out[i] = np.mean([first(*weights) - second(*weights) for first, second in ranked])
    return _percentiles(out)
