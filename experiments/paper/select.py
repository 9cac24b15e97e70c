"""Chooses alpha and gamma on held-out training images; test data is never opened.

    python -m experiments.paper.select --size=cpu --mixer=mixup --data-dir=~/data --out=runs/select
    python -m experiments.paper --selected runs/select/selected.json ...

Every pair of alpha in {0.2, 1, 2, 5} and gamma in {0.1, 0.2, ..., 1} is a run of MIXER + SEM with 5,000 training images
held out (data.val_size) and data.use_test=False, which reads no test split at all. Optuna's successive halving compares
the runs after 1/4, 1/2 and all of their epochs and stops the worse half early, by SIGTERM. Its study is a SQLite file:
the same command again continues, a run that was cut off at its last checkpoint.

Writes selected.json (the choice), curve.csv (every pair with its accuracy, and where it was stopped) and gamma.png.
Needs Optuna: pip install optuna.
"""

import csv
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.commands import absolute, parser
from experiments.paper import grid, text
from experiments.paper.cell import launch
from experiments.paper.report_figures import panels
from sem_jax.errors import ConfigError, RunError, exit_on_error
from sem_jax.evaluation.report.figures import COLOURS, to_png
from sem_jax.runs.records import read_json, read_metrics, write_json

ALPHAS = (0.2, 1.0, 2.0, 5.0)
GAMMAS = tuple(round(0.1 * i, 1) for i in range(1, 11))
VAL_SIZE = 5_000
REDUCTION = 2  # successive halving: one in so many goes on
POLL_SECONDS = 1.0


def trial_cell(size: str, backbone: str, dataset: str, mixer: str, alpha: float, gamma: float, seed: int) -> grid.Cell:
    settings = (("mixer.alpha", alpha), ("objective.gamma", gamma))
    return grid.Cell(size, backbone, dataset, f"{mixer}+sem", seed, settings)


def trial_flags(cell: grid.Cell, folder: Path, data_dir: str, val_size: int) -> list[str]:
    """The command of one run: the cell's, with val held out, test unread, and val scored after every epoch."""
    dropped = ("--config.train.eval_every", "--config.train.keep_epochs", "--workdir", "--config.data.dir")
    kept = [flag for flag in grid.arguments(cell, folder, data_dir) if not flag.startswith(dropped)]
    return [
        *kept,
        f"--workdir={folder}",
        *([f"--config.data.dir={data_dir}"] if data_dir else []),
        f"--config.data.val_size={val_size}",
        "--config.data.use_test=False",
        "--config.train.eval_every=1",
        "--config.runtime.progress=False",
    ]


def follow(process: subprocess.Popen, folder: Path, report: Callable[[int, float], bool]) -> bool:
    """Reports val accuracy epoch by epoch; stops the run by SIGTERM, which saves, once `report` says so.

    Returns:
      Whether it ran to its end.

    Raises:
      RunError: it failed.
    """
    told = 0
    try:
        while True:
            ended = process.poll() is not None  # asked before the log is read: nothing is missed
            for record in read_metrics(folder):
                if record["epoch"] > told and record.get("val_accuracy") is not None:
                    told = record["epoch"]
                    if report(told, record["val_accuracy"]):
                        process.terminate()
                        process.wait()
                        return False
            if ended:
                break
            time.sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        raise RunError(f"{folder} failed with exit status {process.returncode}", f"See {folder}.log.")
    return True


