"""The suite of out-of-distribution detection (SEM, Table 3): six scores against every OOD set that is there."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sem_jax.errors import DataError, RunError
from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.measures import ood as detection
from sem_jax.evaluation.report import figures
from sem_jax.evaluation.report.record import Table
from sem_jax.evaluation.sets import Absent, EvalSet, fitted, load_svhn, named, read_tree_fitted, size_text
from sem_jax.runs.opening import Run
from sem_jax.runs.predict import Predictions

PAPER = "msp"  # the score of SEM's Table 3
DRAWN = (PAPER, "energy", "knn")  # scores that get pictures
TITLES = {  # short enough for an axis
    "msp": "max softmax probability",
    "max_logit": "max logit",
    "energy": "energy",
    "entropy": "negative entropy",
    "knn": "kNN distance (negative)",
    "mahalanobis": "Mahalanobis (negative)",
}


class _Standard(NamedTuple):
    name: str
    folders: tuple[str, ...]  # relative to a place; the first that is there is read
    remedy: str
    crop: bool = False  # its images have the model's pixels in a border


_ODIN = "unpack {} of https://github.com/facebookresearch/odin into {{place}}"
STANDARD = (  # published sets that are image folders
    _Standard("LSUN-Crop", ("LSUN", "LSUN_C", "LSUN_crop"), _ODIN.format("LSUN.tar.gz"), crop=True),
    _Standard("LSUN-Resize", ("LSUN_resize", "LSUN_R"), _ODIN.format("LSUN_resize.tar.gz")),
    _Standard(
        "Textures",
        ("dtd/images", "dtd", "Textures", "textures"),
        "unpack https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz into {place}",
    ),
    _Standard(
        "Places365",
        ("places365", "Places365", "val_256"),
        "unpack http://data.csail.mit.edu/places/places365/val_256.tar into {place}",
    ),
)
_SVHN_TEST = 26_032


def standard_ood(run: Run, places: Sequence[Path], home: Path) -> Iterator[EvalSet | Absent]:
    """SVHN, LSUN-Crop, LSUN-Resize, Textures and Places365, read one by one, or why not.

    Args:
      run: the run to score.
      places: where sets are looked for; home: the one to put them in.
    """
    if run.data.image_shape[2] != 3:
        reason = f"they are RGB, {run.data.name} has {size_text(run.data.image_shape)}"
        yield Absent("the standard sets", reason, "Give others: --ood NAME=PATH")
        return
    if run.data.name != "svhn_cropped":
        yield _svhn(run, places)
    for name, folders, remedy, crop in STANDARD:
        folder = next((p / sub for p in places for sub in folders if (p / sub).is_dir()), None)
        if folder is None:
            reason = f"no folder {folders[0]} in {', '.join(map(str, places))}"
            yield Absent(name, reason, remedy.format(place=home))
            continue
        try:
            yield read_tree_fitted(run, name, folder, crop=crop)
        except DataError as error:
            yield Absent.damaged(name, error)


def _svhn(run: Run, places: Sequence[Path]) -> EvalSet | Absent:
    first = None
    for place in [*places, *(place / "svhn" for place in places)]:
        try:
            split = load_svhn(place)
        except DataError as error:
            first = first or error
            continue
        return fitted(run, named("SVHN", split, _SVHN_TEST).name, split)
    return Absent("SVHN", str(first).partition("\n")[0], "python -m sem_jax prepare svhn_cropped")


def ood(context: Context) -> Result:
    """How well six scores tell the test split (positive) from each OOD set."""
    test, result = context.split("test"), Result()
    outputs, notes = {}, []
    for it in _sets(context):  # one at a time: their images are not kept
        if isinstance(it, Absent):
            result.absent.append(it)
            continue
        if it.name in outputs:
            raise RunError(f"two OOD sets are called {it.name!r}", "Give the one of --ood another name.")
        outputs[it.name] = context.outputs(it.name, it.split.images)
        result.data[it.name] = {"images": context.digest(it.split.images), "items": len(it.split.labels)}
        notes += [f"{it.name}: {it.note}."] if it.note else []
    if not outputs:
        reasons = "; ".join(f"{it.name}: {it.reason}" for it in result.absent)
        remedy = result.absent[0].remedy
        remedy += "" if "--ood" in remedy else "; or give another: --ood NAME=PATH"
        raise Missing(f"no OOD set is there ({reasons})", remedy)
    detectors, note = _fit(context)
    inside = _scores(context.outputs("test", test.images), detectors)
    outside = {name: _scores(it, detectors) for name, it in outputs.items()}
    found = {(s, name): detection.detection(inside[s], outside[name][s]) for s in inside for name in outside}
    result.items = {f"{PAPER} {name}": it[PAPER] for name, it in {"test": inside, **outside}.items()}
    result.scalars = {f"AUROC {PAPER} {name}": found[PAPER, name].auroc for name in outside}
    result.tables.append(_summary(inside, outside, found))
    columns = ["set", "items", "score", "AUROC", "AUPR-in", "AUPR-out", "FPR at 95% TPR"]
    rows = [[name, len(outside[name][PAPER]), TITLES[s], *found[s, name]] for name in outside for s in inside]
    result.tables.append({"title": "All metrics", "columns": columns, "rows": rows})
    intro = f"In-distribution (positive): the {len(test.labels):,} test images. AUPR depends on the two sets' sizes."
    result.note = " ".join([intro, note, *notes]).strip()
    for score in DRAWN:
        if score not in inside:
            continue
        curves = {
            name: (*detection.roc_curve(inside[score], outside[name][score]), found[score, name].auroc)
            for name in outside
        }
        result.picture(f"roc_{score}", figures.roc_curves(curves, TITLES[score]), f"ROC of the {TITLES[score]}.")
        histograms = {name: outside[name][score] for name in outside}
        picture = figures.score_histograms(inside[score], histograms, TITLES[score])
        result.picture(f"scores_{score}", picture, f"Histograms of the {TITLES[score]}.")
    return result


def _scores(outputs: Predictions, detectors) -> dict[str, np.ndarray]:
    return detection.all_scores(outputs.logits, outputs.features, detectors)


def _sets(context: Context) -> Iterator[EvalSet | Absent]:
    yield from context.given.ood
    given = {it.name.lower() for it in context.given.ood}
    for it in standard_ood(context.run, context.places, context.home):
        # A set that was named on the command line needs no line that it is missing.
        if not (isinstance(it, Absent) and any(it.name.lower() in name for name in given)):
            yield it


def _fit(context: Context) -> tuple[dict[str, detection.Score], str]:
    """The detectors, fitted on the features of the clean training images, and a note on those that could not be."""
    train = context.loaded.splits.get("train")
    if train is None:
        reason = str(context.loaded.absent).partition("\n")[0]
        return {}, f"Without kNN and Mahalanobis, which need the training images ({reason})."
    features = context.outputs("train", train.images).features
    fitted, note = {}, []
    for name, fit in detection.DETECTORS.items():
        try:
            fitted[name] = fit(features, train.labels)
        except RunError as error:
            note.append(f"Without {TITLES[name]}: {str(error).partition(chr(10))[0]}.")
    return fitted, " ".join(note)


def _summary(inside, outside: dict[str, dict], found) -> Table:
    """AUROC: a row a score, a column a set, and the mean over the sets."""
    rows = []
    for score in inside:
        values = [found[score, name].auroc for name in outside]
        rows.append([TITLES[score], *values, float(np.mean(values))])
    note = f"The paper's Table 3 has the {TITLES[PAPER]}."
    return {"title": "AUROC", "columns": ["score", *outside, "mean"], "rows": rows, "note": note}
