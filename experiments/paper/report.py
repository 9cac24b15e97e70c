"""The paper's tables and figure from a ledger, beside the paper's own numbers.

    python -m experiments.paper.report --ledger=runs/paper/ledger --out=runs/paper/report

Writes report.html (one file with its pictures), report.md, report.json and numbers.csv, for each size in a folder of
its own when the ledger has several: sizes are never mixed in one table. No run is started and no run folder read.
Where the items of the runs are absent (ledger/items/*.npz), the report has no paired intervals and says so.
"""

import sys
from collections import Counter
from pathlib import Path

from experiments.commands import parser
from experiments.paper import grid, report_figures
from experiments.paper.ledger import Ledger
from experiments.paper.report_equivariance import BARS, controls, equivariance
from experiments.paper.report_lengths import lengths
from experiments.paper.report_mixers import every_mixer
from experiments.paper.report_pareto import pareto
from experiments.paper.report_tables import TITLES, Number, accuracies, paper_tables, settings_given, write_csv
from experiments.paper.rows import Rows, choose, spent
from experiments.paper.scores import SEM_PAIRS
from experiments.paper.stats import AUROC_DRAWS, DRAWS
from sem_jax.errors import RunError, exit_on_error
from sem_jax.evaluation.report.page import write_report

METHOD = "Ours is mean ± standard deviation over n seeds, in percent; no deviation is given for one seed. "
INTERVALS = (
    "SEM's share is the method minus the same without SEM, over the seeds that both have, with a 95% interval: a "
    f"paired bootstrap over test items (percentiles of {DRAWS:,} resamplings; {AUROC_DRAWS:,} for AUROC, where ID and "
    "OOD items are resampled apart; an image counts once with all its corruptions). The same items are drawn for both "
    "methods and all seeds, so the interval is about the choice of test items; the deviation over seeds is about "
    "another training run."
)


def without_items(rows: Rows) -> dict | None:
    """The part that says what the report leaves out where items are absent; None where all are there."""
    done = [entry for entry in rows.book.done.values() if entry["size"] == rows.size]
    absent = sum(rows.ledger.items(entry) is None for entry in done)
    if not absent:
        return None
    options = {"backbones": "backbone", "datasets": "dataset", "methods": "method", "seeds": "seed"}
    asked = [f"--{o}={','.join(dict.fromkeys(str(e[name]) for e in done))}" for o, name in options.items()]
    given = {f"{n}={v}": None for group in rows.groups() for n, v in settings_given(rows, group).items()}
    if given:
        asked.append(f"--set {' '.join(given)}")
    return {
        "status": "missing",
        "reason": f"{absent} of {len(done)} runs have no items here, which say what each test item got to: "
        f"{rows.ledger.folder}/items has no such file. Differences with these runs have no paired interval.",
        "remedy": "The runs make them again, in a new folder, whose ledger the report is then made from: "
        f"python -m experiments.paper --table=all --size={rows.size} {' '.join(asked)} --data-dir=DIR --out=NEW",
    }


def summary(rows: Rows) -> dict:
    """What the ledger holds of this size: counts, failures, duplicates, other settings."""
    done = rows.entries()
    failed = [e for by_seed in rows.failed.values() for e in by_seed.values()]
    ids = {e["id"] for e in [*done, *rows.others]}
    double = {name: n for name, n in rows.book.duplicates.items() if name in ids}
    tables = [
        {
            "title": "Failed runs",
            "columns": ["run", "when", "error"],
            "rows": [[e["id"], e["time"], e.get("error", "")] for e in failed],
        },
        {
            "title": "Entered more than once",
            "columns": ["run", "done entries", "the newest, which counts"],
            "rows": [[name, n, rows.book.done[name]["time"]] for name, n in double.items()],
        },
        {
            "title": "Other settings, in no table but that of lengths",
            "columns": ["run", "when", "settings"],
            "rows": [[e["id"], e["time"], str(e["overrides"])[:300]] for e in rows.others],
        },
    ]
    body = [
        [method, f"{b} {d}", ", ".join(map(str, by_seed)), str(next(iter(by_seed.values()))["overrides"])]
        for (b, d, method), by_seed in rows.done.items()
    ]
    counted = {"title": "Runs that count", "columns": ["method", "of", "seeds", "settings"], "rows": body}
    branched = sum(bool(e.get("branched_from")) for e in done)
    return {
        "status": "done",
        "note": f"{branched} ES runs started at their sibling's switch. A line that cannot be read is left out.",
        "scalars": {
            "runs that count": len(done),
            "failed": len(failed),
            "with other settings": len(rows.others),
            "entered more than once": len(double),
            "lines not readable": rows.book.torn,
            "hours of all runs": round(sum(map(spent, [*done, *rows.others])) / 3600, 2),
        },
        "tables": [*(table for table in tables if table["rows"]), counted],
    }


