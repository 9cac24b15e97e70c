"""Runs of a sweep within a number of minutes: only what fits is started, and what hangs is ended.

    run_within(jobs, minutes=9.0, step_ms=1.5)         # {cell id: "done" | "failed" | "stopped" | "left out"}

What a run takes is estimated from the runs of its kind that are in the ledger, from the epochs of one that was begun,
or else from the time of a training step that was measured before. While nothing of this is known, the first run is
started. One that is estimated not to fit is left out and the next is looked at. With `begin`, what is left at the end
goes to the first of them: it saves when the time is up, and another call continues it.
"""

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from experiments.paper import cell as cells
from experiments.paper import grid
from experiments.paper.ledger import Book
from experiments.paper.rows import beside, epochs_of
from sem_jax.config import flatten, get_default
from sem_jax.data import DATASETS
from sem_jax.runs.records import read_metrics

OVERHEAD = 60.0  # seconds of a run beside its training, while no run has told: start, compiling, scores
SAVING = 15.0  # seconds that a run has to save and end
LEAST = 60.0  # seconds for which a run that does not fit is begun
GIVEN = ("data.train_size", "train.batch_size")  # of a run's settings, those that the images of an epoch follow from
DEFAULTS = dict(flatten(get_default()))
PATIENCE = 2.0  # times its estimate after which a run counts as hung


class Cost(NamedTuple):
    """Seconds of training for one pass of the net over an image, and of a run beside its training."""

    image_pass: float
    overhead: float


def images_of(cfg: ConfigDict) -> int:
    """Training images of an epoch; an incomplete batch is left out."""
    images = cfg.data.train_size or DATASETS[cfg.data.name].train_size or 1
    return max(images // cfg.train.batch_size, 1) * cfg.train.batch_size


def work(cfg: ConfigDict, *, first: int = 0) -> float:
    """Images that pass the net in a run from epoch `first` on, one as often as it does."""
    return images_of(cfg) * passes(cfg, first=first)


def passes(cfg: ConfigDict, *, first: int = 0) -> float:
    """Passes of the net over an epoch that a run takes from epoch `first` on."""
    o = cfg.objective
    clean = o.gamma > 0 or o.regmixup or o.clean_features in ("grad", "stop_gradient")
    mixing = 0 if cfg.mixer.name == "none" else cfg.mixer.stop_epoch
    left, mixed = cfg.train.epochs - first, max(mixing - first, 0)
    return left + mixed * (1 if clean else 0)


def cost_of(job: cells.Job, book: Book, step_ms: float = 0.0) -> Cost | None:
    """What the runs of a job's kind have cost; None where nothing is known.

    Args:
      step_ms: milliseconds of a training step with one pass; 0 = not known.
    """
    alike = [
        entry
        for entry in book.done.values()
        if all(entry[name] == getattr(job.cell, name) for name in ("size", "backbone", "dataset"))
        and not entry.get("branched_from")
        and "wall_time_s" in entry
    ]
    cfg = grid.make_config(job.cell)
    if alike:  # those on as many images know best, as an epoch costs something too
        alike = [e for e in alike if images_of(_config_of(e)) == images_of(cfg)] or alike
        rates = [e["train_time_s"] / max(work(_config_of(e)), 1.0) for e in alike[-3:]]
        told = [beside(e) for e in alike if beside(e) > 0]  # an old entry of a run that was continued tells nothing
        return Cost(max(rates), max(told[-3:], default=OVERHEAD))
    if log := read_metrics(job.folder) if (job.folder / "metrics.jsonl").exists() else []:
        an_epoch = work(cfg) / cfg.train.epochs
        return Cost(statistics.median(r["seconds"] for r in log) / an_epoch, OVERHEAD)
    if step_ms:
        return Cost(step_ms / 1e3 / cfg.train.batch_size, OVERHEAD)
    return None


def _config_of(entry: Mapping) -> ConfigDict:
    cell = grid.Cell(*(entry[name] for name in ("size", "backbone", "dataset", "method", "seed")))
    cfg = grid.make_config(cell)
    cfg.train.epochs = epochs_of(entry)
    cfg.data.train_size, cfg.train.batch_size = (entry["overrides"].get(name, DEFAULTS[name]) for name in GIVEN)
    return cfg


def estimate(job: cells.Job, book: Book, step_ms: float = 0.0) -> float | None:
    """Seconds that a job still takes; None where nothing is known."""
    cost = cost_of(job, book, step_ms)
    if cost is None:
        return None
    cfg, first = grid.make_config(job.cell), 0
    sibling = grid.sibling(job.cell.method)
    if sibling and job._replace(cell=job.cell._replace(method=sibling)).cell.id in book.done:
        first = cfg.mixer.stop_epoch
    if (job.folder / "checkpoints").is_dir() and (log := read_metrics(job.folder)):
        first = max(first, log[-1]["epoch"])
    return cost.overhead + cost.image_pass * work(cfg, first=first)


def run_within(
    jobs: Sequence[cells.Job],
    *,
    minutes: float,
    begin: bool = False,
    step_ms: float = 0.0,
    say: Callable[[str], None] = print,
    clock: Callable[[], float] = time.monotonic,
    run: Callable[[cells.Job, float], str] | None = None,
) -> dict[str, str]:
    """Runs jobs one after the other, in their order, until the time is up.

    Args:
      jobs: those that are missing, the most valuable first.
      minutes: from now on.
      begin: start what does not fit, too, once nothing else does.
      step_ms: see `cost_of`.
      clock, run: seconds, and (job, seconds that it may take) -> what became of it; for tests.

    Returns:
      id -> "done", "failed", "stopped" (saved; another call continues it) or "left out".
    """
    end, run = clock() + 60 * minutes, run or run_one
    results = {job.cell.id: "left out" for job in jobs}
    waiting = list(jobs)
    while waiting:
        left, book = end - clock() - SAVING, jobs[0].ledger.read_or_empty()
        times = {job.cell.id: estimate(job, book, step_ms) for job in waiting}
        fitting = [j for j in waiting if (it := times[j.cell.id]) is None or it <= left] if left > 0 else []
        if not fitting and not (begin and left >= LEAST):
            break
        job = (fitting or waiting)[0]
        waiting.remove(job)
        expected = times[job.cell.id]
        about = "not known yet" if expected is None else f"{expected:.0f} s"
        say(f"start   {job.cell.id}: {about}, {left:.0f} s are left")
        limit = left if expected is None else min(left, LEAST + PATIENCE * expected)
        results[job.cell.id] = run(job._replace(max_minutes=left / 60), limit + SAVING)
        say(f"{results[job.cell.id]:<7} {job.cell.id}")
        if not fitting:
            break
    for job in waiting:
        say(f"left out {job.cell.id}")
    return results


def run_one(job: cells.Job, limit: float) -> str:
    """Runs a job's process for at most `limit` seconds: then SIGTERM, with which it saves, and SIGKILL at last."""
    process = cells.start(job)
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            status = process.wait(SAVING)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
    except BaseException:  # Ctrl-C, or the SIGTERM of whoever started this
        process.terminate()
        process.wait()
        raise
    return cells.finish(job, status)
