"""Runs what is missing of the paper's tables, and enters every run in a ledger.

    python -m experiments.paper --table=1 --size=cpu --datasets=cifar10 --backbones=preact --data-dir=~/data
    python -m experiments.paper --table=all --size=paper --methods=nine,controls --seeds=0,1,2 --launcher=ray
    python -m experiments.paper.report --ledger=runs/paper/ledger --out=runs/paper/report

First it prints the plan: what is there, what is missing, what failed before. The same command again starts only what is
missing or failed; a killed sweep continues, each run at its last checkpoint. A failed run is listed with its error and
stops no other. With --budget it ends by itself in time; a run that does not fit is not begun, and runs go in the order
of --methods, seed by seed. Exit status: 0 all there, 1 some failed, 2 refused, 130 or 143 stopped.
"""

import argparse
import ast
import signal
import sys
import time
from pathlib import Path
from typing import Any

from experiments.commands import absolute, names, parser
from experiments.paper import grid
from experiments.paper.budget import run_within
from experiments.paper.cell import Job
from experiments.paper.launchers import LAUNCHERS
from experiments.paper.ledger import Book
from experiments.paper.rescoring import lacks
from sem_jax.config import validate
from sem_jax.errors import ConfigError, RunError, exit_on_error
from sem_jax.runs.records import read_json

CHEAP = ("clean", "calibration", "equivariance")  # of every run
SUITES = {"1": (), "2": ("corruptions", "shift"), "3": ("ood",), "all": ("corruptions", "shift", "ood")}
# Of the paper: Table 2 has no Tiny-ImageNet, Table 3 neither.
TABLE_SETS = {
    "1": ("cifar10", "cifar100", "tiny_imagenet"),
    "2": ("cifar10", "cifar100"),
    "3": ("cifar10", "cifar100"),
    "all": ("cifar10", "cifar100", "tiny_imagenet"),
}


