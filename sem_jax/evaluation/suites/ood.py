"""The suite of out-of-distribution detection (SEM, Table 3): six scores on every OOD set that is there."""

from collections.abc import Iterator, Sequence

import numpy as np

from sem_jax.errors import DataError, RunError
from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.early import unsuited
from sem_jax.evaluation.measures import ood as detection
from sem_jax.evaluation.report import figures
from sem_jax.evaluation.report.gallery import MOST
from sem_jax.evaluation.sets import Absent, EvalSet, Standard, fitted, load_svhn, named, read_tree_fitted

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


def _folder(name: str, folders: tuple[str, ...], remedy: str, *, crop: bool = False) -> Standard:
    """A published set that is an image folder; `crop`: its images have a border, which is cut off."""

    def read(run, path) -> EvalSet:
        return read_tree_fitted(run, name, path, crop=crop)

    return Standard(name, f"folder {folders[0]}", folders, remedy, read)


_ODIN = "unpack {} of https://github.com/facebookresearch/odin into {{home}}"
_TEXTURES = "unpack https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz into {home}"
_PLACES = "unpack http://data.csail.mit.edu/places/places365/val_256.tar into {home}"
STANDARD = (
    _folder("LSUN-Crop", ("LSUN", "LSUN_C", "LSUN_crop"), _ODIN.format("LSUN.tar.gz"), crop=True),
    _folder("LSUN-Resize", ("LSUN_resize", "LSUN_R"), _ODIN.format("LSUN_resize.tar.gz")),
    _folder("Textures", ("dtd/images", "dtd", "Textures", "textures"), _TEXTURES),
    _folder("Places365", ("places365", "Places365", "val_256"), _PLACES),
)
_SVHN_TEST = 26_032


def _svhn(context: Context) -> EvalSet | Absent:
    first = None
    for place in [*context.places, *(place / "svhn" for place in context.places)]:
        try:
            split = load_svhn(place)
        except DataError as error:
            first = first or error
            continue
        return fitted(context.run, named("SVHN", split, _SVHN_TEST).name, split)
    return Absent("SVHN", str(first).partition("\n")[0], "python -m sem_jax prepare svhn_cropped")


def _standard(context: Context) -> Iterator[EvalSet | Absent]:
    data = context.run.data
    if reason := unsuited(data.name, data.image_shape):
        yield Absent("the standard sets", reason, "Give others: --ood NAME=PATH")
        return
    if data.name != "svhn_cropped":
        yield _svhn(context)
    yield from context.standard_sets(STANDARD)


def _sets(context: Context) -> Iterator[EvalSet | Absent]:
    """The given sets, then the standard sets or why they are not there, read one by one."""
    given = context.given.ood
    yield from given
    for it in _standard(context):
        # A set that the options name is not reported as missing.
        if isinstance(it, EvalSet) or not any(it.name.lower() in name.lower() for name, *_ in given):
            yield it


