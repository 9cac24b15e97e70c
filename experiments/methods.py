"""Runs the paper's nine methods with one configuration, one after the other, and prints their table.

    python -m experiments.methods --config=configs/preact_c10.py --out=runs/methods -- \\
        --config.model.width=16 --config.train.epochs=2

What stands after `--` is handed to every run. The same command again continues: finished runs are only read. A run
that fails is listed with its error and does not stop the others.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from sem_jax.config import METHODS
from sem_jax.records import read_json, read_metrics


def run(config: str, method: str, folder: Path, overrides: list[str]) -> str:
    """Trains one method; returns '' or the last line of what it said when it failed."""
    command = [sys.executable, "-m", "sem_jax.main", f"--config={config}:{method}", f"--workdir={folder}", *overrides]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def row(method: str, folder: Path, error: str) -> list[str]:
    """One line of the table: the last epoch, and the last one with a penalty where it ended before."""
    if error or not (folder / "result.json").exists():
        return [method, error or "not run", "", "", "", "", ""]
    log, result = read_metrics(folder), read_json(folder / "result.json")
    last = log[-1]
    mixed = next((r for r in reversed(log) if "penalty" in r), None)
    penalty = [f"{mixed['penalty']:.3f}", f"{mixed['penalty_relative']:.1%}"] if mixed else ["", ""]
    note = f" (epoch {mixed['epoch']})" if mixed and mixed is not last else ""
    return [
        method,
        f"{result['test_accuracy']:.2%}",
        f"{result['test_nll']:.3f}",
        f"{last['label_loss']:.3f}",
        penalty[0] + note,
        penalty[1],
        f"{result['wall_time_s']:.0f}",
    ]


def table(rows: list[list[str]]) -> str:
    """Markdown."""
    head = ["method", "test accuracy", "test NLL", "label loss", "penalty", "penalty / feature norm", "seconds"]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a file in configs/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the nine run folders and of table.md")
    parser.add_argument("--methods", default=",".join(METHODS), help="some of the nine, with commas")
    parser.add_argument("overrides", nargs="*", help="after --: overrides for every run")
    args = parser.parse_args(argv)
    methods = args.methods.split(",")
    unknown = [m for m in methods if m not in METHODS]
    if unknown:
        parser.error(f"unknown method {unknown[0]!r}; known: {', '.join(METHODS)}")
    rows = []
    for method in methods:
        print(f"== {method}", flush=True)
        rows.append(row(method, args.out / method, run(args.config, method, args.out / method, args.overrides)))
    text = table(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