def make_report(ledger: Ledger, size: str) -> tuple[dict, dict, list[Number]]:
    """(record for the page, figures, cells of Tables 1 to 3) of one size."""
    rows = choose(ledger, size)
    numbers: list[Number] = []
    figures: dict = {}
    tables = paper_tables(rows, numbers)
    captions = {}
    if picture := report_figures.accuracy(rows):
        figures["accuracy"] = picture
        captions["accuracy"] = f"Test accuracy by method: mean over seeds, and every seed as a dot. {BARS}"
    if shares := [it for it in numbers if it.method in SEM_PAIRS and it.score.sem.value is not None]:
        figures["sem_share"] = report_figures.shares(shares, rows)
        captions["sem_share"] = f"What SEM changed, in percentage points of accuracy or AUROC. {BARS}"
    if captions:
        tables[TITLES["1"]]["figures"] = captions
    of_equivariance = equivariance(rows, figures)
    if of_equivariance["status"] == "done":
        of_equivariance["figures"] |= pareto(rows, figures)
    parts: dict[str, dict | None] = {
        "How to read it": {"status": "done", "note": METHOD + INTERVALS},
        "What is left out": without_items(rows),
        **tables,
        "Fig. 3: equivariance": of_equivariance,
        "Controls": controls(rows),
        "Every mixer": every_mixer(rows, figures),
        "Length of training": lengths(rows, figures),
        "Accuracies, likelihood, calibration, cost": accuracies(rows),
        "Ledger": summary(rows),
    }
    done = rows.entries()
    about = {
        "name": f"size {size}",
        "size": grid.SIZES[size].says if size in grid.SIZES else "unknown to this version",
        "commits": dict(Counter(e["commit"] or "outside of git" for e in done)),
        "devices": dict(Counter(", ".join(e["devices"]) for e in done)),
        "data": {e["data"]["name"]: e["data"]["fingerprint"] for e in done},
        "versions": done[-1]["versions"] if done else {},
    }
    return {"run": about, "suites": {title: it for title, it in parts.items() if it is not None}}, figures, numbers


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.paper.report", __doc__)
    options.add_argument("--ledger", required=True, metavar="DIR", help="the folder with ledger.jsonl")
    options.add_argument("--out", required=True, metavar="DIR", help="folder of the report")
    options.add_argument("--size", default="", help="one size alone; default: each that the ledger has")
    args = options.parse_args(argv)
    with exit_on_error():
        ledger = Ledger(args.ledger)
        book = ledger.read()
        sizes = list(dict.fromkeys(e["size"] for e in [*book.done.values(), *book.failed.values()]))
        if args.size and args.size not in sizes:
            raise RunError(f"{ledger.path} has no run of size {args.size!r}; it has: {', '.join(sizes) or 'none'}")
        for size in [args.size] if args.size else sizes:
            folder = Path(args.out).expanduser() / (size if len(sizes) > 1 and not args.size else "")
            record, figures, numbers = make_report(ledger, size)
            title = f"Semantic Equivariant Mixup: the paper's tables, size {size}"
            write_report(record, figures, folder, stem="report", title=title)
            write_csv(numbers, folder / "numbers.csv", size)
            suites = record["suites"]
            count = suites["Ledger"]["scalars"]["runs that count"]
            print(f"size {size}: {count} runs, {folder / 'report.html'}")
            if left_out := suites.get("What is left out"):
                print(left_out["reason"], left_out["remedy"], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
