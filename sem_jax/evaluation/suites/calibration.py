"""The suite of calibration: how well confidence predicts accuracy, before and after temperature scaling."""

from sem_jax.evaluation.context import Context, Result
from sem_jax.evaluation.measures import calibration
from sem_jax.evaluation.report import figures


def calibrate(context: Context) -> Result:
    """ECE and reliability on test, before and, if the run held val out, after temperature scaling."""
    test, val = context.split("test"), context.loaded.splits.get("val")
    logits = context.outputs("test", test.images).logits
    fitted_on = (context.outputs("val", val.images).logits, val.labels) if val is not None else ()
    before, after, temperature = calibration.calibrate(logits, test.labels, *fitted_on)
    result = Result()
    rows = []
    for logits_are, mark, by_scheme in (("as trained", "", before), ("scaled", " scaled", after or {})):
        for scheme, it in by_scheme.items():
            result.scalars[f"ECE equal-{scheme}{mark}"] = it.ece
            result.percent(f"ECE equal-{scheme}{mark}")
            rows.append([f"equal-{scheme}", logits_are, it.ece, it.max_error, len(it.count)])
    if temperature and val is not None:
        result.scalars["temperature"] = temperature.value
        result.note = f"Temperature fitted on the {len(val.labels):,} items of val, NLL there "
        result.note += f"{temperature.nll_before:.4f} before and {temperature.nll_after:.4f} after."
        if temperature.at_bound:
            result.note += " The best temperature lies at the end of the search: do not trust it."
    else:
        result.note = "No temperature scaling: the run held no val out (data.val_size 0), and test must not choose it."
    columns = ["bins", "logits", "ECE", "largest gap of a bin", "number of bins"]
    units = {"ECE": "%", "largest gap of a bin": "%"}
    result.tables.append({"title": "Calibration error", "columns": columns, "rows": rows, "units": units})
    for scheme in calibration.SCHEMES:
        value = temperature.value if temperature else 1.0
        picture = figures.reliability_diagram(before[scheme], after[scheme] if after else None, value)
        result.picture(f"reliability_{scheme}", picture, f"Reliability diagram of test, bins of equal {scheme}.")
    return result
