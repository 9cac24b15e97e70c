"""The suite of SEM's Fig. 3: mixed representations against mixtures of representations, for mixup and CutMix."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from sem_jax.errors import RunError, SemError
from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.measures import equivariance as measure
from sem_jax.evaluation.report import equivariance_figures as figures
from sem_jax.evaluation.report.record import Table
from sem_jax.evaluation.suites.own_mixing import MIDDLE, represent_own
from sem_jax.mixers.cutmix import CutmixDraw, apply_cutmix
from sem_jax.mixers.mixup import MixupDraw, apply_mixup

LAM = np.linspace(0.0, 1.0, 11)
APPLY = {"mixup": apply_mixup, "cutmix": apply_cutmix}
SHOWN_PAIRS = 40  # in the picture of two classes; more would hide each other
_MARKS = [f"{100 * q:.0f}%" for q in measure.QUANTILES]


class Mixed(NamedTuple):
    """Representations of n pairs at l mixing weights."""

    mixed: np.ndarray  # f32[l n d]
    anchor: np.ndarray  # f32[n d]
    partner: np.ndarray  # f32[n d]
    lam: np.ndarray  # f32[l n], true weight of the anchor


def boxes(lam: float, count: int, shape: tuple[int, int], rng: np.random.Generator) -> CutmixDraw:
    """`count` boxes at random places that leave a share of about `lam` of the anchor.

    Each box lies inside the image: clipped boxes, as in training, would not reach lam = 0. The width corrects for the
    rounding of the height, so that the share is near lam.
    """
    height, width = shape
    rows = max(round(height * float(np.sqrt(1.0 - lam))), int(lam < 1.0))
    columns = min(width, round((1.0 - lam) * height * width / rows)) if rows else 0
    top = jnp.asarray(rng.integers(0, height - rows + 1, count), jnp.int32)
    left = jnp.asarray(rng.integers(0, width - columns + 1, count), jnp.int32)
    return CutmixDraw(top, top + rows, left, left + columns)


def draw(mixer: str, count: int, shape: tuple[int, int], seed: int) -> list:
    """The draws of `count` pairs at every LAM."""
    if mixer == "mixup":
        return [MixupDraw(jnp.full(count, lam, jnp.float32)) for lam in LAM]
    rng = np.random.default_rng([seed, 1])
    return [boxes(lam, count, shape, rng) for lam in LAM]


def pairs(count: int, wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of different items, (i64[n], i64[n]), n = min(wanted, count); no item is an anchor twice.

    Raises:
      Missing: fewer than two items.
    """
    if count < 2:
        raise Missing(f"pairs need 2 test images or more, there is {count}")
    rng = np.random.default_rng(seed)
    anchor = rng.permutation(count)[: min(wanted, count)]
    return anchor, (anchor + rng.integers(1, count, len(anchor))) % count


def represent(context: Context, mixer: str, anchor: np.ndarray, partner: np.ndarray) -> Mixed:
    """Representations of pairs of rows of the test split, anchor and partner i64[n], and of their mixtures."""
    images, seed = context.split("test").images, context.options.seed
    clean = context.outputs("test", images).features
    key = json.dumps([context.digest(images), mixer, seed, LAM.tolist(), anchor.tolist(), partner.tolist()])

    def make():
        draws = draw(mixer, len(anchor), context.run.data.image_shape[:2], seed)
        tiled = (np.tile(rows, len(LAM)) for rows in (anchor, partner))
        joined = type(draws[0])(*(np.concatenate(fields) for fields in zip(*draws, strict=True)))
        both = (images[rows] for rows in tiled)
        features, lam = context.predictor.mixed(APPLY[mixer], joined, *both, label=f"pairs, {mixer}")
        return {"mixed": features.reshape(len(LAM), len(anchor), -1), "lam": lam.reshape(len(LAM), -1)}

    arrays = context.cache(f"pairs {mixer}", key, make, wanted=("mixed", "lam"))
    return Mixed(arrays["mixed"], clean[anchor], clean[partner], arrays["lam"])


