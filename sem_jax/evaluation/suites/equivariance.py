"""The suite behind SEM's Fig. 3: mixed representations against mixtures of representations, for mixup and CutMix."""

import json
from typing import NamedTuple

import numpy as np

from sem_jax.errors import RunError, SemError
from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.measures import equivariance as measure
from sem_jax.evaluation.report import figures
from sem_jax.evaluation.suites.own_mixing import MIDDLE, represent_own
from sem_jax.mixers.cutmix import CutmixDraw, apply_cutmix
from sem_jax.mixers.mixup import MixupDraw, apply_mixup
from sem_jax.runs.opening import Loaded, open_compared

LAM = np.linspace(0.0, 1.0, 11)
APPLY = {"mixup": apply_mixup, "cutmix": apply_cutmix}
SHOWN_PAIRS = 40  # of the picture of two classes: more hide each other


class Mixed(NamedTuple):
    """Representations of n pairs at l mixing weights."""

    mixed: np.ndarray  # f32[l n d]
    anchor: np.ndarray  # f32[n d]
    partner: np.ndarray  # f32[n d]
    lam: np.ndarray  # f32[l n], of the anchor's pixels really left


def boxes(lam: float, count: int, shape: tuple[int, int], rng: np.random.Generator) -> CutmixDraw:
    """`count` boxes that leave a share of about `lam` of the anchor, each wholly inside, at random places.

    A box that hangs over an edge, as in training, would not reach lam = 0. The width makes up for the rounding of the
    height, so that the share is as near to lam as whole pixels allow.
    """
    height, width = shape
    rows = max(round(height * float(np.sqrt(1.0 - lam))), int(lam < 1.0))
    columns = min(width, round((1.0 - lam) * height * width / rows)) if rows else 0
    top = rng.integers(0, height - rows + 1, count).astype(np.int32)
    left = rng.integers(0, width - columns + 1, count).astype(np.int32)
    return CutmixDraw(top, (top + rows).astype(np.int32), left, (left + columns).astype(np.int32))


def draw(mixer: str, count: int, shape: tuple[int, int], seed: int) -> list:
    """The draws of `count` pairs at every LAM; the same seed gives the same."""
    if mixer == "mixup":
        return [MixupDraw(np.full(count, lam, np.float32)) for lam in LAM]
    rng = np.random.default_rng([seed, 1])
    return [boxes(lam, count, shape, rng) for lam in LAM]


