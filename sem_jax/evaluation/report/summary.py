"""What a reader wants first: the facts of the run and its main numbers, for the head of a page and for a terminal.

    facts(record)              # [("method", "mixup+sem, gamma 0.3"), ...]
    main_numbers(record)       # a Table
    print(terminal(record))    # the same in columns

Works on the record alone, as it is in eval.json.
"""

from collections.abc import Mapping
from typing import Any

from scipy import stats

from sem_jax.evaluation.report.record import Record, Table
from sem_jax.evaluation.report.text import text, with_unit

LEVEL = 0.95
_MAIN = {  # suite -> beginning of a scalar's name -> what it is called
    "clean": {"top1": "test accuracy", "nll": "negative log-likelihood (nats)"},
    "corruptions": {"mean accuracy": "accuracy under {images} corruptions"},
    "shift": {"top1 ": "accuracy on {rest}"},
    "ood": {"AUROC msp ": "AUROC against {rest}"},
    "calibration": {"ECE equal-width": "expected calibration error"},
    "equivariance": {"relative error ": "relative equivariance error, {rest}"},
}


def facts(record: Record) -> list[tuple[str, str]]:
    """(name, text) of the checkpoint that was scored; what the record does not have is left out."""
    run = record["run"]
    if "checkpoint" not in run:  # a report on many runs
        return []
    config, versions = _dict(run.get("config")), _dict(run.get("versions"))
    data, model = _dict(config.get("data")), _dict(config.get("model"))
    size = [f"{key} {model[key]}" for key in ("depth", "width") if model.get(key)]
    parameters = run.get("parameters")
    size += [f"{parameters:,} parameters"] if isinstance(parameters, int) else []
    sizes = _dict(_dict(_dict(run.get("data")).get(data.get("name"))).get("sizes"))
    counts = ", ".join(f"{count:,} {split}" for split, count in sizes.items() if isinstance(count, int))
    commit = str(versions.get("commit") or "")
    rows = {
        "method": _method(run, config),
        "model": ", ".join([str(model.get("name") or ""), *size]).strip(", "),
        "data": ", ".join([str(data.get("name") or ""), counts]).strip(", "),
        "test accuracy": _accuracy(record),
        "checkpoint": ", ".join(
            f"{k} {run[k]}".removeprefix("checkpoint ") for k in ("checkpoint", "step") if k in run
        ),
        "seed": f"{config['seed']}, one run" if "seed" in config else "",
        "scored": str(run.get("date") or ""),
        "commit": commit[:12] + ("+" if commit.endswith("+") else ""),
        "device": str(run.get("devices") or ""),
    }
    return [(name, words) for name, words in rows.items() if words]


def _dict(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _method(run: Mapping, config: Mapping) -> str:
    gamma = _dict(config.get("objective")).get("gamma")
    if not run.get("method"):
        return ""
    penalty = f"penalty with gamma {gamma:g}" if isinstance(gamma, int | float) and gamma else "no penalty"
    return f"{run['method']}, {penalty}"


def _accuracy(record: Record) -> str:
    scalars = _dict(record["suites"].get("clean")).get("scalars", {})
    if not isinstance(scalars.get("top1"), float):
        return ""
    low, high = interval(scalars["top1"], scalars.get("items"))
    return with_unit(scalars["top1"], "%") + (f" ({low} to {high})" if low else "")


def interval(share: float, items: Any) -> tuple[str, str]:
    """The 95% Wilson interval of a share of so many independent items, in percent; ("", "") without their number."""
    if not isinstance(items, int) or items < 1:
        return "", ""
    low, high = stats.binomtest(round(share * items), items).proportion_ci(LEVEL, method="wilson")
    return text(low, "%"), text(high, "%")


def main_numbers(record: Record) -> Table:
    """The numbers that the paper's tables have, as far as they were measured."""
    rows = []
    for name, wanted in _MAIN.items():
        suite = _dict(record["suites"].get(name))
        scalars, units = suite.get("scalars", {}), suite.get("units", {})
        for beginning, title in wanted.items():
            for scalar, value in scalars.items():
                if scalar != beginning and not (beginning.endswith(" ") and scalar.startswith(beginning)):
                    continue
                called = title.format(rest=scalar[len(beginning) :], images=scalars.get("images", "")).replace(
                    "  ", " "
                )
                remark = _remark(scalar, value, scalars.get("items"))
                rows.append([called, with_unit(value, units.get(scalar, "")), remark])
    return {"title": "Main numbers", "columns": ["what", "value", "note"], "rows": rows}


def _remark(scalar: str, value: Any, items: Any) -> str:
    if scalar in ("top1", "mean accuracy") and isinstance(items, int):
        low, high = interval(value, items) if scalar == "top1" else ("", "")
        return f"{items:,} images" + (f", 95% interval {low} to {high}" if low else "")
    if scalar.startswith("relative error"):
        return "0 is equivariant" + ("" if scalar.endswith("own mixer") else "; at lam 0.5")
    return ""


def terminal(record: Any) -> str:
    """The main numbers in columns, for a terminal; names are as they come and must be made plain before printing."""
    rows = main_numbers(record)["rows"]
    wide = [max((len(row[c]) for row in rows), default=0) for c in range(2)]
    return "\n".join(f"  {a:<{wide[0]}}  {b:>{wide[1]}}  {c}".rstrip() for a, b, c in rows)
