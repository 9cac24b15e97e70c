"""Means over seeds, and paired bootstrap intervals over test items.

    mean_sd([0.91, 0.93])                             # (0.92, 0.0141, 2); sd is None for a single value
    difference = paired(with_sem, without)            # f64[n]: bool[seeds n] each; a mean over seeds for each item
    mean_interval(difference)                         # (low, high), percentiles of the mean over resampled items
    mean_intervals(with_sem - without)                # Intervals of f64[seeds n]: over items, over seeds and items
    auroc_intervals([(id_a, ood_a, id_b, ood_b), ...]) # for the difference of two AUROCs; one tuple a seed
    measure([0.91, 0.93], correct)                    # Measured: what a figure draws of one row

Two intervals. `items`: test items are resampled, the same ones for both methods and all seeds, and the runs stay as
they are; it says how far a number depends on the choice of test items, and nothing of another training run. The tables
have this one. `both`: seeds are resampled as well (a hierarchical bootstrap), where there are several. Three seeds say
little of all possible ones: their resampling gives 2/3 of the variance, so read `both` as the least that is uncertain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
DRAWS = 10_000
AUROC_DRAWS = 1_000  # each needs a pass over all scores

Interval = tuple[float, float]


class Intervals(NamedTuple):
    """95% intervals of one number."""

    items: Interval
    both: Interval | None  # None for a single seed


class Measured(NamedTuple):
    """A number of every seed; intervals of their mean where the items of all of them are there."""

    seeds: list[float]
    intervals: Intervals | None = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.seeds))


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None, int]:
    """(mean, standard deviation with n - 1, n); no mean of nothing, no deviation of one value."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return None, None, 0
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None, len(numbers)


def paired(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """For each item the mean over seeds of first - second; real[seeds n] or bool[seeds n] -> f64[n]."""
    return np.mean(np.asarray(first, np.float64) - np.asarray(second, np.float64), axis=0)


def _percentiles(draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_interval(values: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Interval:
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


def mean_intervals(values: ArrayLike, *, draws: int = 2000, seed: int = 0) -> Intervals:
    """Intervals of the mean of f64[seeds n], whose columns are the same items for all seeds."""
    table = np.asarray(values, np.float64)
    items = mean_interval(table.mean(axis=0))
    if len(table) < 2:
        return Intervals(items, None)
    distinct, counts = np.unique(table, axis=1, return_counts=True)
    total, rng = counts.sum(), np.random.default_rng(seed)
    return Intervals(items, _over_seeds(rng.multinomial(total, counts / total, size=draws) @ distinct.T / total, rng))


def _over_seeds(means: np.ndarray, rng: np.random.Generator) -> Interval:
    """Interval of f64[draws seeds], means over resampled items, with the seeds resampled in each draw."""
    draws, count = means.shape
    weights = rng.multinomial(count, np.full(count, 1 / count), size=draws) / count
    return _percentiles((weights * means).sum(axis=1))


def measure(seeds: Sequence[float], tables: Sequence[ArrayLike] = ()) -> Measured:
    """What a figure draws of one row.

    Args:
      seeds: its number, a seed each.
      tables: what each test item got to, f64[n] a seed; no interval unless every seed has one of the same items.
    """
    arrays = [np.asarray(it, np.float64) for it in tables]
    if not arrays or len(arrays) != len(seeds) or len({it.shape for it in arrays}) > 1:
        return Measured(list(seeds))
    values = np.stack(arrays)
    values = values[:, np.isfinite(values).all(axis=0)]  # a pair of images with equal features has no relative error
    return Measured(list(seeds), mean_intervals(values) if values.size else None)


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


def auroc_intervals(
    runs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], *, draws: int = AUROC_DRAWS, seed: int = 0
) -> Intervals:
    """Intervals of the mean over seeds of AUROC(a) - AUROC(b), ID and OOD items resampled apart.

    Args:
      runs: a seed each: scores of the ID and the OOD items by a, then by b; items in the same order in all.
    """
    ranked = [(_Ranked(a, b), _Ranked(c, d)) for a, b, c, d in runs]
    n, m = len(runs[0][0]), len(runs[0][1])
    rng = np.random.default_rng(seed)
    out = np.empty((draws, len(runs)))
    for i in range(draws):
        weights = np.bincount(rng.integers(0, n, n), minlength=n), np.bincount(rng.integers(0, m, m), minlength=m)
        out[i] = [first(*weights) - second(*weights) for first, second in ranked]
    return Intervals(_percentiles(out.mean(axis=1)), _over_seeds(out, rng) if len(runs) > 1 else None)
