"""How far the representation of a mixed image is from the mixture of the representations (SEM, Fig. 3, in numbers).

The error of a pair (x_i, x_j) at lam is e = ||g(x_mix) - (lam g(x_i) + (1 - lam) g(x_j))||. The penalty can lower it
by shrinking the features. So it is also given relative to ||g(x_i) - g(x_j)||, with feature norm and effective rank.
"""

import importlib.util
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sem_jax.errors import ConfigError, RunError
from sem_jax.evaluation.measures.metrics import Floats, require_finite

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Spread(NamedTuple):
    """The distribution of a quantity over the pairs, at each lam; NaN if no pair has it."""

    mean: Floats  # f64[l]
    quantiles: Floats  # f64[l 5], at QUANTILES


class Equivariance(NamedTuple):
    """Fig. 3 in numbers, for l values of lam and n pairs."""

    lam: Floats  # f64[l], mean over the pairs of the true weight of the anchor
    absolute: Spread  # e
    relative: Spread  # e / ||g(x_i) - g(x_j)||, without pairs of equal features
    cosine: Spread  # between g(x_mix) and the mixture, without pairs where one is 0
    norm: Floats  # f64[l], mean ||g(x_mix)||
    rank: Floats  # f64[l], effective rank of g(x_mix)
    clean_norm: float  # mean norm of anchors and partners
    clean_rank: float  # effective rank of anchors and partners together
    pairs: int
    half: Floats  # f64[n], relative error of each pair at the lam nearest 0.5; NaN if g(x_i) = g(x_j)
    equal_pairs: int  # number of pairs with g(x_i) = g(x_j)


def effective_rank(features: ArrayLike) -> float:
    """exp(H(s / sum s)) of features f32[n d], s the singular values without the mean (Roy & Vetterli 2007).

    It lies in [1, min(n, d)], and is 0 if all features are equal.
    """
    rows = require_finite("features", features, "[n d]")
    scale = np.abs(rows).max()
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    values = values[values > scale * max(rows.shape) * np.finfo(np.float64).eps]
    if not len(values):
        return 0.0
    p = values / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def mixtures(anchor: ArrayLike, partner: ArrayLike, lam: ArrayLike) -> Floats:
    """lam g(x_i) + (1 - lam) g(x_j), f64[l n d], for anchor and partner f32[n d] and lam f32[l] or f32[l n]."""
    first, second = np.asarray(anchor, np.float64), np.asarray(partner, np.float64)
    weight = np.asarray(lam, np.float64)
    weight = weight.reshape(len(weight), -1, 1)
    return weight * first + (1.0 - weight) * second


def _spread(rows: Floats, defined: np.ndarray) -> Spread:
    mean, quantiles = np.full(len(rows), np.nan), np.full((len(rows), len(QUANTILES)), np.nan)
    for index, (row, chosen) in enumerate(zip(rows, defined, strict=True)):
        if chosen.any():
            mean[index], quantiles[index] = row[chosen].mean(), np.quantile(row[chosen], QUANTILES)
    return Spread(mean, quantiles)


