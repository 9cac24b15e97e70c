"""The suite of out-of-distribution detection (SEM, Table 3): six scores against every OOD set that is there."""

import numpy as np

from sem_jax.errors import RunError
from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.measures import ood as detection
from sem_jax.evaluation.report import figures
from sem_jax.evaluation.sets import Absent, standard_ood
from sem_jax.evaluation.suites.shift import left_out
from sem_jax.interfaces import Outputs

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


def ood(context: Context) -> Result:
    """How well six scores tell the test split (positive) from each OOD set."""
    test, result, absent = context.split("test"), Result(), []
    outputs, notes = {}, []
    for it in _sets(context):  # one at a time: their images are not kept
        if isinstance(it, Absent):
            absent.append(it)
            continue
        if it.name in outputs:
            raise RunError(f"two OOD sets are called {it.name!r}", "Give the one of --ood another name.")
        outputs[it.name] = context.outputs(it.name, it.split.images)
        result.data[it.name] = {"images": context.digest(it.split.images), "items": len(it.split.labels)}
        notes += [f"{it.name}: {it.note}."] if it.note else []
    if not outputs:
        reasons = "; ".join(f"{it.name}: {it.reason}" for it in absent)
        remedy = absent[0].remedy
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
    if absent:
        result.tables.append(left_out(absent))
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


def _scores(outputs: Outputs, detectors) -> dict[str, np.ndarray]:
    return detection.all_scores(outputs.logits, outputs.features, detectors)


def _sets(context: Context):
    yield from context.options.ood
    given = {it.name.lower() for it in context.options.ood}
    for it in standard_ood(context.run, context.places, context.home):
        # A set that was named on the command line needs no line that it is missing.
        if not (isinstance(it, Absent) and any(it.name.lower() in name for name in given)):
            yield it


def _fit(context: Context) -> tuple[dict[str, detection.Score], str]:
    """The detectors, fitted on the features of the clean training images, and what is to be said of them."""
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


def _summary(inside, outside: dict[str, dict], found) -> dict:
    """AUROC: a row a score, a column a set, and the mean over the sets."""
    rows = []
    for score in inside:
        values = [found[score, name].auroc for name in outside]
        rows.append([TITLES[score], *values, float(np.mean(values))])
    note = f"The paper's Table 3 has the {TITLES[PAPER]}."
    return {"title": "AUROC", "columns": ["score", *outside, "mean"], "rows": rows, "note": note}
