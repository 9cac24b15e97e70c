"""The report's parts on the paper's Tables 1 to 3, and on accuracies, likelihood and calibration.

numbers = []
parts |= paper_tables(rows, numbers)      # adds a Number for each cell
write_csv(numbers, "numbers.csv", rows.size)
"""

import csv
from pathlib import Path
from typing import NamedTuple

from experiments.paper import grid, text
from experiments.paper.rows import Group, Rows, not_the_sizes, own_recipe
from experiments.paper.scores import Metric, Score, metrics_of, scalars, score, why_no_set
from experiments.paper.stats import mean_sd

TITLES = {"1": "Table 1: accuracy", "2": "Table 2: shifted test sets", "3": "Table 3: out-of-distribution detection"}
CSV_COLUMNS = (
    "size,table,backbone,dataset,method,set,quantity,mean,sd,n,paper,paper_set,"
    "sem_share,sem_low,sem_high,sem_seeds,paper_sem_share,remark"
).split(",")


class Number(NamedTuple):
    """A cell of the tables."""

    group: Group
    method: str
    metric: Metric
    score: Score


def write_csv(numbers: list[Number], path: Path, size: str) -> None:
    """One line a number; percent."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(CSV_COLUMNS)
        for group, method, metric, it in numbers:
            mean, sd, n = mean_sd(it.values)
            shown = (mean, sd, it.paper, it.sem.value, *(it.sem.interval or (None, None)), it.paper_sem)
            mean, sd, paper, sem, low, high, paper_sem = (None if v is None else round(v, 4) for v in shown)
            out.writerow(
                [size, metric.table, *group, method, metric.set, metric.quantity, mean, sd, n, paper]
                + [metric.official, sem, low, high, it.sem.seeds, paper_sem, it.remark]
            )


def settings_given(rows: Rows, group: Group) -> dict:
    """What the runs of a group have otherwise than their size; they were all trained alike."""
    entry = min(rows.entries(group), key=lambda it: len(own_recipe(it)), default=None)
    return not_the_sizes(entry) if entry else {}


def paper_tables(rows: Rows, numbers: list[Number]) -> dict[str, dict]:
    """Tables 1 to 3 as parts of the report; adds their cells to `numbers`."""
    parts = {}
    for table, title in TITLES.items():
        made, absent = [], []
        for group in rows.groups():
            entries = rows.entries(group)
            metrics = metrics_of(entries)
            if table == "1" and not entries:
                absent.append([rows.title(group), "all of its runs failed", "nothing"])
            made += [_table(rows, metric, group, numbers) for metric in metrics if metric.table == table]
            found = why_no_set(entries, table, group[1], metrics)
            absent += [[f"{rows.title(group)}: {name}", why, instead] for name, why, instead in found]
        sets = "; ".join(it["title"] for it in made)
        if absent:
            columns = ["set of the paper", "why there is no number", "scored instead, in tables of their own"]
            made.append({"title": "Without a number", "columns": columns, "rows": absent})
        if made:
            parts[title] = {"status": "done", "note": sets, "tables": made}
        else:
            remedy = f"python -m experiments.paper --table={table} --size={rows.size}"
            parts[title] = {"status": "missing", "reason": "No run was scored for this table.", "remedy": remedy}
    return parts


def _table(rows: Rows, metric: Metric, group: Group, numbers: list[Number]) -> dict:
    """A table of one set: the nine methods."""
    body = []
    for method in grid.METHODS:
        it = score(rows, metric, group, method)
        numbers.append(Number(group, method, metric, it))
        difference = it.mean - it.paper if it.mean is not None and it.paper is not None else None
        body.append(
            [
                method,
                text.spread(it.values, count=True),
                text.number(it.paper),
                text.number(difference, "+.2f") if rows.size == "paper" else "",
                text.change(it.sem, count=True),
                text.number(it.paper_sem, "+.2f"),
                it.remark,
            ]
        )
    columns = ["method", f"ours, {metric.quantity} (%)", "paper", "ours - paper", "SEM's share, ours"]
    columns += ["SEM's share, paper", "empty or fewer because"]
    used = [c for c in range(len(columns)) if c < 2 or any(line[c] for line in body)]
    columns, body = [columns[c] for c in used], [[line[c] for c in used] for line in body]
    notes = [] if metric.official else ["Not a set of the paper: there is nothing of it to compare with."]
    if rows.size != "paper":
        notes.append(f"Size {rows.size}: {grid.size_says(rows.size, group[0])}.")
    if given := settings_given(rows, group):
        notes.append(f"Set otherwise in these runs: {', '.join(f'{name}={value}' for name, value in given.items())}.")
    if rows.size != "paper" and "paper" in columns:
        notes.append("The paper trained full nets for long: its numbers are for orientation, no difference is given.")
    return {"title": f"{rows.title(group)}: {metric.set}", "columns": columns, "rows": body, "note": " ".join(notes)}


def accuracies(rows: Rows) -> dict:
    """Calibration, likelihood, and the three accuracies that papers report."""
    body = []
    for (backbone, dataset, method), runs in rows.done.items():
        entries = list(runs.values())
        late = [e["accuracy"]["median_last10"] for e in entries if e["accuracy"].get("median_last10")]
        best = [e["accuracy"]["best_val"] for e in entries if e["accuracy"].get("best_val")]
        epochs = f", of {late[0]['epochs']} scored" if late else ""
        body.append(
            [
                f"{backbone} {dataset}",
                method,
                _percent([e["accuracy"]["last"] for e in entries]),
                _percent([it["value"] for it in late]) + epochs,
                _percent([it["val_accuracy"] for it in best]) or "no part of train was held out",
                text.spread([e["test_nll"] for e in entries], ".4f"),
                _percent(scalars(runs, "calibration", "ECE equal-width")),
                text.spread([e["train_time_s"] for e in entries if e.get("train_time_s")], ".0f"),
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


def _percent(values: list[float]) -> str:
    return text.spread([100 * value for value in values], count=True)
