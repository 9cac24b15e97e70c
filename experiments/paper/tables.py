"""From a ledger to the numbers of the tables: which runs count, what the paper has, and what SEM changed.

    rows = choose(book, "cpu")                       # Rows: the runs of one size by backbone, data set, method, seed
    for metric in metrics_of(rows.entries("preact", "cifar10")): ...
    score(rows, metric, "preact", "cifar10", "mixup+sem", ledger, paper)      # Score: ours, the paper's, SEM's share

Sizes are never mixed: a Rows holds one. A set that stands in for one of the paper's keeps its own name and gets no
difference to the paper.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.paper import grid, stats
from experiments.paper.ledger import Book, Ledger
from sem_jax.config import METHODS, flatten, get_default
from sem_jax.errors import SemError

EPOCHS = get_default().train.epochs
PAPER_RESULTS = Path(__file__).with_name("paper_results.csv")
PAPER_BACKBONES = {"preact": "preact_resnet18", "wrn": "wrn28_10"}
# Sets of the paper by the names that the evaluation gives them, with their official number of images.
OFFICIAL = {
    "CIFAR-10-C": ("cifar10_c", None),
    "CIFAR-100-C": ("cifar100_c", None),
    "CIFAR-10.1 v6": ("cifar10_1", 2000),
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
METHOD_FIELDS = ("mixer.", "objective.")  # what makes a run one of a method
SEM_PAIRS = {name: name.replace("+sem", "") for name in METHODS if "+sem" in name}  # with -> without


class Rows(NamedTuple):
    """The runs of one size that count. Keys are (backbone, dataset, method) and seed."""

    size: str
    done: dict[tuple[str, str, str], dict[int, dict]]
    failed: dict[tuple[str, str, str], dict[int, dict]]
    others: list[dict]  # done entries with other settings than those that count

    def groups(self) -> list[tuple[str, str]]:
        """(backbone, dataset) of all entries, also of those that failed."""
        return list(dict.fromkeys((b, d) for b, d, _ in [*self.done, *self.failed]))

    def entries(self, backbone: str, dataset: str) -> list[dict]:
        """Done entries of all methods and seeds."""
        return [
            e for (b, d, _), by_seed in self.done.items() if (b, d) == (backbone, dataset) for e in by_seed.values()
        ]

    def methods(self, backbone: str, dataset: str) -> list[str]:
        return list(dict.fromkeys(m for b, d, m in [*self.done, *self.failed] if (b, d) == (backbone, dataset)))


def choose(book: Book, size: str) -> Rows:
    """The runs of one size.

    What is compared was trained alike: of the runs on a (backbone, data set) those of one recipe count, of the size's
    own number of epochs where there is one, and of these of the newest. Where a row was run with several settings of
    its method (alpha, gamma), those of its newest run count. Other lengths are shown by `report_lengths`.
    """
    by_group: dict[tuple, list[dict]] = {}
    for entry in book.done.values():
        if entry["size"] == size:
            by_group.setdefault((entry["backbone"], entry["dataset"]), []).append(entry)
    done, others = {}, []
    for group, entries in by_group.items():
        alike = recipe(max(entries, key=lambda entry: (_own_length(entry), entry["time"])))
        by_row: dict[str, list[dict]] = {}
        for entry in entries:
            if recipe(entry) == alike:
                by_row.setdefault(entry["method"], []).append(entry)
        for method, of_row in by_row.items():
            newest = max(of_row, key=lambda entry: entry["time"])["hash"]
            chosen = {e["seed"]: e for e in sorted(of_row, key=lambda e: e["seed"]) if e["hash"] == newest}
            done[*group, method] = chosen
        counted = {e["id"] for (b, d, _), row in done.items() if (b, d) == group for e in row.values()}
        others += [e for e in entries if e["id"] not in counted]
    failed: dict[tuple, dict[int, dict]] = {}
    for entry in book.failed.values():
        if entry["size"] == size:
            failed.setdefault((entry["backbone"], entry["dataset"], entry["method"]), {})[entry["seed"]] = entry
    return Rows(size, done, failed, others)


def epochs_of(entry: Mapping) -> int:
    """Length of a run, from its ledger entry."""
    return entry["overrides"].get("train.epochs", EPOCHS)


def recipe(entry: Mapping) -> dict:
    """How a run was trained apart from its method: net, data, optimizer, length (before a control's factor)."""
    fields = {n: value for n, value in entry["overrides"].items() if not n.startswith(METHOD_FIELDS)}
    return fields | {"train.epochs": epochs_of(entry) // _factor(entry)}


def not_the_sizes(entry: Mapping) -> dict:
    """The fields of a run's recipe that were set otherwise than its size has them."""
    try:
        cell = grid.Cell(*(entry[name] for name in ("size", "backbone", "dataset", "method", "seed")))
        own = recipe({"method": cell.method, "overrides": grid.differences(grid.make_config(cell))})
    except SemError:  # of a version that had other rows
        return {}
    default = dict(flatten(get_default()))
    found = recipe(entry)
    both = {name: found.get(name, default.get(name)) for name in {*own, *found} if own.get(name) != found.get(name)}
    return dict(sorted(both.items()))


def _factor(entry: Mapping) -> int:
    control = grid.CONTROLS.get(entry["method"])
    return control.epochs if control else 1


def _own_length(entry: Mapping) -> bool:
    size = grid.SIZES.get(entry["size"])
    own = size.overrides.get("train.epochs", EPOCHS) if size else EPOCHS
    return epochs_of(entry) == own * _factor(entry)


class Metric(NamedTuple):
    """A column: a number of an entry, and an interval for the difference of two rows."""

    table: str
    set: str  # its truthful name
    official: str  # the paper's name, where it is that very set; else ""
    quantity: str  # accuracy or AUROC, a fraction
    value: Callable[[Mapping], float | None]
    interval: Callable[[list[tuple[dict, dict]]], tuple[float, float] | None]  # of the items of (with, without) a seed


def _correct(name: str):
    def interval(pairs):
        if any(name not in a or name not in b or a[name].shape != b[name].shape for a, b in pairs):
            return None
        return stats.mean_interval(stats.paired(*([it[i][name] for it in pairs] for i in (0, 1))))

    return interval


def _corrupted(pairs):
    """An image in all its corruptions is one item: they are resampled together."""
    names = [name for name in pairs[0][0] if name.startswith("correct ") and name.rpartition(" ")[2] in "12345"]
    names = [name for name in names if name.rpartition(" ")[0] != "correct"]
    shapes = {items[name].shape if name in items else None for pair in pairs for items in pair for name in names}
    if not names or len(shapes) != 1 or None in shapes:
        return None
    sides = ([np.mean([it[i][name] for name in names], axis=0) for it in pairs] for i in (0, 1))
    return stats.mean_interval(stats.paired(*sides))


def _msp(name: str):
    def interval(pairs):
        wanted = ("msp test", f"msp {name}")
        if any(key not in items for pair in pairs for items in pair for key in wanted):
            return None
        if len({tuple(items[key].shape for key in wanted) for pair in pairs for items in pair}) != 1:
            return None
        return stats.auroc_interval([tuple(items[key] for items in pair for key in wanted) for pair in pairs])

    return interval


def _scalar(suite: str, name: str):
    return lambda entry: entry["suites"].get(suite, {}).get("scalars", {}).get(name)


def _of_set(name: str, items: int | None, value: Callable):
    """`value` for the entries that were scored on that set with so many images: others are another column."""
    return lambda entry: value(entry) if entry["sets"].get(name, {}).get("items") == items else None


def _official(name: str, entry: Mapping) -> str:
    code, count = OFFICIAL.get(name, ("", None))
    about = entry["sets"].get(name, {})
    if count is None:
        return code if about.get("images") == "published" and about.get("items") == 10_000 else ""
    return code if about.get("items") == count else ""


def metrics_of(entries: Sequence[Mapping]) -> list[Metric]:
    """The columns that the entries of one (backbone, dataset) have: test, corruptions, shift sets, OOD sets."""
    found: dict[tuple[str, str], Metric] = {}
    for entry in entries:
        own = entry["dataset"]
        first = Metric("1", f"{own} test", own, "accuracy", lambda e: e["accuracy"]["last"], _correct("correct test"))
        found.setdefault(("1", own), first)
        corrupted = entry["suites"].get("corruptions", {})
        if corrupted.get("status") == "done":
            names = [n for n, it in entry["sets"].items() if it.get("images") in ("published", "generated")]
            name = names[0] if names else "corruptions"
            items = corrupted["scalars"].get("items")
            shown = name if _official(name, entry) else f"{name} ({items:,} images)"
            value = _of_set(name, items, _scalar("corruptions", "mean accuracy"))
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
                    interval = _correct(f"correct {name}") if suite == "shift" else _msp(name)
                    value = _of_set(name, count, _scalar(suite, scalar))
                    metric = Metric(table, shown, official, quantity, value, interval)
                    found.setdefault((table, f"{name} {count}"), metric)
    return sorted(found.values(), key=lambda metric: metric.table)


class Score(NamedTuple):
    """One cell of a table, in percent."""

    mean: float | None
    sd: float | None
    n: int
    paper: float | None
    sem: float | None  # with SEM - without, over the seeds that both have
    sem_interval: tuple[float, float] | None
    sem_seeds: int
    paper_sem: float | None
    remark: str  # why something is empty or fewer


def read_paper() -> dict[tuple[str, str, str, str, str], float]:
    """The paper's numbers in percent: (table, method, backbone, trained on, evaluated on) -> value."""
    with open(PAPER_RESULTS, encoding="utf-8", newline="") as file:
        return {
            (r["table"], r["method"].lower(), r["backbone"], r["trained_on"], r["evaluated_on"]): float(r["value"])
            for r in csv.DictReader(file)
        }


def score(
    rows: Rows,
    metric: Metric,
    backbone: str,
    dataset: str,
    method: str,
    ledger: Ledger,
    paper: Mapping,
    *,
    against: str = "",
) -> Score:
    """A cell.

    Args:
      against: the method that "SEM's share" is counted against; "" = the paper's pair of a method with SEM.
    """
    done = rows.done.get((backbone, dataset, method), {})
    values = {seed: metric.value(entry) for seed, entry in done.items()}
    values = {seed: 100 * value for seed, value in values.items() if value is not None}
    mean, sd, n = stats.mean_sd(list(values.values()))
    against = against or SEM_PAIRS.get(method, "")
    without_sem = rows.done.get((backbone, dataset, against), {})
    if against == method.replace("+sem", "") and not _same_mixing(done, without_sem):
        without_sem = {}
    base = {s: metric.value(e) for s, e in without_sem.items()}
    common = [seed for seed in values if base.get(seed) is not None]
    change = float(np.mean([values[s] - 100 * base[s] for s in common])) if common else None
    key = (PAPER_BACKBONES.get(backbone, ""), dataset, metric.official)
    theirs, without = paper.get((metric.table, method, *key)), paper.get((metric.table, against, *key))
    return Score(
        mean,
        sd,
        n,
        theirs,
        change,
        _interval(rows, metric, (backbone, dataset, method), (backbone, dataset, against), common, ledger),
        len(common),
        theirs - without if theirs is not None and without is not None else None,
        _remark(rows, metric, (backbone, dataset, method), values),
    )


def _same_mixing(a: Mapping[int, Mapping], b: Mapping[int, Mapping]) -> bool:
    """Whether the runs of two rows mix alike; a row has one setting."""
    mixing = [{n: v for n, v in e["overrides"].items() if n.startswith("mixer.")} for e in (*a.values(), *b.values())]
    return all(it == mixing[0] for it in mixing)


def _interval(rows, metric, row, base, seeds, ledger) -> tuple[float, float] | None:
    pairs = [(ledger.items(rows.done[row][s]), ledger.items(rows.done[base][s])) for s in seeds]
    if not pairs or any(items is None for pair in pairs for items in pair):
        return None
    found = metric.interval(pairs)
    return None if found is None else (100 * found[0], 100 * found[1])


def _remark(rows: Rows, metric: Metric, row: tuple, values: Mapping[int, float]) -> str:
    done, failed = rows.done.get(row, {}), rows.failed.get(row, {})
    parts = [f"seed {seed} failed: {entry.get('error', '')[:80]}" for seed, entry in sorted(failed.items())]
    if not done and not failed:
        parts.append("no run")
    if unscored := [str(seed) for seed in done if seed not in values]:
        parts.append(f"seed {', '.join(unscored)} not scored on this set")
    backbone, dataset, method = row
    against = SEM_PAIRS.get(method)
    if against and not _same_mixing(done, rows.done.get((backbone, dataset, against), {})):
        parts.append(f"no share: {against} was mixed with other settings")
    return "; ".join(parts)


def why_no_set(entries: Sequence[Mapping], table: str, dataset: str, metrics: Sequence[Metric]) -> list[list[str]]:
    """(set of the paper, why there is no number, what was scored instead) for each that is not among the metrics."""
    there = {metric.official for metric in metrics if metric.table == table}
    instead = [metric.set for metric in metrics if metric.table == table and not metric.official]
    out = []
    for code, name in PAPER_SETS.get((table, dataset), {}).items():
        if code not in there:
            suites = {"2": ("corruptions",) if code.endswith("_c") else ("shift",), "3": ("ood",)}[table]
            asked = [e["suites"][s] for e in entries for s in suites if s in e["suites"]]
            reason = "its images were not found" if asked else "no run was scored for this table"
            out.append([name, reason, ", ".join(instead) or "nothing"])
    return out


def scalars(entries: Mapping[int, Mapping], suite: str, name: str) -> list[float]:
    """A suite's scalar of every seed that has it."""
    values: list[Any] = [_scalar(suite, name)(entry) for entry in entries.values()]
    return [value for value in values if value is not None]
