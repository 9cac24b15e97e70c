"""The suites by name: functions (Context) -> Result; one that finds its data missing raises Missing.

Adding one: a function here or in a module of its own, a line in SUITES.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sem_jax.evaluation.context import Context, Result
from sem_jax.evaluation.measures import calibration, metrics
from sem_jax.evaluation.report import figures
from sem_jax.evaluation.suites.equivariance import equivariance
from sem_jax.evaluation.suites.ood import ood
from sem_jax.evaluation.suites.shift import corruptions, shift

CHEAP = ("clean", "calibration", "equivariance")  # seconds, and nothing but the run's own data


def clean(context: Context) -> Result:
    """Accuracy, likelihood and confusion on the test split."""
    test, names = context.split("test"), context.run.data.class_names
    logits = context.outputs("test", test.images).logits
    matrix = metrics.confusion_matrix(logits, test.labels)
    accuracy = metrics.per_class_accuracy(logits, test.labels)
    result = Result(scalars=metrics.classification(logits, test.labels) | {"items": len(test.labels)})
    result.items["correct test"] = metrics.correct(logits, test.labels)
    result.note = "Test split, checked by its fingerprint." if context.loaded.verified else _unverified(context)
    rows = [[name, accuracy[i], int(matrix[i].sum()), *_confused(matrix, names, i)] for i, name in enumerate(names)]
    columns = ["class", "accuracy", "items", "most often taken for", "share"]
    result.tables.append({"title": "By class", "columns": columns, "rows": rows})
    caption = "Confusion matrix of the test split, rows normalised; the colour grows with the square root."
    result.picture("confusion", figures.confusion_matrix(matrix, names), caption)
    return result


def _unverified(context: Context) -> str:
    reason = str(context.loaded.absent).partition("\n")[0]
    return f"Test split; its fingerprint could not be compared with the run's, only its size and classes ({reason})."


def _confused(matrix: np.ndarray, names: Sequence[str], row: int) -> list:
    others = matrix[row].copy()
    others[row] = 0
    if not others.any():
        return ["–", 0.0]
    worst = int(others.argmax())
    return [names[worst], others[worst] / matrix[row].sum()]


def calibrate(context: Context) -> Result:
    """ECE and reliability on test, before and, where the run held val out, after temperature scaling."""
    test, val = context.split("test"), context.loaded.splits.get("val")
    logits = context.outputs("test", test.images).logits
    fitted_on = (context.outputs("val", val.images).logits, val.labels) if val is not None else (None, None)
    found = calibration.calibrate(logits, test.labels, *fitted_on)
    shown = {"before": found.before} | ({"after": found.after} if found.after else {})
    result = Result()
    for when, by_scheme in shown.items():
        for scheme, it in by_scheme.items():
            result.scalars[f"ECE equal-{scheme}" + (" scaled" if when == "after" else "")] = it.ece
    if found.temperature:
        result.scalars["temperature"] = found.temperature.value
        result.note = f"Temperature fitted on the {len(val.labels):,} items of val, NLL there "
        result.note += f"{found.temperature.nll_before:.4f} before and {found.temperature.nll_after:.4f} after."
        if found.temperature.at_bound:
            result.note += " The best temperature lies at the end of the search: do not trust it."
    else:
        result.note = "No temperature scaling: the run held no val out (data.val_size 0), and test must not choose it."
    rows = [
        [f"equal-{scheme}", "scaled" if when == "after" else "as trained", it.ece, it.max_error, len(it.count)]
        for when, by_scheme in shown.items()
        for scheme, it in by_scheme.items()
    ]
    columns = ["bins", "logits", "ECE", "largest gap of a bin", "number of bins"]
    result.tables.append({"title": "Calibration error", "columns": columns, "rows": rows})
    for scheme in calibration.SCHEMES:
        after = found.after[scheme] if found.after else None
        value = found.temperature.value if found.temperature else 1.0
        picture = figures.reliability_diagram(found.before[scheme], after, value)
        result.picture(f"reliability_{scheme}", picture, f"Reliability diagram of test, bins of equal {scheme}.")
    return result


SUITES: dict[str, Callable[[Context], Result]] = {
    "clean": clean,
    "corruptions": corruptions,
    "shift": shift,
    "ood": ood,
    "calibration": calibrate,
    "equivariance": equivariance,
}
