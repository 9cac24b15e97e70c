"""One run of the grid, in a process of its own: train, score, and one line in the ledger.

    python -m experiments.paper.cell JOB.json          # what experiments.paper starts; a Job as JSON

Training and scoring share the process, so that jax starts once and the data is read once. Exit status: 0 recorded,
2 refused, 130, 142 or 143 stopped after saving, by a signal or because its time was up (the same job continues).
"""

import contextlib
import datetime
import fcntl
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.paper import grid
from experiments.paper.ledger import Ledger
from experiments.paper.rescoring import enter
from sem_jax.errors import exit_on_error
from sem_jax.runs.records import environment, read_json, read_metrics
from sem_jax.system.signals import TIME_IS_UP

LAST_EPOCHS = 10  # the median over these is one of the accuracies that papers report
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + TIME_IS_UP, -signal.SIGINT, -signal.SIGTERM)


class Job(NamedTuple):
    """A cell, and where things are."""

    cell: grid.Cell
    out: str  # the sweep's folder: runs/<id>, ledger/
    suites: tuple[str, ...]
    data_dir: str = ""
    shift: tuple[tuple[str, str], ...] = ()  # (name, path)
    ood: tuple[tuple[str, str], ...] = ()
    corruptions_dir: str = ""
    frost_dir: str = ""
    corruption_items: int = -1  # images of each generated corruption, 0 = all, -1 = as the size has it
    max_minutes: float = 0.0  # after which it saves and ends; 0 = no limit

    @property
    def folder(self) -> Path:
        return Path(self.out) / "runs" / self.cell.id

    @property
    def ledger(self) -> Ledger:
        return Ledger(Path(self.out) / "ledger")

    def to_json(self) -> str:
        return json.dumps(self._asdict() | {"cell": self.cell._asdict()}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Job":
        def plain(value: Any) -> Any:
            return tuple(map(plain, value)) if isinstance(value, list) else value

        values = json.loads(text)
        cell = grid.Cell(**{name: plain(value) for name, value in values.pop("cell").items()})
        return cls(cell, **{name: plain(value) for name, value in values.items()})


def facts(job: Job) -> dict:
    """What an entry says of its cell, whatever became of it."""
    cfg = grid.make_config(job.cell)
    return {
        **{name: value for name, value in job.cell._asdict().items() if name != "settings"},
        "id": job.cell.id,
        "hash": grid.config_hash(cfg),
        "overrides": grid.differences(cfg),
        "command": grid.command(job.cell, Path("runs") / job.cell.id),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def run(job: Job) -> dict:
    """Trains and scores in this process, and appends the entry to the ledger.

    Raises:
      SemError: refused. Interrupted: stopped by a signal after saving.
    """
    import jax

    from experiments.paper.branch import start_from
    from sem_jax.evaluation import Options, evaluate
    from sem_jax.training.loop import train_and_evaluate

    begin, cfg = time.time(), grid.make_config(job.cell, data_dir=job.data_dir)
    cfg = grid.with_scorer(cfg, job.cell, job.folder.parent)
    cfg.runtime.progress = False
    # Seeds and siblings share programs: compiled once a sweep.
    jax.config.update("jax_compilation_cache_dir", str(Path(job.out).absolute() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1)
    branched = ""
    if sibling := grid.sibling(job.cell.method):
        source = job._replace(cell=job.cell._replace(method=sibling))
        branched = source.cell.id if start_from(source.folder, job.folder, cfg) else ""
    log = read_metrics(job.folder)  # of processes before this one, and of the sibling
    deadline = time.monotonic() + 60 * job.max_minutes if job.max_minutes else None
    train_and_evaluate(cfg, str(job.folder), deadline=deadline)
    size, items = grid.SIZES[job.cell.size], job.folder / "items.npz"
    options = Options(
        suites=job.suites,
        data_dir=job.data_dir,
        shift=dict(job.shift),
        ood=dict(job.ood),
        corruptions_dir=job.corruptions_dir,
        corruption_items=size.corruption_items if job.corruption_items < 0 else job.corruption_items,
        frost_dir=job.frost_dir,
        pairs=size.pairs,
        umap=False,
        pictures=False,
        items=items,
        progress=False,
    )
    record = evaluate(job.folder, options, say=lambda line: print(line, flush=True))
    with np.load(items, allow_pickle=False) as stored:
        arrays = dict(stored)
    entry: dict = facts(job) | {"status": "done", "branched_from": branched} | outcome(job.folder, record)
    theirs = [it for it in log if it["epoch"] <= cfg.mixer.stop_epoch] if branched else []
    entry |= cost(time.time() - begin, entry["train_time_s"], seconds_of(log), seconds_of(theirs))
    return enter(job.ledger, entry, arrays)


def seconds_of(log: Sequence[Mapping]) -> float:
    """Of training, in a log's epochs."""
    return sum(record.get("seconds") or 0.0 for record in log)


def cost(wall: float, trained: float, before: float, theirs: float) -> dict[str, float]:
    """What an entry says of its time: the last process's own, and what was spent beside training in it.

    Args:
      wall: seconds of this process.
      trained: seconds of training of the whole run; `before` of them were there when this process began.
      theirs: those of them that a sibling spent, from whose switch the run began.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_time_s": round(wall, 1),
        "cpu_time_s": round(used.ru_utime + used.ru_stime, 1),
        "beside_time_s": round(max(0.0, wall - max(0.0, trained - before)), 1),
        "shared_time_s": round(theirs, 1),
    }


def outcome(folder: Path, record: dict) -> dict:
    """What a finished run folder and the record of its evaluation give to the ledger.

    Accuracies are fractions on test: `last`; `best_val`, where a part of train was held out; and `median_last10`, the
    median over those of the last ten epochs that were scored, with their number.
    """
    result, log = read_json(folder / "result.json"), read_metrics(folder)
    late = [r["test_accuracy"] for r in log[-LAST_EPOCHS:] if r.get("test_accuracy") is not None]
    median = {"value": statistics.median(late), "epochs": len(late)} if late else None
    penalties = [r["penalty_relative"] for r in log if "penalty_relative" in r]
    about = record["run"]
    return {
        "accuracy": {"last": result["test_accuracy"], "best_val": result.get("best_val"), "median_last10": median},
        "test_nll": result["test_nll"],
        "penalty_relative": penalties[-1] if penalties else None,
        "suites": {
            name: {k: it[k] for k in ("status", "scalars", "note", "reason") if k in it}
            for name, it in record["suites"].items()
        },
        "sets": {name: it for name, it in about["data"].items() if "items" in it},
        "curves": curves(record["suites"].get("equivariance", {})),
        "checkpoint": about["fingerprint"],
        "data": result["data"],
        "train_time_s": result["wall_time_s"],
        "devices": result["devices"],
        "dtype": result["dtype"],
        "versions": result["versions"],
        "commit": result["commit"],
        "platform": result["platform"],
    }


def curves(suite: dict) -> dict[str, dict[str, list]]:
    """The equivariance suite's tables "<mixer>: by lam" as columns."""
    out = {}
    for table in suite.get("tables", ()):
        mixer, colon, what = table["title"].partition(": ")
        if what == "by lam":
            names = [name for name in table["columns"] if name != "run"]
            at = [table["columns"].index(name) for name in names]
            out[mixer.lower()] = {name: [row[i] for row in table["rows"]] for name, i in zip(names, at, strict=True)}
    return out


def launch(folder: Path, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Starts `python -m <arguments>` for a run folder, with more environment variables; it prints to <folder>.log."""
    with open(f"{folder}.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=grid.CONFIGS.parent,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def start(job: Job, variables: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Starts a job's process."""
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    path = Path(f"{job.folder}.job.json")
    path.write_text(job.to_json(), encoding="utf-8")
    return launch(job.folder, ["experiments.paper.cell", str(path.absolute())], variables)


def finish(job: Job, status: int) -> str:
    """What became of a job, from its exit status: "done", "stopped" or "failed", which is put into the ledger here."""
    if status == 0:
        return "done"
    if status in STOPPED:
        return "stopped"
    path = Path(f"{job.folder}.log")
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.exists() else []
    names = [i for i, line in enumerate(lines) if line.partition(":")[0].endswith(("Error", "Exception"))]
    reason = " ".join(lines[names[-1] :][:3]) if names else (lines[-1] if lines else "")
    if status < 0:
        reason = f"killed by signal {-status}; last said: {reason}"
    job.ledger.append(
        facts(job)
        | {"status": "failed", "exit_status": status, "error": reason[:500], "commit": environment()["commit"]}
    )
    return "failed"


@contextlib.contextmanager
def alone(folder: Path):
    """One process a run folder: waits for another one, which a lost launcher may have left, to end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stop_with_parent() -> None:
    """Stops this process, as SIGTERM does, once the one that started it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(argv: list[str]) -> None:
    job = Job.from_json(Path(argv[0]).read_text(encoding="utf-8"))
    stop_with_parent()
    with exit_on_error(), alone(job.folder):
        run(job)


if __name__ == "__main__":
    main(sys.argv[1:])
