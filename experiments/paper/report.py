"""The paper's tables and figure from a ledger, beside the paper's own numbers.

    python -m experiments.paper.report --ledger=runs/paper/ledger --out=runs/paper/report

Writes report.html (one file with its pictures), report.md, report.json and numbers.csv, for each size in a folder of
its own when the ledger has several: sizes are never mixed in one table. No run is started and no run folder read.
"""

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

from experiments.paper import grid, report_figures
from experiments.paper.ledger import Book, Ledger
from experiments.paper.report_equivariance import controls, equivariance
from experiments.paper.report_lengths import lengths
from experiments.paper.report_mixers import every_mixer
from experiments.paper.stats import AUROC_DRAWS, DRAWS, mean_sd
from experiments.paper.tables import (
    SEM_PAIRS,
    Metric,
    Rows,
    Score,
    choose,
    metrics_of,
    not_the_sizes,
    read_paper,
    scalars,
    score,
    why_no_set,
)
from sem_jax.errors import RunError, exit_on_error
from sem_jax.evaluation.report.page import write_report

TITLES = {"1": "Table 1: accuracy", "2": "Table 2: shifted test sets", "3": "Table 3: out-of-distribution detection"}
METHOD = "Ours is mean ± standard deviation over n seeds, in percent; no deviation is given for one seed. "
INTERVALS = (
    "SEM's share is the method minus the same without SEM, over the seeds that both have, with a 95% interval: a "
    f"paired bootstrap over test items (percentiles of {DRAWS:,} resamplings; {AUROC_DRAWS:,} for AUROC, where ID and "
    "OOD items are resampled apart; an image counts once with all its corruptions). The same items are drawn for both "
    "methods and all seeds, so the interval is about the choice of test items; the deviation over seeds is about "
    "another training run."
)


def number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.2f}"


def with_sd(mean: float | None, sd: float | None, n: int) -> str:
    if mean is None:
        return ""
    return f"{mean:.2f} ± {sd:.2f} (n={n})" if sd is not None else f"{mean:.2f} (n={n})"


def with_interval(value: float | None, interval: tuple[float, float] | None, n: int) -> str:
    if value is None:
        return ""
    shown = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else " (no items: no interval)"
    return f"{value:+.2f}{shown} (n={n})"


def settings_given(rows: Rows, group: tuple[str, str]) -> str:
    """What the runs of a group have otherwise than their size; they were all trained alike."""
    entry = next(iter(rows.entries(*group)), None)
    return ", ".join(f"{name}={value}" for name, value in not_the_sizes(entry).items()) if entry else ""


