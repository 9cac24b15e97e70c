"""The numbers of the tables: what a method got to, what the paper has, and what SEM changed.

    for metric in metrics_of(rows.entries(group)): ...
    score(rows, metric, ("preact", "cifar10"), "mixup+sem")      # Score: ours, the paper's, SEM's share

A set that stands in for one of the paper's keeps its own name and gets no difference to the paper.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.paper import stats
from experiments.paper.ledger import Ledger
from experiments.paper.rows import Group, Rows, Seeds, mixed_alike
from experiments.paper.stats import Interval, Intervals, Measured
from sem_jax.config import METHODS
from sem_jax.evaluation.corruptions import CORRUPTIONS, SEVERITIES

PAPER_RESULTS = Path(__file__).with_name("paper_results.csv")
PAPER_BACKBONES = {"preact": "preact_resnet18", "wrn": "wrn28_10"}
# Sets of the paper by the names that the evaluation gives them, with their official number of images.
OFFICIAL = {
    "CIFAR-10-C": ("cifar10_c", None),
    "CIFAR-100-C": ("cifar100_c", None),
    "CIFAR-10.1 v4": ("cifar10_1", 2021),  # by the paper's decimals (docs/reproducing.md); v6 is a column of its own
    "CIFAR-10.2": ("cifar10_2", 2000),
    "SVHN": ("svhn", 26_032),
    "LSUN-Crop": ("lsun_crop", 10_000),
}
PAPER_SETS = {  # (table, trained on) -> the paper's name, ours
    ("2", "cifar10"): {"cifar10_c": "CIFAR-10-C", "cifar10_1": "CIFAR-10.1", "cifar10_2": "CIFAR-10.2"},
    ("2", "cifar100"): {"cifar100_c": "CIFAR-100-C"},
    ("3", "cifar10"): {"svhn": "SVHN", "lsun_crop": "LSUN-Crop"},
    ("3", "cifar100"): {"svhn": "SVHN", "lsun_crop": "LSUN-Crop"},
}
CORRUPTED = frozenset(f"correct {name} {severity}" for name in CORRUPTIONS for severity in SEVERITIES)  # of items
SEM_PAIRS = {name: name.replace("+sem", "") for name in METHODS if "+sem" in name}  # with -> without

Items = Mapping[str, np.ndarray]  # of one run, see `Ledger.items`


class Metric(NamedTuple):
    """A column: a number of an entry, and an interval for the difference of two rows."""

    table: str
    set: str  # its truthful name
    official: str  # the paper's name, where it is that very set; else ""
    quantity: str  # accuracy or AUROC, a fraction
    value: Callable[[Mapping], float | None]
    intervals: Callable[[Sequence[tuple[Items, Items]]], Intervals | None]  # of (with, without), a pair a seed


class Change(NamedTuple):
    """The difference of two methods over the seeds that both have."""

    value: float | None
    interval: Interval | None  # over test items; None also where the items of a run are absent
    seeds: int
    measured: Measured | None = None  # for figures
    why: str = ""  # there is no value, where the rows are not compared


class Score(NamedTuple):
    """One cell of a table, in percent."""

    values: list[float]  # one a seed
    paper: float | None
    sem: Change  # with SEM - without
    paper_sem: float | None
    remark: str  # why something is empty or fewer

    @property
    def mean(self) -> float | None:
        return stats.mean_sd(self.values)[0]


def _correct(name: str, pairs):
    if any(name not in a or name not in b or a[name].shape != b[name].shape for a, b in pairs):
        return None
    return _of_difference(*([it[i][name] for it in pairs] for i in (0, 1)))


def _corrupted(pairs):
    """An image in all its corruptions is one item: they are resampled together."""
    names = [name for name in pairs[0][0] if name in CORRUPTED]
    shapes = {items[name].shape if name in items else None for pair in pairs for items in pair for name in names}
    if not names or len(shapes) != 1 or None in shapes:
        return None
    sides = ([np.mean([it[i][name] for name in names], axis=0) for it in pairs] for i in (0, 1))
    return _of_difference(*sides)


def _of_difference(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Intervals:
    return stats.mean_intervals(np.asarray(first, np.float64) - np.asarray(second, np.float64))


def _msp(name: str, pairs):
    wanted = ("msp test", f"msp {name}")
    if any(key not in items for pair in pairs for items in pair for key in wanted):
        return None
    if len({tuple(items[key].shape for key in wanted) for pair in pairs for items in pair}) != 1:
        return None
    return stats.auroc_intervals([tuple(items[key] for items in pair for key in wanted) for pair in pairs])


def _scalar(suite: str, name: str, entry: Mapping):
    return entry["suites"].get(suite, {}).get("scalars", {}).get(name)


def _of_set(suite: str, scalar: str, name: str, items: int | None, entry: Mapping):
    """A scalar of the entries that were scored on that set with so many images: others are another column."""
    return _scalar(suite, scalar, entry) if entry["sets"].get(name, {}).get("items") == items else None


def _official(name: str, entry: Mapping) -> str:
    code, count = OFFICIAL.get(name, ("", None))
    about = entry["sets"].get(name, {})
    if count is None:
        return code if about.get("images") == "published" and about.get("items") == 10_000 else ""
    return code if about.get("items") == count else ""


def accuracy_on_test(dataset: str) -> Metric:
    """Accuracy on the test set of the data set that was trained on."""
    correct = partial(_correct, "correct test")
    return Metric("1", f"{dataset} test", dataset, "accuracy", lambda e: e["accuracy"]["last"], correct)


def metrics_of(entries: Sequence[Mapping]) -> list[Metric]:
    """The columns that the entries of one (backbone, dataset) have: test, corruptions, shift sets, OOD sets."""
    found: dict[tuple[str, str], Metric] = {}
    for entry in entries:
        found.setdefault(("1", entry["dataset"]), accuracy_on_test(entry["dataset"]))
        corrupted = entry["suites"].get("corruptions", {})
        if corrupted.get("status") == "done":
            names = [n for n, it in entry["sets"].items() if it.get("images") in ("published", "generated")]
            name = names[0] if names else "corruptions"
            items = corrupted["scalars"].get("items")
            shown = name if _official(name, entry) else f"{name} ({items:,} images)"
            value = partial(_of_set, "corruptions", "mean accuracy", name, items)
            metric = Metric("2", shown, _official(name, entry), "accuracy", value, _corrupted)
            found.setdefault(("2", f"{name} {items}"), metric)
        for suite, table, start, quantity in (
            ("shift", "2", "top1 ", "accuracy"),
            ("ood", "3", "AUROC msp ", "AUROC"),
        ):
            for scalar in entry["suites"].get(suite, {}).get("scalars", {}):
                if scalar.startswith(start):
                    name = scalar.removeprefix(start)
                    official, count = _official(name, entry), entry["sets"].get(name, {}).get("items")
                    shown = name if official or f"{count:,}" in name else f"{name} ({count:,} images)"
                    interval = partial(_correct, f"correct {name}") if suite == "shift" else partial(_msp, name)
                    value = partial(_of_set, suite, scalar, name, count)
                    metric = Metric(table, shown, official, quantity, value, interval)
                    found.setdefault((table, f"{name} {count}"), metric)
    return sorted(found.values(), key=lambda metric: metric.table)


@cache
def read_paper() -> dict[tuple[str, str, str, str, str], float]:
    """The paper's numbers in percent: (table, method, backbone, trained on, evaluated on) -> value."""
    with open(PAPER_RESULTS, encoding="utf-8", newline="") as file:
        return {
            (r["table"], r["method"].lower(), r["backbone"], r["trained_on"], r["evaluated_on"]): float(r["value"])
            for r in csv.DictReader(file)
        }


