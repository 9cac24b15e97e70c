"""The comparison of a run with others on the same items: every number side by side, with the difference's interval.

    part = compare(context, results)      # a Result for the page; None where no run is compared

The other runs are scored by the suites that this run was scored by. An interval is a paired bootstrap over test items.
"""

from collections.abc import Mapping

import numpy as np

from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.measures.paired import Difference, auroc_difference, mean_difference
from sem_jax.evaluation.report.gallery import MOST
from sem_jax.evaluation.report.record import Table
from sem_jax.evaluation.suites import SUITES

ITSELF = "equivariance"  # the suite that scores the compared runs with its own
COLUMNS = ["what", "this run", "other", "difference", "95% from", "to", "better"]
_LOWER = ("nll", "brier", "mCE", "ECE", "relative error")  # beginnings of the names of what should be low
_HIGHER = ("top", "mean accuracy", "accuracy", "AUROC")
NOTE = (
    "The difference is the other run minus this one. Its interval is a paired bootstrap over the same test items: it "
    "says how far the difference depends on the choice of items, not what another seed would give. Better is the run "
    "that the whole interval favours."
)


def compare(context: Context, results: Mapping[str, Result | Missing]) -> Result | None:
    """A table for each compared run, and galleries of the test images on which it and this run disagree.

    Raises:
      RunError: a run of other classes or sizes.
    """
    if not context.given.compared:
        return None
    own = {name: it for name, it in results.items() if isinstance(it, Result)}
    try:
        runs = context.runs
    except Missing as error:
        return Result(note=f"No comparison: {error.reason}.")
    part = Result(note=NOTE)
    for number, (name, other) in enumerate(runs[1:], start=1):
        theirs = {}
        for suite, mine in own.items():
            if suite == ITSELF:
                theirs[suite] = mine.others.get(name, Result())
                continue
            try:
                theirs[suite] = SUITES[suite](other)
            except Missing as error:
                part.note += f" {name}, {suite}: {error.reason}."
        part.tables.append(_table(context.run.name, name, own, theirs, _same_mixer(context, other)))
        if "clean" in theirs and context.options.pictures:
            _disagreements(context, other, name, number, part)
    return part


def _same_mixer(one: Context, other: Context) -> bool:
    return one.run.config.mixer.to_dict() == other.run.config.mixer.to_dict()


def _table(own_name: str, name: str, own: dict[str, Result], theirs: dict[str, Result], same_mixer: bool) -> Table:
    """The scalars of both runs that are measured numbers, with the difference of each."""
    rows, units = [], []
    for suite, mine in own.items():
        other = theirs.get(suite, Result())
        for scalar, value in mine.scalars.items():
            second = other.scalars.get(scalar)
            if not isinstance(value, float) or not isinstance(second, float):
                continue
            if "own mixer" in scalar and not same_mixer:
                continue  # under two mixers: no two measurements of one thing
            change = difference(scalar, mine, other)
            bounds = [change.low, change.high] if change else [None, None]
            better = _better(scalar, change, own_name, name)
            rows.append([f"{suite}: {scalar}", value, second, second - value, *bounds, better])
            units.append(mine.units.get(scalar, ""))
    columns = [own_name if it == "this run" else name if it == "other" else it for it in COLUMNS]
    points = {column: "points" for column in COLUMNS[3:6]}
    title = f"{name} against {own_name}"
    return {"title": title, "columns": columns, "rows": rows, "row_units": units, "units": points}


def difference(scalar: str, mine: Result, other: Result) -> Difference | None:
    """The paired difference of a scalar; None where the items are not kept of what it is."""
    a, b = mine.items, other.items
    if scalar.startswith("AUROC msp "):
        name = scalar.removeprefix("AUROC ")
        if {name, "msp test"} <= set(a) & set(b):
            return auroc_difference((a["msp test"], a[name]), (b["msp test"], b[name]))
        return None
    if scalar == "mean accuracy":
        cells = [it for it in a if it.startswith("correct ") and it in b]
        means = [np.mean([items[it] for it in cells], axis=0) for items in (a, b)]  # an image counts once
        return mean_difference(*means) if cells else None
    name = {
        "top1": "correct test",
        "nll": "nll test",
        "relative error mixup": "relative error mixup",
        "relative error CutMix": "relative error cutmix",
        "relative error own mixer": "relative error own",
    }.get(scalar, scalar.replace("top1 ", "correct ", 1) if scalar.startswith("top1 ") else "")
    return mean_difference(a[name], b[name]) if name in a and name in b else None


def _better(scalar: str, change: Difference | None, own: str, other: str) -> str:
    """The run that the interval favours; "" for numbers of which neither high nor low is good."""
    sign = -1 if scalar.startswith(_LOWER) else 1 if scalar.startswith(_HIGHER) else 0
    if not sign or change is None:
        return ""
    if change.low <= 0 <= change.high:
        return "not clear"
    return other if sign * change.value > 0 else own


def _disagreements(context: Context, other: Context, name: str, number: int, part: Result) -> None:
    """Two galleries: what only one of the two runs gets right, the other's most confident errors first."""
    test, names = context.split("test"), context.run.data.class_names
    logits = {True: context.outputs("test", test.images).logits, False: other.outputs("test", test.images).logits}
    for mine in (True, False):
        right, wrong = logits[mine], logits[not mine]
        answers = wrong.argmax(axis=1)
        rows = np.flatnonzero((right.argmax(axis=1) == test.labels) & (answers != test.labels))
        shifted = np.exp(wrong[rows] - wrong[rows].max(axis=1, keepdims=True))
        confidence = 1.0 / shifted.sum(axis=1)
        order = np.argsort(-confidence, kind="stable")[:MOST]
        chosen = rows[order]
        facts = [
            {"item": int(i), "true": names[test.labels[i]], "taken for": names[answers[i]], "confidence": float(share)}
            for i, share in zip(chosen, confidence[order], strict=True)
        ]
        captions = [f"{it['true']}, taken for {it['taken for']}, {100 * it['confidence']:.1f}%" for it in facts]
        who = (context.run.name, name) if mine else (name, context.run.name)
        caption = f"{len(rows):,} test images that {who[0]} gets right and {who[1]} wrong; its most confident errors."
        images = np.asarray(test.images[chosen])
        part.gallery(f"only_right_{'this' if mine else 'other'}_{number}", images, facts, captions, caption)