def tables(runs: Sequence[tuple[str, measure.Equivariance]], title: str = "Equivariance") -> list[Table]:
    """Two tables: with a row for each run, and with a row for each run and lam."""
    summary, rows = [], []
    for name, r in runs:
        errors = np.stack([r.relative.mean, r.absolute.mean, r.cosine.mean], axis=1)
        half = int(np.argmin(np.abs(r.lam - 0.5)))
        summary.append([name, r.lam[half], *errors[half], r.clean_norm, r.clean_rank, r.pairs, r.equal_pairs])
        # At lam 0 and 1 nothing is mixed: values are rounding, which would only widen the table.
        errors, quantiles = (np.where(np.abs(x) < 1e-6, 0.0, x) for x in (errors, r.relative.quantiles))
        rows += [[name, r.lam[i], *errors[i], r.norm[i], r.rank[i], *quantiles[i]] for i in range(len(r.lam))]
    names = ["relative error", "absolute error", "cosine"]
    return [
        {
            "title": f"{title}: at lam nearest 0.5",
            "columns": ["run", "lam", *names, "clean norm", "clean effective rank", "pairs", "equal pairs"],
            "rows": summary,
            "note": "Relative error is ||g(x_mix) - mixture|| / ||g(x_i) - g(x_j)||, without pairs of equal features.",
        },
        {
            "title": f"{title}: by lam",
            "columns": ["run", "lam", *names, "norm", "effective rank", *_MARKS],
            "rows": rows,
            "note": "Percentages are quantiles of the relative error over the pairs. Less than 1e-6 is shown as 0.",
        },
    ]


def equivariance(context: Context) -> Result:
    """Errors, cosines, norms and ranks against lam, and the picture of two classes."""
    test, options = context.split("test"), context.options
    anchor, partner = pairs(len(test.labels), options.pairs, options.seed)
    runs, result = context.runs, Result()
    result.others = {name: Result() for name, _ in runs[1:]}
    results = [result, *result.others.values()]
    for mixer in APPLY:
        found = [(name, measure.equivariance(*represent(it, mixer, anchor, partner))) for name, it in runs]
        title = "mixup" if mixer == "mixup" else "CutMix"
        for (_, own), of_run in zip(found, results, strict=True):
            half = int(np.argmin(np.abs(own.lam - 0.5)))
            of_run.scalars[f"relative error {title}"] = own.relative.mean[half]
            of_run.items[f"relative error {mixer}"] = own.half
            of_run.scalars[f"cosine {title}"] = own.cosine.mean[half]
            if mixer == "mixup":
                of_run.scalars["effective rank"] = own.clean_rank
        result.tables += tables(found, title)
        caption = f"{title}: distance of the mixed image's representation from the mixture of the two representations."
        result.picture(f"equivariance_{mixer}", figures.equivariance_error(found), caption)
        caption = f"{title}: cosine to the mixture, feature norm and effective rank (does the penalty collapse them?)."
        result.picture(f"features_{mixer}", figures.equivariance_features(found), caption)
    result.note = (
        f"{len(anchor):,} random pairs of test images, lam from 0 to 1 in steps of 0.1, seed {options.seed}; the "
        "numbers in short are those at lam 0.5. CutMix boxes lie wholly inside the image; lam is the share of the "
        "anchor's pixels really left."
    )
    _own_mixing(runs, result)
    _two_classes(context, runs, result)
    return result