def percent(metric: Metric, runs: Seeds) -> dict[int, float]:
    """The metric in percent, by seed, of the runs that have it."""
    values = {seed: metric.value(entry) for seed, entry in runs.items()}
    return {seed: 100 * value for seed, value in values.items() if value is not None}


def measured_accuracy(rows: Rows, runs: Seeds) -> Measured:
    """Accuracy of a row's runs on the test set of their data set, in percent."""
    items = [(rows.ledger.items(entry) or {}).get("correct test") for entry in runs.values()]
    tables = [100.0 * it for it in items if it is not None]
    return stats.measure([100 * entry["accuracy"]["last"] for entry in runs.values()], tables)


def compare(metric: Metric, runs: Seeds, base: Seeds, ledger: Ledger) -> Change:
    """`runs` - `base` in percentage points."""
    values, without = percent(metric, runs), percent(metric, base)
    seeds = [seed for seed in values if seed in without]
    if not seeds:
        return Change(None, None, 0)
    differences = [values[s] - without[s] for s in seeds]
    pairs = [(a, b) for s in seeds if (a := ledger.items(runs[s])) and (b := ledger.items(base[s]))]
    found = metric.intervals(pairs) if len(pairs) == len(seeds) else None
    if found:  # from fractions to percentage points
        (low, high), both = found
        found = Intervals((100 * low, 100 * high), both and (100 * both[0], 100 * both[1]))
    measured = Measured(differences, found)
    return Change(measured.mean, found and found.items, len(seeds), measured)