def open_study(path: Path, epochs: int):
    """The study in a SQLite file, with what a killed search left begun marked as failed, so that it is run again."""
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "experiments.paper.select needs Optuna, which is not installed", "pip install optuna"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first = max(1, epochs // 4)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="select", storage=f"sqlite:///{path}", direction="maximize", pruner=pruner, load_if_exists=True
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study, optuna


def search(
    study, optuna, pairs: Sequence[tuple[float, float]], run: Callable, *, say: Callable[[str], None] = print
) -> None:
    """Runs every pair that is not in the study yet, in a fixed shuffled order, so that halving sees all of the grid.

    Args:
      run: (alpha, gamma, report) -> whether it ran to its end; see `follow`.
    """
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    there = {(t.params["alpha"], t.params["gamma"]) for t in study.get_trials(deepcopy=False, states=ended)}
    missing = [pair for pair in pairs if pair not in there]
    random.Random(0).shuffle(missing)
    say(f"{len(pairs)} pairs of alpha and gamma: {len(pairs) - len(missing)} there, {len(missing)} to run")
    for alpha, gamma in missing:
        study.enqueue_trial({"alpha": alpha, "gamma": gamma})
        trial = study.ask()
        # What was put into the queue by a search that was killed before it began comes first.
        values = {"alpha": {float(a) for a, _ in pairs}, "gamma": {float(g) for _, g in pairs}}
        alpha, gamma = (trial.suggest_categorical(name, sorted(those)) for name, those in values.items())
        last = []

        def report(epoch: int, accuracy: float, trial=trial, last=last) -> bool:
            last.append(accuracy)
            trial.report(accuracy, epoch)
            return trial.should_prune()

        try:
            whole = run(alpha, gamma, report)
        except RunError as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            say(f"alpha {alpha:g}, gamma {gamma:g}: failed: {str(error).splitlines()[0]}")
            continue
        if whole:
            study.tell(trial, last[-1])
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        what = "" if whole else f", stopped after epoch {len(last)}"
        say(f"alpha {alpha:g}, gamma {gamma:g}: val accuracy {last[-1]:.2%}{what}")


def results(study, optuna) -> list[dict]:
    """Every pair, best first: those that ran to the end before those that were stopped, later stopped ones first."""
    rows: dict[tuple, dict] = {}
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    for trial in study.get_trials(deepcopy=False):
        if trial.state in ended and trial.intermediate_values:
            epoch = max(trial.intermediate_values)
            pair = {name: trial.params[name] for name in ("alpha", "gamma")}
            scored = {"val_accuracy": trial.intermediate_values[epoch], "epochs": epoch}
            complete = trial.state == optuna.trial.TrialState.COMPLETE
            rows[tuple(pair.values())] = {**pair, **scored, "complete": complete}
    return sorted(rows.values(), key=lambda r: (r["complete"], r["epochs"], r["val_accuracy"]), reverse=True)


def draw(rows: Sequence[Mapping], title: str) -> Figure:
    """Val accuracy against gamma, a line an alpha through the runs that went to their end; hollow: stopped early."""
    figure, (axis,) = panels(7.6, 4.6)
    for index, alpha in enumerate(sorted({r["alpha"] for r in rows})):
        own = sorted((r for r in rows if r["alpha"] == alpha), key=lambda r: r["gamma"])
        colour = COLOURS[index % len(COLOURS)]
        whole, early = (
            (
                [r["gamma"] for r in own if r["complete"] == it],
                [100 * r["val_accuracy"] for r in own if r["complete"] == it],
            )
            for it in (True, False)
        )
        axis.plot(*whole, "o-", color=colour, label=f"alpha {alpha:g}")
        axis.plot(*early, "o", color=colour, markerfacecolor="none", alpha=0.7)
    axis.plot([], [], "o", color="0.4", markerfacecolor="none", label="stopped early")
    gammas = sorted({r["gamma"] for r in rows})
    axis.set_xticks(gammas, [f"{gamma:g}" for gamma in gammas])
    axis.set_xlabel("gamma")
    axis.set_ylabel("accuracy on held-out training images (%)")
    axis.set_title(title, loc="left", fontsize=11)
    axis.legend(frameon=False, fontsize=9)
    return figure


def write(rows: Sequence[Mapping], about: Mapping, out: Path) -> dict:
    """curve.csv, gamma.png and selected.json; returns the choice.

    Raises:
      RunError: no run went to its end.
    """
    with open(out / "curve.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["alpha", "gamma", "val_accuracy", "epochs", "complete"])
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda r: (r["alpha"], r["gamma"])))
    net, data = grid.net_name(about["size"], about["backbone"]), text.data_name(about["dataset"])
    title = f"{net}, {data}: {about['mixer']} + SEM,\n{about['val_size']:,} images held out, one seed"
    (out / "gamma.png").write_bytes(to_png(draw(rows, title)))
    best = rows[0] if rows and rows[0]["complete"] else None
    if best is None:
        raise RunError(f"{out}: no run went to its end, so nothing is chosen", "See the .log files in trials/.")
    chosen = {**about, **best, "runs": len(rows), "complete": sum(r["complete"] for r in rows)}
    write_json(out / "selected.json", chosen)
    return chosen


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--{option} must be numbers with commas, got {text!r}") from None


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.paper.select", __doc__)
    add = options.add_argument
    add("--size", choices=grid.SIZES, default="paper")
    add("--backbone", choices=grid.BACKBONES, default="preact")
    add("--dataset", choices=grid.DATASETS, default="cifar10")
    add("--mixer", choices=("mixup", "cutmix"), default="mixup")
    add("--alphas", default=",".join(f"{a:g}" for a in ALPHAS), metavar="A,B")
    add("--gammas", default=",".join(f"{g:g}" for g in GAMMAS), metavar="A,B")
    add("--seed", type=int, default=0)
    add("--val-size", type=int, default=VAL_SIZE, metavar="N", help=f"training images held out; default: {VAL_SIZE:,}")
    add("--data-dir", default="", metavar="DIR")
    add("--out", default="runs/select", metavar="DIR", help="study, runs and what is chosen; default: runs/select")
    args = options.parse_args(argv)
    with exit_on_error():
        out, data_dir = Path(absolute(args.out)), absolute(args.data_dir)
        about = {"size": args.size, "backbone": args.backbone, "dataset": args.dataset, "mixer": args.mixer}
        about |= {"seed": args.seed, "val_size": args.val_size}
        if (out / "about.json").exists() and (there := read_json(out / "about.json")) != about:
            raise RunError(f"{out} holds another search: {there}", "Choose another folder with --out.")
        pairs = [(a, g) for a in _numbers("alphas", args.alphas) for g in _numbers("gammas", args.gammas)]
        identity = (args.size, args.backbone, args.dataset, args.mixer)
        cfg = grid.make_config(trial_cell(*identity, *pairs[0], args.seed))
        study, optuna = open_study(out / "study.db", cfg.train.epochs)
        write_json(out / "about.json", about)

        def run(alpha: float, gamma: float, report: Callable) -> bool:
            folder = out / "trials" / f"alpha{alpha:g}-gamma{gamma:g}"
            cell = trial_cell(*identity, alpha, gamma, args.seed)
            folder.parent.mkdir(parents=True, exist_ok=True)
            flags = trial_flags(cell, folder, data_dir, args.val_size)
            return follow(launch(folder, ["sem_jax.main", *flags]), folder, report)

        search(study, optuna, pairs, run, say=lambda line: print(line, flush=True))
        chosen = write(results(study, optuna), about, out)
        print(f"Chosen: alpha {chosen['alpha']:g}, gamma {chosen['gamma']:g}: {out / 'selected.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
