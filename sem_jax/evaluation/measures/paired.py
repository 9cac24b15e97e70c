"""95% intervals of the difference of two runs on the same items: paired bootstrap over test items, by percentiles.

    mean_difference(correct_b, correct_a)      # (difference, low, high); bool[n] or real[n] each
    auroc_difference((id_b, ood_b), (id_a, ood_a))

Items are resampled and the runs stay as they are. So an interval says how far the difference depends on the choice of
test items, and nothing of another seed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sem_jax.errors import RunError
from sem_jax.evaluation.measures.metrics import Floats

LEVEL = 0.95
DRAWS = 2000
AUROC_DRAWS = 500  # each needs a pass over all scores
_CELLS = 1 << 22  # numbers that are resampled at one time


class Difference(NamedTuple):
    """second minus first, and its interval."""

    value: float
    low: float
    high: float


def mean_difference(first: ArrayLike, second: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Difference | None:
    """Difference of two means over the same items, real[n] or bool[n] each; None if no item is finite in both.

    >>> mean_difference([True, True, False, False], [True, True, True, True]).value
    0.5

    Raises:
      RunError: not the same number of items.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise RunError(f"paired items must be [n] each with one n, got {a.shape} and {b.shape}")
    change = (b - a)[np.isfinite(b - a)]
    if not len(change):
        return None
    if len(change) == 1 or (change == change[0]).all():
        return Difference(float(change[0]), float(change[0]), float(change[0]))
    batch = max(1, min(draws, _CELLS // len(change)))
    options = {"n_resamples": draws, "confidence_level": LEVEL, "method": "percentile", "batch": batch}
    found = stats.bootstrap((change,), np.mean, **options, rng=np.random.default_rng(seed)).confidence_interval
    return Difference(float(change.mean()), float(found.low), float(found.high))


class _Ranked:
    """AUROC of one run when its items have weights; the scores are sorted once."""

    def __init__(self, inside: Floats, outside: Floats):
        scores = np.concatenate([inside, outside])
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        self._inside = self._order < len(inside)

    def __call__(self, inside: Floats, outside: Floats) -> float:
        weight = np.concatenate([inside, outside])[self._order]
        ins = np.add.reduceat(np.where(self._inside, weight, 0.0), self._starts)
        out = np.add.reduceat(np.where(self._inside, 0.0, weight), self._starts)
        return float((ins * (np.cumsum(out) - out / 2)).sum() / (ins.sum() * out.sum()))


def auroc_difference(
    first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike], *, draws: int = AUROC_DRAWS, seed: int = 0
) -> Difference:
    """Difference of two AUROCs, each of (scores of ID items, scores of OOD items); ID and OOD are resampled apart.

    >>> auroc_difference(([2, 1], [1, 0]), ([2, 1], [0, 0])).value
    0.125

    Raises:
      RunError: not the same number of items.
    """
    (a, b), (c, d) = ((np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in (first, second))
    if a.shape != c.shape or b.shape != d.shape:
        raise RunError(f"paired items must agree in number, got {a.shape} and {c.shape}, {b.shape} and {d.shape}")
    before, after = _Ranked(a, b), _Ranked(c, d)
    rng, out = np.random.default_rng(seed), np.empty(draws)
    for i in range(draws):
        weights = (np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64) for n in (len(a), len(b)))
        inside, outside = weights
        out[i] = after(inside, outside) - before(inside, outside)
    value = after(np.ones(len(a)), np.ones(len(b))) - before(np.ones(len(a)), np.ones(len(b)))
    low, high = np.quantile(out, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(value, float(low), float(high))