def equivariance(mixed: ArrayLike, anchor: ArrayLike, partner: ArrayLike, lam: ArrayLike) -> Equivariance:
    """Errors, cosines, norms and ranks at every lam.

    Args:
      mixed: f32[l n d], g(x_mix) of the same n pairs at each of l mixing weights.
      anchor, partner: f32[n d], g(x_i) and g(x_j); all three in evaluation mode.
      lam: weight of the anchor in [0, 1], real[l], or real[l n] if each pair has its own.

    Raises:
      RunError: shapes that do not fit, lam outside [0, 1], or features that are not finite.
    """
    first, second = require_finite("anchor features", anchor), require_finite("partner features", partner)
    cube, weight = np.asarray(mixed), np.asarray(lam, np.float64)
    if first.ndim != 2 or first.shape != second.shape or cube.ndim != 3 or cube.shape[1:] != first.shape:
        raise RunError(
            f"mixed must be [l n d] and anchor and partner [n d], got {cube.shape}, {first.shape}, {second.shape}"
        )
    if weight.shape not in (cube.shape[:1], cube.shape[:2]):
        raise RunError(f"lam must be [l] or [l n] for mixed {cube.shape}, got shape {weight.shape}")
    if not ((weight >= 0) & (weight <= 1)).all():
        raise RunError(f"lam must lie in [0, 1], got {weight.min()} to {weight.max()}")
    weight = np.broadcast_to(weight.reshape(len(cube), -1), cube.shape[:2])
    norms = np.maximum(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    distance = np.linalg.norm(first - second, axis=1)
    # Features of equal images can differ by rounding, by which nothing should be divided.
    differ = distance > 1e-6 * norms
    error, cosine, length = (np.empty(cube.shape[:2]) for _ in range(3))
    rank = np.empty(len(cube))
    for index, row in enumerate(cube):
        row = require_finite(f"mixed features at lam {weight[index].mean():.2f}", row)
        target = mixtures(first, second, weight[index : index + 1])[0]
        error[index] = np.linalg.norm(row - target, axis=1)
        length[index] = np.linalg.norm(row, axis=1)
        product = length[index] * np.linalg.norm(target, axis=1)
        cosine[index] = np.divide((row * target).sum(axis=1), product, out=np.full(len(row), np.nan), where=product > 0)
        rank[index] = effective_rank(row)
    clean = np.concatenate([first, second])
    relative = np.divide(error, distance, out=np.full(error.shape, np.nan), where=differ)
    return Equivariance(
        lam=weight.mean(axis=1),
        absolute=_spread(error, np.ones_like(error, bool)),
        relative=_spread(relative, np.broadcast_to(differ, error.shape)),
        cosine=_spread(cosine, np.isfinite(cosine)),
        norm=length.mean(axis=1),
        rank=rank,
        clean_norm=float(np.linalg.norm(clean, axis=1).mean()),
        clean_rank=effective_rank(clean),
        pairs=len(first),
        half=relative[int(np.argmin(np.abs(weight.mean(axis=1) - 0.5)))],
        equal_pairs=int((~differ).sum()),
    )


class Embedding(NamedTuple):
    """Mixed representations and the mixtures that they should equal, in one plane."""

    method: str
    lam: Floats  # f64[l]
    mixed: Floats  # f64[l n 2]
    target: Floats  # f64[l n 2]


def umap_missing() -> str:
    """Why there is no UMAP picture, in one line; '' if umap-learn can be imported."""
    there = importlib.util.find_spec("umap") is not None
    return "" if there else "UMAP picture left out: umap-learn is not installed (pip install umap-learn)."


def _pca(points: Floats, seed: int) -> Floats:
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.concatenate([axes, np.zeros((2, axes.shape[1]))])[:2]  # one feature or one point has no second axis
    # The sign of an axis is arbitrary; fix it, so that all machines draw the same picture.
    largest = axes[np.arange(2), np.abs(axes).argmax(axis=1)]
    return centred @ (axes * np.where(largest < 0, -1.0, 1.0)[:, None]).T


def _umap(points: Floats, seed: int) -> Floats:
    if reason := umap_missing():
        raise RunError(reason)
    umap = importlib.import_module("umap")  # here, since it compiles for seconds
    # A fixed seed means one job anyway; without n_jobs the library would warn.
    model = umap.UMAP(n_components=2, n_neighbors=min(15, len(points) - 1), random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(points.astype(np.float32)), np.float64)


EMBEDDINGS = {"pca": _pca, "umap": _umap}


def embed(
    mixed: ArrayLike, anchor: ArrayLike, partner: ArrayLike, lam: ArrayLike, *, method: str = "pca", seed: int = 0
) -> Embedding:
    """The picture of SEM's Fig. 3: mixed representations and mixtures in one plane, which is fitted on both together.

    Args:
      mixed, anchor, partner, lam: as in `equivariance`; the anchors of one class and the partners of another.
      method: "pca" or "umap" (McInnes et al. 2018, needs umap-learn).
      seed: of UMAP; PCA is not random.

    Raises:
      ConfigError: an unknown method. RunError: UMAP is missing, or features are not finite.
    """
    if method not in EMBEDDINGS:
        raise ConfigError(f"Unknown embedding {method!r}. Known embeddings: {', '.join(EMBEDDINGS)}.")
    cube, target = np.asarray(mixed, np.float64), mixtures(anchor, partner, lam)
    if cube.shape != target.shape:
        raise RunError(f"mixed must be [l n d] like the mixtures {target.shape}, got shape {cube.shape}")
    points = require_finite("features", np.concatenate([cube, target]).reshape(-1, cube.shape[2]))
    plane = EMBEDDINGS[method](points, seed).reshape(2, *cube.shape[:2], 2)
    weight = np.asarray(lam, np.float64)
    return Embedding(method, weight.reshape(len(weight), -1).mean(axis=1), plane[0], plane[1])


class Straightened(NamedTuple):
    """The path of one pair's mixed representations in a plane in which the chord of the mixtures is [0, 1] on x."""

    lam: Floats  # f64[l]
    mixed: Floats  # f64[l 2]
    target: Floats  # f64[l 2], the mixtures
    relative: float  # relative error at the lam nearest 0.5, in all dimensions
    explained: float  # share of the points' variance that lies in the plane


def straightened(mixed: ArrayLike, anchor: ArrayLike, partner: ArrayLike, lam: ArrayLike) -> Straightened:
    """PCA of one pair's path and chord together, turned and scaled so that the chord runs from (0, 0) to (1, 0).

    Args:
      mixed: f32[l d], g(x_mix) at each lam.
      anchor, partner: f32[d], g(x_i) and g(x_j), not equal.
      lam: real[l].

    Raises:
      RunError: features that are not finite, or equal ones, which have no chord.

    >>> found = straightened([[0, 0], [1, 1], [2, 0]], [2, 0], [0, 0], [0, 0.5, 1])
    >>> np.abs(found.mixed).round(2).tolist(), found.relative, round(found.explained, 2)
    ([[0.0, 0.0], [0.5, 0.5], [1.0, 0.0]], 0.5, 1.0)
    """
    path, first, second = (np.asarray(it, np.float64) for it in (mixed, anchor, partner))
    flat = embed(path[:, None], first[None], second[None], lam)
    points = np.stack([flat.mixed[:, 0], flat.target[:, 0]])
    along = mixtures(first[None], second[None], [0.0, 1.0])[:, 0]
    length = float(np.linalg.norm(along[1] - along[0]))
    weight = flat.lam
    # The chord is a line in the plane too: its ends follow from any two of its points.
    ends = np.stack([np.polyval(np.polyfit(weight, points[1][:, c], 1), [0.0, 1.0]) for c in range(2)], axis=1)
    chord = ends[1] - ends[0]
    shown = float(np.linalg.norm(chord))
    if length == 0 or shown < 1e-6 * length:
        raise RunError("the two representations are equal: they have no chord")
    x = chord / shown
    y = np.array([-x[1], x[0]])
    turned = (points - ends[0]) @ np.stack([x, y], axis=1) / shown
    turned[..., 1] *= 1.0 if turned[0, :, 1].sum() >= 0 else -1.0  # the path lies above the chord
    whole = np.concatenate([path, mixtures(first[None], second[None], weight)[:, 0]])
    half = int(np.argmin(np.abs(weight - 0.5)))
    error = float(np.linalg.norm(path[half] - mixtures(first[None], second[None], weight[half : half + 1])[0, 0]))
    variance = float(((whole - whole.mean(axis=0)) ** 2).sum())
    explained = float(((points - points.mean(axis=(0, 1))) ** 2).sum()) / variance
    return Straightened(weight, turned[0], turned[1], error / length, min(1.0, explained))