def ood(context: Context) -> Result:
    """How well six scores separate the test split (positive) from each OOD set."""
    test, names, result = context.split("test"), context.run.data.class_names, Result()
    outputs, notes = {}, []
    likest: list[tuple[dict, np.ndarray]] = []  # images of any OOD set that look most in-distribution to the net
    for it in _sets(context):  # one at a time, so that only one is in memory
        if isinstance(it, Absent):
            result.absent.append(it)
            continue
        if it.name in outputs:
            raise RunError(f"two OOD sets are called {it.name!r}", "Give the one of --ood another name.")
        if same := [name for name, facts in result.data.items() if facts == context.facts(it.split)]:
            notes.append(f"{it.name} is left out: its images are those of {same[0]}.")
            continue
        outputs[it.name] = context.outputs(it.name, it.split.images)
        _keep_likest(it, outputs[it.name].logits, names, likest)
        result.data[it.name] = context.facts(it.split)
        notes += [f"{it.name}: {it.note}."] if it.note else []
    if not outputs:
        reasons = "; ".join(f"{it.name}: {it.reason}" for it in result.absent)
        remedy = result.absent[0].remedy
        remedy += "" if "--ood" in remedy else "; or give another: --ood NAME=PATH"
        raise Missing(f"no OOD set is there ({reasons})", remedy)
    detectors, note = _fit(context)
    inside, *others = (
        detection.all_scores(it.logits, it.features, detectors)
        for it in (context.outputs("test", test.images), *outputs.values())
    )
    outside = dict(zip(outputs, others, strict=True))
    found = {(s, name): detection.detection(inside[s], outside[name][s]) for s in inside for name in outside}
    result.items = {f"{PAPER} {name}": it[PAPER] for name, it in {"test": inside, **outside}.items()}
    result.scalars = {f"AUROC {PAPER} {name}": found[PAPER, name].auroc for name in outside}
    result.percent(*result.scalars)
    areas = {s: [found[s, name].auroc for name in outside] for s in inside}
    rows = [[TITLES[s], *values, float(np.mean(values))] for s, values in areas.items()]
    paper = f"The paper's Table 3 has the {TITLES[PAPER]}."
    columns, units = ["score", *outside, "mean"], dict.fromkeys([*outside, "mean"], "%")
    result.tables.append({"title": "AUROC", "columns": columns, "rows": rows, "note": paper, "units": units})
    columns = ["set", "items", "score", "AUROC", "AUPR-in", "AUPR-out", "FPR at 95% TPR"]
    rows = [[name, len(outside[name][PAPER]), TITLES[s], *found[s, name]] for name in outside for s in inside]
    units = dict.fromkeys(columns[3:], "%")
    result.tables.append({"title": "All metrics", "columns": columns, "rows": rows, "units": units})
    intro = f"In-distribution (positive): the {len(test.labels):,} test images. AUPR depends on the two sets' sizes."
    result.note = " ".join([intro, note, *notes]).strip()
    for score in [score for score in DRAWN if score in inside]:
        scores = {name: it[score] for name, it in outside.items()}
        curves = {
            name: (*detection.roc_curve(inside[score], it), found[score, name].auroc) for name, it in scores.items()
        }
        result.picture(f"roc_{score}", figures.roc_curves(curves, TITLES[score]), f"ROC of the {TITLES[score]}.")
        picture = figures.score_histograms(inside[score], scores, TITLES[score])
        result.picture(f"scores_{score}", picture, f"Histograms of the {TITLES[score]}.")
    _hardest(context, inside[PAPER], likest, result)
    return result


def _keep_likest(it: EvalSet, logits: np.ndarray, names: Sequence[str], kept: list[tuple[dict, np.ndarray]]) -> None:
    """Adds the set's images of highest score to `kept`, of which the MOST highest are left."""
    score, answers = detection.msp(logits), logits.argmax(axis=1)
    for i in np.argsort(-score, kind="stable")[:MOST]:
        fact = {"set": it.name, "item": int(i), "taken for": names[answers[i]], "confidence": float(score[i])}
        kept.append((fact, np.array(it.split.images[i : i + 1])[0]))  # a copy: the set is not kept
    kept.sort(key=lambda pair: -pair[0]["confidence"])
    del kept[MOST:]


def _hardest(context: Context, score: np.ndarray, likest: list[tuple[dict, np.ndarray]], result: Result) -> None:
    """Adds two galleries: the test images that look least in-distribution, and the OOD images that look most so."""
    test, names = context.split("test"), context.run.data.class_names
    answers = context.outputs("test", test.images).logits.argmax(axis=1)
    chosen = np.argsort(score, kind="stable")[:MOST]
    facts = [
        {"item": int(i), "true": names[test.labels[i]], "taken for": names[answers[i]], "confidence": float(score[i])}
        for i in chosen
    ]
    captions = [f"{it['true']}, taken for {it['taken for']}, {100 * it['confidence']:.1f}%" for it in facts]
    caption = f"The hardest in-distribution images: test images of the lowest {TITLES[PAPER]}."
    result.gallery("hardest_id", np.asarray(test.images[chosen]), facts, captions, caption)
    facts = [fact for fact, _ in likest]
    captions = [f"{it['set']}, taken for {it['taken for']}, {100 * it['confidence']:.1f}%" for it in facts]
    caption = f"The most in-distribution-like OOD images: those of the highest {TITLES[PAPER]} of all sets."
    result.gallery("likest_ood", np.stack([image for _, image in likest]), facts, captions, caption)


def _fit(context: Context) -> tuple[dict[str, detection.Score], str]:
    """The detectors, fitted on the training images, and a note on those that cannot be fitted."""
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
