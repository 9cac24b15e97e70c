"""How well confidence predicts accuracy: expected calibration error, reliability diagram, temperature scaling.

Confidence is the largest softmax probability, never a raw logit.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from sem_jax.errors import RunError
from sem_jax.evaluation.measures.metrics import Floats, check, log_softmax, require_finite

SCHEMES = ("width", "mass")
TEMPERATURES = (0.05, 20.0)  # range of the search


class Reliability(NamedTuple):
    """A reliability diagram of b bins, ascending. Empty bins have NaN confidence and accuracy."""

    scheme: str  # "width" or "mass"
    lower: Floats  # f64[b], least confidence: the open edge for "width", the least member for "mass"
    upper: Floats  # f64[b], the closed edge, or the largest member
    count: NDArray[np.int64]  # i64[b]
    confidence: Floats  # f64[b], mean confidence
    accuracy: Floats  # f64[b], fraction correct
    ece: float  # sum_b count_b / n * |accuracy_b - confidence_b|
    max_error: float  # largest |accuracy_b - confidence_b| over bins with items


class Temperature(NamedTuple):
    """A fitted temperature."""

    value: float  # > 0; 1 leaves the logits alone, > 1 softens
    at_bound: bool  # the best T lies at the end of the search or beyond: do not trust it
    nll_before: float  # on the items it was fitted on, nats
    nll_after: float


class Calibration(NamedTuple):
    """Calibration before and, if there was a val split to fit on, after temperature scaling."""

    before: dict[str, Reliability]  # by scheme
    after: dict[str, Reliability] | None
    temperature: Temperature | None


def confidences(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> tuple[Floats, NDArray[np.bool_]]:
    """Largest probability of softmax(z / T), f64[n] in [1/k, 1], and whether that class is right, bool[n]."""
    scores, classes = check(logits, labels)
    if not temperature > 0:
        raise RunError(f"temperature must be > 0, got temperature={temperature}")
    confidence = np.exp(log_softmax(scores / temperature).max(axis=1))
    return np.minimum(confidence, 1.0), scores.argmax(axis=1) == classes


def reliability(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15, scheme: str = "width") -> Reliability:
    """Reliability diagram, and ECE = sum_b |B_b| / n |acc(B_b) - conf(B_b)| (Naeini 2015; Guo et al. 2017).

    >>> round(reliability([0.6, 0.6, 0.9, 0.9], [True, False, True, True], bins=10).ece, 4)
    0.1

    "width": bins (lo, hi] of equal width over [0, 1], with confidence 0 in the first. "mass": bins of equal numbers of
    items in order of confidence; sizes differ by at most one (adaptive ECE, Nixon et al. 2019). If a boundary between
    mass bins divides items of equal confidence, all of these count with their mean correctness. Otherwise the result
    would depend on the order of the data set.

    Args:
      confidence: real[n] in [0, 1].
      correct: bool[n].
      bins: number of bins, >= 1; "mass" uses min(bins, n).
      scheme: "width" or "mass".

    Raises:
      RunError: confidences outside [0, 1] (raw logits), mismatched lengths, no bin or an unknown scheme.
    """
    p, right = require_finite("confidence", confidence), np.asarray(correct, np.float64)
    if p.ndim != 1 or p.shape != right.shape:
        raise RunError(f"confidence and correct must be [n], got shapes {p.shape} and {right.shape}")
    if p.min() < 0 or p.max() > 1:
        raise RunError(f"confidence must be a probability in [0, 1], got {p.min()} to {p.max()}: are these logits?")
    if bins < 1:
        raise RunError(f"bins must be >= 1, got bins={bins}")
    if scheme == "width":
        edges = np.linspace(0.0, 1.0, bins + 1)
        lower, upper = edges[:-1], edges[1:]
        bin_of = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)
    elif scheme == "mass":
        bins = min(bins, len(p))
        order = np.argsort(p, kind="stable")
        p = p[order]
        _, group, size = np.unique(p, return_inverse=True, return_counts=True)
        right = (np.bincount(group, weights=right[order]) / size)[group]
        sizes = np.full(bins, len(p) // bins) + (np.arange(bins) < len(p) % bins)
        bin_of = np.repeat(np.arange(bins), sizes)
        ends = sizes.cumsum()
        lower, upper = p[ends - sizes], p[ends - 1]
    else:
        raise RunError(f"scheme must be one of {', '.join(SCHEMES)}, got scheme={scheme!r}")
    count = np.bincount(bin_of, minlength=bins)
    empty, full = np.full(bins, np.nan), count > 0
    mean_confidence = np.divide(np.bincount(bin_of, p, bins), count, out=empty.copy(), where=full)
    accuracy = np.divide(np.bincount(bin_of, right, bins), count, out=empty.copy(), where=full)
    gap = np.abs(accuracy - mean_confidence)[full]
    error = float((count[full] / len(p) * gap).sum())
    return Reliability(scheme, lower, upper, count, mean_confidence, accuracy, error, float(gap.max()))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> Temperature:
    """T = argmin_T NLL(softmax(z / T), y) (Guo et al. 2017, section 4.2), to be fitted on val and used on test.

    NLL is convex in 1 / T, so it has one minimum in log T, which is searched within TEMPERATURES. The minimum is at
    T -> 0 for perfectly classified data and at T -> infinity for data without signal: then `at_bound` is True.

    T is 1 if no T is better (all logits of a row equal). logits are f32[n k], labels i32[n].

    Raises:
      RunError: as `metrics.check`.
    """
    scores, classes = check(logits, labels)
    scores = scores - scores.max(axis=1, keepdims=True)
    own = np.take_along_axis(scores, classes[:, None], axis=1)[:, 0]

    def loss(log_t: float) -> float:
        inverse = np.exp(-log_t)
        return float(np.mean(np.log(np.exp(scores * inverse).sum(axis=1)) - own * inverse))

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7, "maxiter": 200})
    before = loss(0.0)
    # The bounded search does not evaluate the ends.
    nll_after, log_t = min((found.fun, found.x), (loss(low), low), (loss(high), high))
    if before - nll_after <= 1e-12 * max(1.0, before):
        return Temperature(1.0, False, before, before)
    at_bound = min(log_t - low, high - log_t) < 1e-4 * (high - low)
    return Temperature(float(np.exp(log_t)), bool(at_bound), before, float(nll_after))


def calibrate(
    logits: ArrayLike, labels: ArrayLike, val_logits: ArrayLike | None = None, val_labels: ArrayLike | None = None
) -> Calibration:
    """Calibration of a test set before and after temperature scaling fitted on val; without val, before only.

    Args:
      logits: f32[n k] of test; labels: i32[n].
      val_logits: f32[m k] of a split that was not trained on and is not test; val_labels: i32[m].
    """
    before = {scheme: reliability(*confidences(logits, labels), scheme=scheme) for scheme in SCHEMES}
    if val_logits is None or val_labels is None:
        return Calibration(before, None, None)
    temperature = fit_temperature(val_logits, val_labels)
    scaled = confidences(logits, labels, temperature.value)
    return Calibration(before, {s: reliability(*scaled, scheme=s) for s in SCHEMES}, temperature)
