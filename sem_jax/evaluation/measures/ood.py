"""Out-of-distribution detection: scores of items, and how well a score separates two data sets.

In-distribution (ID) data is the positive class, and a higher score always means more in-distribution. Scores of logits
are in `SCORES`; scores that are fitted on the features of the training set are in `DETECTORS`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sem_jax.errors import RunError
from sem_jax.evaluation.measures.metrics import Floats, log_softmax, require_finite

Score = Callable[[ArrayLike], Floats]
_CHUNK = 1 << 24  # numbers of a distance matrix that exist at one time: 64 MiB of float32


def msp(logits: ArrayLike) -> Floats:
    """Maximum softmax probability, max_c p_c (Hendrycks & Gimpel 2017), f64[n] in [1/k, 1]: the SEM paper's score.

    It rounds to 1 from a margin of 36 nats on; in float32 it would from 17 nats on, and more items would tie.
    """
    return np.exp(log_softmax(require_finite("logits", logits, "[n k]")).max(axis=1))


def max_logit(logits: ArrayLike) -> Floats:
    """Largest logit (Hendrycks et al. 2022), f64[n]."""
    return require_finite("logits", logits, "[n k]").max(axis=1)


def energy(logits: ArrayLike) -> Floats:
    """Negative free energy at temperature 1, logsumexp(z) (Liu et al. 2020), f64[n]."""
    scores = require_finite("logits", logits, "[n k]")
    top = scores.max(axis=1)
    return top + np.log(np.exp(scores - top[:, None]).sum(axis=1))


def entropy(logits: ArrayLike) -> Floats:
    """Negative entropy of the softmax, sum_c p_c log p_c, in nats, f64[n] in [-log k, 0]."""
    log_p = log_softmax(require_finite("logits", logits, "[n k]"))
    return (np.exp(log_p) * log_p).sum(axis=1)


def _unit(features: Floats) -> NDArray[np.float32]:
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(norm, 1e-10)).astype(np.float32)


def fit_knn(
    features: ArrayLike, labels: ArrayLike | None = None, *, k: int = 50, bank: int = 10_000, seed: int = 0
) -> Score:
    """Score -||z - z_(k)||, the distance to the k-th nearest training item, z = g / ||g|| (Sun et al. 2022, Alg. 1).

    The paper searches all training items, with k = 50 for CIFAR. It also shows that a random subset with k in
    proportion is nearly as good. The default is such a subset, 0.2 of CIFAR's training set, which is five times faster.

    Args:
      features: f32[n d] of training items, in evaluation mode without augmentation.
      labels: not used; every detector is fitted with the same arguments.
      k: the neighbour among all n items, >= 1.
      bank: size of the subset; 0 = all items.
      seed: of the subset.

    Returns:
      score(features: f32[m d]) -> f64[m] in [-2, 0].

    Raises:
      RunError: k < 1, a negative bank, or features of another width.
    """
    train = require_finite("train features", features, "[n d]")
    if k < 1 or bank < 0:
        raise RunError(f"k must be >= 1 and bank >= 0, got k={k}, bank={bank}")
    total = len(train)
    if 0 < bank < total:
        train = train[np.sort(np.random.default_rng(seed).choice(total, bank, replace=False))]
    neighbour = min(max(1, round(k * len(train) / total)), len(train))
    points = _unit(train)

    def score(features: Floats) -> Floats:
        chunk = _unit(features)
        place = len(points) - neighbour  # of the neighbour's cosine, in ascending order
        nearest = np.partition(chunk @ points.T, place, axis=1)[:, place].astype(np.float64)
        own = np.square(chunk, dtype=np.float64).sum(axis=1)  # 1, or 0 for a vector of zeros
        return -np.sqrt(np.maximum(own + 1.0 - 2.0 * nearest, 0.0))

    return _in_chunks(score, width=points.shape[1], rows=max(1, _CHUNK // len(points)))


def fit_mahalanobis(features: ArrayLike, labels: ArrayLike) -> Score:
    """Score max_c -(g - mu_c)^T S^-1 (g - mu_c), one covariance S for all classes (Lee et al. 2018, Eq. 2).

    Pooled features are often rank-deficient (dead ReLU channels, collapsed classes). The inverse is therefore the
    pseudo-inverse, as in the authors' code: directions in which no training item varies do not count.

    Args:
      features: f32[n d] of training items, as in `fit_knn`.
      labels: i32[n]; classes with no item are left out.

    Returns:
      score(features: f32[m d]) -> f64[m], <= 0.

    Raises:
      RunError: mismatched lengths, or features that do not vary within any class.
    """
    train, classes = require_finite("train features", features, "[n d]"), np.asarray(labels)
    if classes.shape != train.shape[:1]:
        raise RunError(f"labels must be [n] with n={len(train)} as in features, got shape {classes.shape}")
    largest = np.abs(train).max()
    centre = train.mean(axis=0)
    train = train - centre
    found, group = np.unique(classes, return_inverse=True)
    means = np.stack([train[group == index].mean(axis=0) for index in range(len(found))])
    train -= means[group]
    values, vectors = np.linalg.eigh(train.T @ train / len(train))
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    # A spread below the rounding of float32 features is no direction of the data.
    kept &= values > np.square(np.finfo(np.float32).eps * largest)
    if not kept.any():
        raise RunError(f"train features do not vary within any of {len(found)} classes: no covariance to invert")
    whiten = vectors[:, kept] / np.sqrt(values[kept])
    targets = means @ whiten
    squares = np.square(targets).sum(axis=1)

    def score(features: Floats) -> Floats:
        white = (features - centre) @ whiten
        nearest = (squares - 2.0 * white @ targets.T).min(axis=1)
        return -np.maximum(np.square(white).sum(axis=1) + nearest, 0.0)

    return _in_chunks(score, width=train.shape[1], rows=max(1, _CHUNK // (2 * max(len(targets), train.shape[1]))))


def _in_chunks(score: Callable[[Floats], Floats], *, width: int, rows: int) -> Score:
    """Applies a score to `rows` items at a time; refuses features of another width than `width`."""

    def whole(features: ArrayLike) -> Floats:
        queries = require_finite("features", features, "[n d]")
        if queries.shape[1] != width:
            raise RunError(f"features have width {queries.shape[1]}, the detector was fitted on {width}")
        return np.concatenate([score(queries[first : first + rows]) for first in range(0, len(queries), rows)])

    return whole


SCORES: dict[str, Score] = {"msp": msp, "max_logit": max_logit, "energy": energy, "entropy": entropy}
DETECTORS: dict[str, Callable[..., Score]] = {"knn": fit_knn, "mahalanobis": fit_mahalanobis}


def all_scores(logits: ArrayLike, features: ArrayLike, detectors: Mapping[str, Score]) -> dict[str, Floats]:
    """Every score of one data set, {name: f64[n]}, of logits f32[n k], features f32[n d] and fitted detectors."""
    of_logits = {name: score(logits) for name, score in SCORES.items()}
    return of_logits | {name: score(features) for name, score in detectors.items()}


class Detection(NamedTuple):
    """How well a score separates ID from OOD; fractions in [0, 1]."""

    auroc: float
    aupr_in: float  # ID is positive; a useless score has the share of ID items
    aupr_out: float  # OOD is positive, the score negated; a useless score has the share of OOD items
    fpr95: float  # share of OOD items that are accepted with 95% of the ID items


def _counts(positive: Floats, negative: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of positives and negatives at or above each distinct score, descending."""
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(order < len(positive), dtype=np.int64)[last]
    return hits, last + 1 - hits