def score(rows: Rows, metric: Metric, group: Group, method: str, *, against: str = "") -> Score:
    """A cell.

    Args:
      against: the method that "SEM's share" is counted against; "" = the paper's pair of a method with SEM.
    """
    runs = rows.runs(group, method)
    values = percent(metric, runs)
    against = against or SEM_PAIRS.get(method, "")
    base = rows.runs(group, against)
    unlike = not_compared(runs, base, against)
    key = (PAPER_BACKBONES.get(group[0], ""), group[1], metric.official)
    theirs, without = (read_paper().get((metric.table, name, *key)) for name in (method, against))
    paper_sem = theirs - without if theirs is not None and without is not None else None
    sem = Change(None, None, 0, why=unlike) if unlike else compare(metric, runs, base, rows.ledger)
    remarks = [_remark(rows, group, method, values), unlike and f"no difference: {unlike}"]
    return Score(list(values.values()), theirs, sem, paper_sem, "; ".join(filter(None, remarks)))


def not_compared(runs: Seeds, base: Seeds, name: str) -> str:
    """Why `runs` have no difference to those of the row `name` with the same mixer; "" where they have."""
    return "" if mixed_alike(runs, base) else f"{name} was mixed with other settings"


def _remark(rows: Rows, group: Group, method: str, values: Mapping[int, float]) -> str:
    done, failed = rows.runs(group, method), rows.failed.get((*group, method), {})
    parts = [f"seed {seed} failed: {entry.get('error', '')[:80]}" for seed, entry in sorted(failed.items())]
    if not done and not failed:
        parts.append("no run")
    if unscored := [str(seed) for seed in done if seed not in values]:
        parts.append(f"seed {', '.join(unscored)} not scored on this set")
    return "; ".join(parts)


def why_no_set(entries: Sequence[Mapping], table: str, dataset: str, metrics: Sequence[Metric]) -> list[list[str]]:
    """(set of the paper, why there is no number, what was scored instead) for each that is not among the metrics."""
    there = {metric.official for metric in metrics if metric.table == table}
    instead = [metric.set for metric in metrics if metric.table == table and not metric.official]
    out = []
    for code, name in PAPER_SETS.get((table, dataset), {}).items():
        if code not in there:
            suite = "ood" if table == "3" else "corruptions" if code.endswith("_c") else "shift"
            asked = any(suite in e["suites"] for e in entries)
            reason = "its images were not found" if asked else "no run was scored for this table"
            out.append([name, reason, ", ".join(instead) or "nothing"])
    return out


def scalars(entries: Seeds, suite: str, name: str) -> list[float]:
    """A suite's scalar of every seed that has it."""
    values = (_scalar(suite, name, entry) for entry in entries.values())
    return [value for value in values if value is not None]