class Numbers:
    """All scores of a report, in the order of its tables; also for numbers.csv and the figures."""

    def __init__(self):
        self.lines: list[tuple[str, str, str, Metric, Score]] = []

    def table(self, rows: Rows, metric: Metric, group: tuple[str, str], ledger: Ledger, paper) -> dict:
        """A table of one set: the nine methods."""
        body = []
        for method in grid.METHODS:
            it = score(rows, metric, *group, method, ledger, paper)
            self.lines.append((*group, method, metric, it))
            if rows.size == "paper" and it.mean is not None and it.paper is not None:
                difference = number(it.mean - it.paper, "+")
            else:
                difference = ""
            body.append(
                [
                    method,
                    with_sd(it.mean, it.sd, it.n),
                    number(it.paper),
                    difference,
                    with_interval(it.sem, it.sem_interval, it.sem_seeds),
                    number(it.paper_sem, "+"),
                    it.remark,
                ]
            )
        name = grid.net_name(rows.size, group[0])
        columns = ["method", f"ours, {metric.quantity} (%)", "paper", "ours - paper", "SEM's share, ours"]
        columns += ["SEM's share, paper", "empty or fewer because"]
        used = [c for c in range(len(columns)) if c < 2 or any(line[c] for line in body)]
        columns, body = [columns[c] for c in used], [[line[c] for c in used] for line in body]
        notes = [] if metric.official else ["Not a set of the paper: there is nothing of it to compare with."]
        if rows.size != "paper":
            notes.append(f"Size {rows.size}: {grid.size_says(rows.size, group[0])}.")
        if given := settings_given(rows, group):
            notes.append(f"Set otherwise in these runs: {given}.")
        if rows.size != "paper" and "paper" in columns:
            notes.append(
                "The paper trained full nets for long: its numbers are for orientation, no difference is given."
            )
        return {"title": f"{name}, {group[1]}: {metric.set}", "columns": columns, "rows": body, "note": " ".join(notes)}

    def write(self, path: Path, size: str) -> None:
        """One line a number; percent."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow(
                "size,table,backbone,dataset,method,set,quantity,mean,sd,n,paper,paper_set,"
                "sem_share,sem_low,sem_high,sem_seeds,paper_sem_share,remark".split(",")
            )
            for backbone, dataset, method, metric, it in self.lines:
                low, high = it.sem_interval or (None, None)
                shown = [
                    None if v is None else round(v, 4)
                    for v in (it.mean, it.sd, it.paper, it.sem, low, high, it.paper_sem)
                ]
                mean, sd, paper, sem, low, high, paper_sem = shown
                out.writerow(
                    [size, metric.table, backbone, dataset, method, metric.set, metric.quantity, mean, sd, it.n, paper]
                    + [metric.official, sem, low, high, it.sem_seeds, paper_sem, it.remark]
                )


def paper_tables(rows: Rows, ledger: Ledger, numbers: Numbers) -> dict[str, dict]:
    """Tables 1 to 3 as parts of the report."""
    paper, parts = read_paper(), {}
    for table, title in TITLES.items():
        made, absent = [], []
        for group in rows.groups():
            entries = rows.entries(*group)
            metrics = metrics_of(entries)
            if table == "1" and not entries:
                absent.append(
                    [f"{grid.net_name(rows.size, group[0])}, {group[1]}", "all of its runs failed", "nothing"]
                )
            made += [numbers.table(rows, m, group, ledger, paper) for m in metrics if m.table == table]
            absent += [
                [f"{grid.net_name(rows.size, group[0])}, {group[1]}: {name}", why, instead]
                for name, why, instead in why_no_set(entries, table, group[1], metrics)
            ]
        if absent:
            columns = ["set of the paper", "why there is no number", "scored instead, in tables of their own"]
            made.append({"title": "Without a number", "columns": columns, "rows": absent})
        if made:
            sets = [it["title"] for it in made if it["title"] != "Without a number"]
            parts[title] = {"status": "done", "note": "; ".join(sets), "tables": made}
        else:
            remedy = f"python -m experiments.paper --table={table} --size={rows.size}"
            parts[title] = {"status": "missing", "reason": "No run was scored for this table.", "remedy": remedy}
    return parts


def accuracies(rows: Rows) -> dict:
    """Calibration, likelihood, and the three accuracies that papers report."""
    body = []
    for group in rows.groups():
        for method in rows.methods(*group):
            entries = rows.done.get((*group, method), {})
            if not entries:
                continue
            late = [e["accuracy"]["median_last10"] for e in entries.values() if e["accuracy"].get("median_last10")]
            best = [e["accuracy"]["best_val"] for e in entries.values() if e["accuracy"].get("best_val")]
            epochs = f", of {late[0]['epochs']} scored" if late else ""
            body.append(
                [
                    f"{group[0]} {group[1]}",
                    method,
                    _percent([e["accuracy"]["last"] for e in entries.values()]),
                    _percent([it["value"] for it in late]) + epochs,
                    _percent([it["val_accuracy"] for it in best]) or "no part of train was held out",
                    _plain([e["test_nll"] for e in entries.values()]),
                    _percent(scalars(entries, "calibration", "ECE equal-width")),
                    _plain([e["train_time_s"] for e in entries.values() if e.get("train_time_s")], ".0f"),
                ]
            )
    columns = ["runs", "method", "last epoch (%)", "median of the last 10 epochs (%)", "best on val (%, on val)"]
    columns += ["test NLL", "ECE, equal width (%)", "training, s"]
    return {
        "status": "done",
        "note": "Tables use the last epoch: nothing was chosen by test data. Training: the time of all its steps, also "
        "of those before a stop or, with ES, of the sibling's; other work on the machine lengthens it.",
        "tables": [{"title": "", "columns": columns, "rows": body}],
    }


def _percent(values) -> str:
    return with_sd(*mean_sd([100 * value for value in values]))


def _plain(values, form: str = ".4f") -> str:
    mean, sd, _ = mean_sd(values)
    return "" if mean is None else f"{mean:{form}}" + (f" ± {sd:{form}}" if sd is not None else "")


def summary(book: Book, rows: Rows) -> dict:
    """What the ledger holds of this size: counts, failures, duplicates, other settings."""
    done = [e for by_seed in rows.done.values() for e in by_seed.values()]
    failed = [e for by_seed in rows.failed.values() for e in by_seed.values()]
    ids = {e["id"] for e in [*done, *rows.others]}
    double = {name: n for name, n in book.duplicates.items() if name in ids}
    tables = []
    if failed:
        body = [[e["id"], e["time"], e.get("error", "")] for e in failed]
        tables.append({"title": "Failed runs", "columns": ["run", "when", "error"], "rows": body})
    if double:
        body = [[name, n, book.done[name]["time"]] for name, n in double.items()]
        columns = ["run", "done entries", "the newest, which counts"]
        tables.append({"title": "Entered more than once", "columns": columns, "rows": body})
    if rows.others:
        body = [[e["id"], e["time"], str(e["overrides"])[:300]] for e in rows.others]
        columns = ["run", "when", "settings"]
        tables.append({"title": "Other settings, in no table but that of lengths", "columns": columns, "rows": body})
    body = [
        [method, f"{b} {d}", ", ".join(map(str, by_seed)), str(next(iter(by_seed.values()))["overrides"])]
        for (b, d, method), by_seed in rows.done.items()
    ]
    tables.append({"title": "Runs that count", "columns": ["method", "of", "seeds", "settings"], "rows": body})
    hours = sum(e.get("wall_time_s", 0) for e in done) / 3600
    branched = sum(bool(e.get("branched_from")) for e in done)
    return {
        "status": "done",
        "note": f"{branched} ES runs started at their sibling's switch. A line that cannot be read is left out.",
        "scalars": {
            "runs that count": len(done),
            "failed": len(failed),
            "with other settings": len(rows.others),
            "entered more than once": len(double),
            "lines not readable": book.torn,
            "hours of all runs": round(hours, 2),
        },
        "tables": tables,
    }


def build(book: Book, size: str, ledger: Ledger) -> tuple[dict, dict, Numbers]:
    """(record for the page, figures, numbers) of one size."""
    rows, numbers = choose(book, size), Numbers()
    parts = {"How to read it": {"status": "done", "note": METHOD + INTERVALS}} | paper_tables(rows, ledger, numbers)
    figures: dict = {}
    shares = [(b, d, m, metric, it) for b, d, m, metric, it in numbers.lines if m in SEM_PAIRS and it.sem_interval]
    first = parts[TITLES["1"]]
    if picture := report_figures.accuracy(rows):
        figures["accuracy"] = picture
        first["figures"] = {"accuracy": "Test accuracy by method: mean over seeds, and every seed as a dot."}
    if shares:
        figures["sem_share"] = report_figures.shares(shares, size)
        first.setdefault("figures", {})["sem_share"] = (
            "What SEM changed, in percentage points, with 95% intervals over test items."
        )
    parts["Fig. 3: equivariance"] = equivariance(rows, ledger, figures)
    parts["Controls"] = controls(rows, ledger)
    for title, part in (
        ("Every mixer", every_mixer(rows, ledger, figures)),
        ("Length of training", lengths(book, size, ledger, figures)),
    ):
        if part is not None:
            parts[title] = part
    parts["Accuracies, likelihood, calibration, cost"] = accuracies(rows)
    parts["Ledger"] = summary(book, rows)
    done = [e for by_seed in rows.done.values() for e in by_seed.values()]
    about = {
        "name": f"size {size}",
        "size": grid.SIZES[size].says if size in grid.SIZES else "unknown to this version",
        "commits": dict(Counter(e["commit"] or "outside of git" for e in done)),
        "devices": dict(Counter(", ".join(e["devices"]) for e in done)),
        "data": {e["data"]["name"]: e["data"]["fingerprint"] for e in done},
        "versions": done[-1]["versions"] if done else {},
    }
    return {"run": about, "suites": parts}, figures, numbers


def main(argv: list[str] | None = None) -> int:
    summary_line, _, more = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.paper.report",
        description=summary_line,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--ledger", required=True, metavar="DIR", help="the folder with ledger.jsonl")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the report")
    parser.add_argument("--size", default="", help="one size alone; default: each that the ledger has")
    args = parser.parse_args(argv)
    with exit_on_error():
        ledger = Ledger(args.ledger)
        book = ledger.read()
        sizes = list(dict.fromkeys(e["size"] for e in [*book.done.values(), *book.failed.values()]))
        if args.size and args.size not in sizes:
            raise RunError(f"{ledger.path} has no run of size {args.size!r}; it has: {', '.join(sizes) or 'none'}")
        for size in [args.size] if args.size else sizes:
            folder = Path(args.out).expanduser() / (size if len(sizes) > 1 and not args.size else "")
            record, figures, numbers = build(book, size, ledger)
            title = f"Semantic Equivariant Mixup: the paper's tables, size {size}"
            write_report(record, figures, folder, stem="report", title=title, part="part")
            numbers.write(folder / "numbers.csv", size)
            count = record["suites"]["Ledger"]["scalars"]["runs that count"]
            print(f"size {size}: {count} runs, {folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