def _average_precision(positive: Floats, negative: Floats) -> float:
    hits, misses = _counts(positive, negative)
    return float((np.diff(hits, prepend=0) * (hits / (hits + misses))).sum() / len(positive))


def detection(id_scores: ArrayLike, ood_scores: ArrayLike) -> Detection:
    """AUROC, AUPR-in, AUPR-out and FPR at 95% TPR.

    >>> detection([2, 3], [0, 1]).auroc
    1.0

    AUROC = P(s_id > s_ood) + P(s_id = s_ood) / 2 (the Mann-Whitney statistic). AUPR is average precision,
    sum_t (R_t - R_{t-1}) P_t, without interpolation. FPR95 is taken at the strictest threshold with TPR >= 0.95.

    Args:
      id_scores: real[n]; ood_scores: real[m].

    Raises:
      RunError: an empty side, or scores that are not finite.
    """
    inside, outside = require_finite("ID scores", id_scores).ravel(), require_finite("OOD scores", ood_scores).ravel()
    hits, misses = _counts(inside, outside)
    # Twice the area below the ROC curve, in whole numbers: exact, with ties counted half.
    before = np.append(0, hits[:-1])
    auroc = float((np.diff(misses, prepend=0) * (hits + before)).sum()) / (2 * len(inside) * len(outside))
    fpr95 = float(misses[np.argmax(hits / len(inside) >= 0.95)] / len(outside))
    return Detection(auroc, _average_precision(inside, outside), _average_precision(-outside, -inside), fpr95)


def roc_curve(id_scores: ArrayLike, ood_scores: ArrayLike, *, points: int = 512) -> tuple[Floats, Floats]:
    """False and true positive rates to plot, (f64[p], f64[p]), from (0, 0) to (1, 1), p <= points.

    Long curves are thinned evenly in fpr + tpr, which keeps the steep start.
    """
    inside, outside = require_finite("ID scores", id_scores).ravel(), require_finite("OOD scores", ood_scores).ravel()
    hits, misses = _counts(inside, outside)
    tpr, fpr = np.append(0.0, hits / len(inside)), np.append(0.0, misses / len(outside))
    if len(tpr) > points:
        chosen = np.unique(np.searchsorted(fpr + tpr, np.linspace(0.0, 2.0, points)).clip(max=len(tpr) - 1))
        fpr, tpr = fpr[chosen], tpr[chosen]
    return fpr, tpr