def _parser() -> argparse.ArgumentParser:
    sizes = [f"  {name:<6} {it.says}" for name, it in grid.SIZES.items()]
    controls = [f"  {name:<16} {it.says}" for name, it in grid.CONTROLS.items()]
    more = ["", "Sizes:", *sizes, "", "Controls (--methods=controls):", *controls]
    made = parser("experiments.paper", __doc__, epilog="\n".join(more))
    add = made.add_argument
    add("--table", choices=SUITES, default="1", help="of the paper: what the runs are scored on; default: 1")
    add("--size", choices=grid.SIZES, default="paper", help="default: paper")
    add("--backbones", default="", metavar="A,B", help=f"of {', '.join(grid.BACKBONES)}; default: the size's")
    add("--datasets", default="", metavar="A,B", help=f"of {', '.join(grid.DATASETS)}; default: the table's")
    add("--methods", default="nine", metavar="A,B", help="names, nine, controls, gammas, mixers, all; default: nine")
    add("--seeds", default="0,1,2", metavar="A,B", help="default: 0,1,2")
    add("--data-dir", default="", metavar="DIR", help="where the data sets are")
    add("--shift", nargs="+", action="extend", default=[], metavar="NAME=PATH", help="labelled sets, same classes")
    add("--ood", nargs="+", action="extend", default=[], metavar="NAME=PATH", help="out-of-distribution sets")
    add("--corruptions-dir", default="", metavar="DIR", help="published corrupted set; default: found, else generated")
    add("--frost-dir", default="", metavar="DIR", help="published frost photographs")
    add("--selected", nargs="+", default=[], metavar="FILE", help="of experiments.paper.select: alpha, gamma")
    add("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="of all runs: optim.learning_rate=0.05")
    add("--out", default="runs/paper", metavar="DIR", help="folder of runs and ledger; default: runs/paper")
    add("--launcher", choices=LAUNCHERS, default="local")
    add("--address", default="", help="of a Ray cluster; default: one is started here")
    add(
        "--corruption-items",
        type=int,
        default=-1,
        metavar="N",
        help="of each generated corruption; default: the size's",
    )
    add("--budget", type=float, default=0.0, metavar="MINUTES", help="start only what fits, one run after the other")
    add("--begin", action="store_true", help="with --budget: begin what does not fit, too; it saves, to be continued")
    add(
        "--step-ms", type=float, default=0.0, metavar="MS", help="with --budget: of a mixup step, while no run has told"
    )
    add("--jobs", type=int, default=0, metavar="N", help="runs at once; default: one a GPU, or one")
    add("--plan", action="store_true", help="print the plan and end")
    return made


def settings_of(files: list[str], cell: grid.Cell) -> tuple[tuple[str, float], ...]:
    """alpha and gamma that `experiments.paper.select` chose for a cell's mixer, backbone and data set."""
    mixer = grid.base_of(cell.method)[0].split("+")[0]
    for path in files:
        chosen = read_json(Path(path).expanduser())
        try:
            fits = (chosen["mixer"], chosen["backbone"], chosen["dataset"]) == (mixer, cell.backbone, cell.dataset)
            values = ("mixer.alpha", float(chosen["alpha"])), ("objective.gamma", float(chosen["gamma"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is not what experiments.paper.select writes: {error!r}") from None
        if fits:
            return values
    return ()


def settings_given(texts: list[str]) -> tuple[tuple[str, Any], ...]:
    """FIELD=VALUE as settings, VALUE as Python writes it, else a text."""
    out = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in ("seed", "data.name", "data.dir"):
            raise ConfigError(f"--set must be FIELD=VALUE and not what has an option of its own, got {text!r}")
        try:
            out.append((name, ast.literal_eval(value)))
        except (ValueError, SyntaxError):
            out.append((name, value))
    return tuple(out)


def cells_of(args: argparse.Namespace) -> list[grid.Cell]:
    """The cells that a command line asks for.

    Raises:
      ConfigError: an unknown name, or a seed that is no number.
    """
    small = {"cpu": (("preact",), ("cifar10",)), "gpu30": (("preact",), ("cifar10",)), "smoke": (("wrn",), ("digits",))}
    backbones, datasets = small.get(args.size, (grid.PAPERS_OWN, TABLE_SETS[args.table]))
    backbones, datasets = names(args.backbones) or backbones, names(args.datasets) or datasets
    try:
        seeds = [int(seed) for seed in names(args.seeds)]
    except ValueError:
        raise ConfigError(f"--seeds must be whole numbers with commas, got {args.seeds!r}") from None
    given = settings_given(args.set)
    made = []
    for backbone in backbones:
        for dataset in datasets:
            for method in grid.methods_named(args.methods, args.size):
                for seed in dict.fromkeys(seeds):
                    cell = grid.Cell(args.size, backbone, dataset, method, seed)
                    cell = cell._replace(settings=(*settings_of(args.selected, cell), *given))
                    validate(grid.make_config(cell))  # refused here, not in the run
                    made.append(cell)
    if not made:
        raise ConfigError("Nothing is asked for: --backbones, --datasets, --methods and --seeds must name something")
    return made


def state(job: Job, book: Book) -> str:
    """ "done", "failed", "unscored" (trained, but not scored on all that is asked for) or "missing"."""
    entry = book.done.get(job.cell.id)
    if entry is None:
        return "failed" if job.cell.id in book.failed else "missing"
    return "unscored" if lacks(job, entry) else "done"


def chains_of(jobs: list[Job]) -> list[list[Job]]:
    """Jobs in chains: an ES run behind the sibling whose checkpoint it starts from, a mixer behind its scorer.

    Chains of lower seeds come first, so that every row has one seed before any has two.
    """
    by_id = {job.cell.id: job for job in jobs}
    chains: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: (job.cell.seed, bool(grid.comes_after(job.cell.method)))):
        parent = job.cell._replace(method=grid.comes_after(job.cell.method) or job.cell.method).id
        chains.setdefault(parent if parent in by_id else job.cell.id, []).append(job)
    return list(chains.values())


def plan(jobs: list[Job], book: Book) -> tuple[list[Job], list[str]]:
    """(jobs to run, lines that say what is there)."""
    states = {job: state(job, book) for job in jobs}
    counts = {what: sum(s == what for s in states.values()) for what in ("done", "unscored", "missing", "failed")}
    lines = [f"{len(jobs)} runs expected: " + ", ".join(f"{n} {what}" for what, n in counts.items())]
    for job, what in states.items():
        started = " (begun)" if what in ("missing", "failed") and (job.folder / "checkpoints").is_dir() else ""
        why = f": {book.failed[job.cell.id].get('error', '')[:160]}" if what == "failed" else ""
        if what == "unscored":
            anew = "" if (job.folder / "checkpoints").is_dir() else "; without its checkpoint it is trained again"
            why = f": {', '.join(lacks(job, book.done[job.cell.id]))}{anew}"
        lines.append(f"  {what + started:<17} {job.cell.id}{why}")
    return [job for job, what in states.items() if what != "done"], lines


def _pairs(option: str, given: list[str]) -> tuple[tuple[str, str], ...]:
    parts = [text.partition("=") for text in given]
    for (name, _, path), text in zip(parts, given, strict=True):
        if not (name.strip() and path.strip()):
            raise ConfigError(f"--{option} must be NAME=PATH, got {text!r}")
        if not Path(path.strip()).expanduser().exists() and not Path(f"{path.strip()}_data.npy").expanduser().exists():
            raise ConfigError(f"--{option} {name.strip()}: {path.strip()} does not exist")
    return tuple((name.strip(), absolute(path.strip())) for name, _, path in parts)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    with exit_on_error():
        cells = cells_of(args)
        options = {
            "out": absolute(args.out),
            "suites": ("clean", *SUITES[args.table], *CHEAP[1:]),
            "data_dir": absolute(args.data_dir),
            "shift": _pairs("shift", args.shift),
            "ood": _pairs("ood", args.ood),
            "corruptions_dir": absolute(args.corruptions_dir),
            "frost_dir": absolute(args.frost_dir),
            "corruption_items": args.corruption_items,
        }
        jobs = [Job(cell, **options) for cell in cells]
        todo, lines = plan(jobs, jobs[0].ledger.read_or_empty())
        print("\n".join(lines), flush=True)
        if args.plan or not todo:
            return 0
        chains = chains_of(todo)
        if args.budget:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the run is told, and saves
            queue = sorted((job for chain in chains for job in chain), key=lambda job: (job.cell.seed, todo.index(job)))
            results = run_within(queue, minutes=args.budget, begin=args.begin, step_ms=args.step_ms, say=_say)
        else:
            results = LAUNCHERS[args.launcher](chains, jobs=args.jobs, address=args.address, say=_say)
        todo, lines = plan(jobs, jobs[0].ledger.read_or_empty())
        print("\n".join(lines))
        if "stopped" in results.values():
            return 130
        return 1 if todo else 0


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