def pairs(count: int, wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of different items, (i64[n], i64[n]); every item is an anchor once at most, n = min(wanted, count).

    Raises:
      Missing: for fewer than two items.
    """
    if count < 2:
        raise Missing(f"pairs need 2 test images or more, there is {count}")
    rng = np.random.default_rng(seed)
    anchor = rng.permutation(count)[: min(wanted, count)]
    return anchor, (anchor + rng.integers(1, count, len(anchor))) % count


def represent(context: Context, mixer: str, anchor: np.ndarray, partner: np.ndarray) -> Mixed:
    """g of anchors, partners and their mixtures; anchor and partner i64[n], rows of the test split."""
    images, seed = context.split("test").images, context.options.seed
    clean = context.outputs("test", images).features
    key = json.dumps([context.digest(images), mixer, seed, LAM.tolist(), anchor.tolist(), partner.tolist()])

    def make():
        draws = draw(mixer, len(anchor), images.shape[1:3], seed)
        tiled = (np.tile(rows, len(LAM)) for rows in (anchor, partner))
        joined = type(draws[0])(*(np.concatenate(fields) for fields in zip(*draws, strict=True)))
        both = (images[rows] for rows in tiled)
        features, lam = context.predictor.mixed(APPLY[mixer], joined, *both, label=f"pairs, {mixer}")
        return {"mixed": features.reshape(len(LAM), len(anchor), -1), "lam": lam.reshape(len(LAM), -1)}

    arrays = context.cache(f"pairs {mixer}", key, make, wanted=("mixed", "lam"))
    return Mixed(arrays["mixed"], clean[anchor], clean[partner], arrays["lam"])


def _runs(context: Context) -> list[tuple[str, Context]]:
    """(name, context) of this run and of those to compare it with, on the same test images."""
    runs, names = [context], {context.run.folder.resolve()}
    for folder in context.options.compare:
        run = open_compared(folder, context.run.checkpoint)
        if run.folder.resolve() in names:
            continue
        names.add(run.folder.resolve())
        if (run.data.image_shape, run.data.class_names) != (context.run.data.image_shape, context.run.data.class_names):
            raise RunError(
                f"{folder} was trained on other classes or sizes ({run.data.name}) than {context.run.folder}",
                "Compare runs with images of one size and the same classes.",
            )
        # Only the test images are shared: what each run was trained on is its own business.
        runs.append(Context(run, Loaded({"test": context.split("test")}, None, False), context.options))
    count = [it.run.name for it in runs]
    return [(it.run.name if count.count(it.run.name) == 1 else str(it.run.folder), it) for it in runs]


def equivariance(context: Context) -> Result:
    """Errors, cosines, norms and ranks against lam, and the picture of two classes."""
    test, options = context.split("test"), context.options
    anchor, partner = pairs(len(test.labels), options.pairs, options.seed)
    runs, result = _runs(context), Result()
    for mixer in APPLY:
        found = [(name, measure.equivariance(*represent(it, mixer, anchor, partner))) for name, it in runs]
        title = "mixup" if mixer == "mixup" else "CutMix"
        own = found[0][1]
        half = int(np.argmin(np.abs(own.lam - 0.5)))
        result.scalars[f"relative error {title}"] = own.relative.mean[half]
        result.items[f"relative error {mixer}"] = own.half
        result.scalars[f"cosine {title}"] = own.cosine.mean[half]
        if mixer == "mixup":
            result.scalars["effective rank"] = own.clean_rank
        result.tables += measure.tables(found, title)
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
    """The error under the mixer of the training itself, for every run that mixes; in short: of the first run."""
    rows = []
    for index, (name, it) in enumerate(runs):
        mixer = it.run.config.mixer.name
        if mixer == "none":
            continue
        try:
            own = represent_own(it, count=it.options.pairs)
        except SemError as error:  # a scorer that is gone
            result.note += f" {name}: without its own mixing: {str(error).splitlines()[0]}"
            continue
        errors = own.relative[own.middle].astype(np.float64)
        if not len(errors):
            continue
        absolute = own.absolute[own.middle].astype(np.float64).mean()
        rows.append([name, mixer, len(errors), errors.mean(), *np.quantile(errors, measure.QUANTILES), absolute])
        if index == 0:
            result.scalars["relative error own mixer"] = errors.mean()
            result.items["relative error own"] = np.where(own.middle, own.relative, np.nan)
    if rows:
        marks = [f"{100 * q:.0f}%" for q in measure.QUANTILES]
        result.tables.append(
            {
                "title": f"The run's own mixer, lam between {MIDDLE[0]} and {MIDDLE[1]}",
                "columns": ["run", "mixer", "pairs", "relative error", *marks, "absolute error"],
                "rows": rows,
                "note": "Test pairs mixed as in training, lam as it draws them; percentages are quantiles of the "
                "relative error.",
            }
        )


def _two_classes(context: Context, runs, result: Result) -> None:
    """The paper's picture: pairs of the two first classes with enough items, mixed by mixup, in one plane."""
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
    pair = tuple(names[label] for label in chosen)
    for method in methods:
        drawn = [(name, measure.embed(*it, method=method, seed=context.options.seed)) for name, it in shown]
        caption = (
            f"mixup of {count} pairs of the classes {pair[1]} (lam 1) and {pair[0]} (lam 0), in one {method.upper()}."
        )
        result.picture(f"two_classes_{method}", figures.embedding(drawn, pair), caption)