def _own_mixing(runs: list[tuple[str, Context]], result: Result) -> None:
    """Adds the error under a run's own mixer: a row for each run that mixes, a scalar for the first."""
    rows = []
    for index, (name, it) in enumerate(runs):
        mixer = it.run.config.mixer.name
        if mixer == "none":
            continue
        try:
            own = represent_own(it, count=it.options.pairs)
        except SemError as error:  # its scorer is not there
            result.note += f" {name}: without its own mixing: {str(error).splitlines()[0]}"
            continue
        errors = own.relative[own.middle].astype(np.float64)
        if not len(errors):
            continue
        absolute = own.absolute[own.middle].astype(np.float64).mean()
        rows.append([name, mixer, len(errors), errors.mean(), *np.quantile(errors, measure.QUANTILES), absolute])
        of_run = result.others.get(name, result) if index else result
        of_run.scalars["relative error own mixer"] = errors.mean()
        of_run.items["relative error own"] = np.where(own.middle, own.relative, np.nan)
    if rows:
        title = f"The run's own mixer, lam between {MIDDLE[0]} and {MIDDLE[1]}"
        columns = ["run", "mixer", "pairs", "relative error", *_MARKS, "absolute error"]
        note = "Test pairs mixed as in training, lam as it draws them; percentages are quantiles of the relative error."
        result.tables.append({"title": title, "columns": columns, "rows": rows, "note": note})


def _two_classes(context: Context, runs: list[tuple[str, Context]], result: Result) -> None:
    """Adds the paper's picture: pairs of the first two classes with enough items, mixed by mixup, in one plane."""
    test, names = context.split("test"), context.run.data.class_names
    items = np.bincount(test.labels, minlength=len(names))
    chosen = np.flatnonzero(items >= min(SHOWN_PAIRS, np.sort(items)[-2]))[:2]
    rows = [np.flatnonzero(test.labels == label)[:SHOWN_PAIRS] for label in chosen]
    count = min(map(len, rows))
    if count < 2:
        result.note += " Too few test images of a class for the picture of two classes."
        return
    partner, anchor = (it[:count] for it in rows)
    shown = [(name, represent(it, "mixup", anchor, partner)) for name, it in runs]
    methods = ["pca"]
    if context.options.umap:
        reason = measure.umap_missing()
        methods += [] if reason else ["umap"]
        result.note += f" {reason}" if reason else ""
    pair = (names[chosen[0]], names[chosen[1]])
    _path(context, (partner, anchor), shown, pair, result)
    for method in methods:
        drawn = [(name, measure.embed(*it, method=method, seed=context.options.seed)) for name, it in shown]
        classes = f"{pair[1]} (lam 1) and {pair[0]} (lam 0)"
        caption = f"mixup of {count} pairs of the classes {classes}, in one {method.upper()}."
        result.picture(f"two_classes_{method}", figures.embedding(drawn, pair), caption)


def _path(context: Context, rows, shown: list[tuple[str, Mixed]], names: tuple[str, str], result: Result) -> None:
    """Adds the picture of one pair: the one whose error under this run is the median of the pairs at lam 0.5."""
    partner, anchor = rows
    half = measure.equivariance(*shown[0][1]).half
    finite = np.flatnonzero(np.isfinite(half))
    if not len(finite):
        return
    chosen = int(finite[np.argsort(half[finite])[len(finite) // 2]])
    test = context.split("test").images
    first, second = (np.asarray(test[it[chosen : chosen + 1]])[0] / 255.0 for it in (anchor, partner))
    images = np.stack([lam * first + (1.0 - lam) * second for lam in LAM])
    paths = []
    for name, it in shown:
        try:
            path = measure.straightened(it.mixed[:, chosen], it.anchor[chosen], it.partner[chosen], LAM)
        except RunError:  # a compared run has equal features of this pair
            continue
        paths.append((name, path))
    if not paths:
        return
    caption = (
        f"What equivariance means: test images {partner[chosen]} ({names[0]}) and {anchor[chosen]} ({names[1]}), mixed "
        "by mixup. If the net were equivariant, the path of the mixed images' representations would be the straight "
        "chord. One PCA plane a run, of path and chord together; the chord has length 1. The pair is the one whose "
        f"error is the median of {len(finite)} pairs under {shown[0][0]}."
    )
    result.picture("equivariance_path", figures.equivariance_path(figures.Pair(images, names), paths), caption)
