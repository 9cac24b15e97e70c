"""Scores a checkpoint with every suite whose data is there and writes the report.

    record = evaluate("runs/wrn_c10", Options(suites=("clean", "ood"), ood={"Places": "places_crops"}))
    record["suites"]["clean"]["scalars"]["top1"]
    record = evaluate(open_run("runs/wrn_c10", "best_val"), Options.quick())

Run, data, sets and runs that the options name are all opened, and refused if necessary, before anything is computed.
"""

import json
import os
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from sem_jax import config as config_lib
from sem_jax.errors import DataError, RunError, SemError, plain
from sem_jax.evaluation.comparison import compare
from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.early import check_early
from sem_jax.evaluation.given import read_given
from sem_jax.evaluation.options import Options
from sem_jax.evaluation.report import page
from sem_jax.evaluation.report.figures import INK, short
from sem_jax.evaluation.report.record import PARTS
from sem_jax.evaluation.run_data import load_splits
from sem_jax.evaluation.suites import SUITES
from sem_jax.interfaces import Dataset
from sem_jax.runs.curves import curves_figure
from sem_jax.runs.opening import Run, open_run
from sem_jax.runs.reading import read_json
from sem_jax.runs.records import environment, read_metrics
from sem_jax.runs.shared import report_folder


def evaluate(
    run: Run | str | Path,
    options: Options | None = None,
    *,
    dataset: Dataset | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """Runs the suites and writes eval.json, eval.md, eval.html and the figures as PNG.

    Args:
      run: from `open_run`; or a run folder, of which the latest checkpoint is scored; or a checkpoint folder.
      options: None = `Options()`, every suite that has its data.
      dataset: the run's data set, if it is in memory.
      say: is called with a line when a suite is done.

    Returns:
      The record, as in eval.json; see report/record.py.

    Raises:
      SemError: a run, checkpoint, data set or path that cannot be used; or no suite has its data.
    """
    options = options or Options()
    run = run if isinstance(run, Run) else open_run(run, trust_model=options.trust_model)
    folder = Path(options.out).expanduser() if options.out else report_folder(run.source or run.folder)
    check_early(run.data.name, run.data.image_shape, options)
    loaded = load_splits(run, data_dir=options.data_dir, dataset=dataset)
    context = Context(run, loaded, options, read_given(run, loaded, options))
    if context.given.compared and "test" in loaded.splits:
        _ = context.runs  # refuses runs of other classes before anything is computed
    results: dict[str, Result | Missing] = {}
    for name in options.suites:
        try:
            results[name] = SUITES[name](context)
        except Missing as error:
            results[name] = error
        say(f"{name:<13} {results[name].line()}")
    done = [result for result in results.values() if isinstance(result, Result)]
    if not done:
        first = next(it for it in results.values() if isinstance(it, Missing))
        raise DataError(first.reason, first.remedy)
    parts = {"training": _training(run), "comparison": compare(context, results)}
    beside = {name: it for name, it in parts.items() if it is not None}
    shown = [*done, *beside.values()]
    for result in [] if options.pictures else shown:
        result.figures.clear()
        result.captions.clear()
        result.galleries.clear()
    figures = {name: figure for result in shown for name, figure in result.figures.items()}
    _sign(figures.values(), run)
    _write(_record(run, results) | {name: it.record() for name, it in beside.items()}, figures, folder)
    if options.items:
        items: dict = {name: rows for result in done for name, rows in result.items.items()}
        np.savez_compressed(Path(options.items).expanduser(), **items)
    record = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    if run.source.startswith("gs://") and not options.out:
        say(_upload(run.source, folder, record))
    return record


def _upload(url: str, folder: Path, record: dict) -> str:
    """Uploads the report of a run in a bucket; a line that says so, or why it could not be."""
    from sem_jax.runs.fetched import publish_report

    parts = [*record["suites"].values(), *(record[part] for part in PARTS if part in record)]
    figures = {f"{name}.png" for part in parts for name in part["figures"]}
    try:
        publish_report(url, folder, ["eval.json", "eval.md", "eval.html", *sorted(figures)])
    except SemError as error:
        return f"The report is in {folder} alone, it was not uploaded: {plain(str(error).splitlines()[0])}"
    return f"The report was uploaded to {url}/evaluation"


def _training(run: Run) -> Result | None:
    """The learning curves; None where the run has no log."""
    try:
        log = read_metrics(run.folder)
    except SemError as error:  # a damaged log is no reason not to score the checkpoint
        return Result(note=f"No learning curves: {plain(str(error).splitlines()[0])}")
    if (figure := curves_figure(log)) is None:
        return None
    result = Result()
    dotted = "" if all(record.get("mixing", True) for record in log) else "; the dotted line is where mixing stops"
    result.picture("curves", figure, f"Accuracy, loss and penalty by epoch{dotted}.")
    return result


def _sign(figures: Iterable[Any], run: Run) -> None:
    """Writes above every figure of which run it is: method, net, data and seed."""
    x, images = run.config, run.data.sizes.get("train")
    net = ", ".join([x.model.name, *(f"{k} {x.model[k]}" for k in ("depth", "width") if x.model[k])])
    trained = f"{images:,} training images, {x.train.epochs} epochs" if images else f"{x.train.epochs} epochs"
    words = f"{run.name}: {config_lib.method_of(x)}, {net}, {run.data.name}, {trained}; one run, seed {x.seed}"
    for figure in figures:
        if isinstance(figure, Figure):
            lines = textwrap.wrap(short(words, 160), max(40, int(13 * figure.get_figwidth())))
            title = "\n".join(filter(None, [*lines, figure.get_suptitle()]))
            figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=INK)


def _record(run: Run, results: Mapping[str, Result | Missing]) -> dict:
    devices, about = jax.local_devices(), environment()
    data = {run.data.name: {"fingerprint": run.data.fingerprint, "sizes": run.data.sizes}}
    for result in results.values():
        data |= result.data if isinstance(result, Result) else {}
    facts = {
        "name": run.name,
        "folder": run.folder,
        "checkpoint": run.checkpoint,
        "step": run.step,
        "method": config_lib.method_of(run.config),
        "fingerprint": run.fingerprint,
        "precision": run.precision,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.variables["params"])),
        "date": time.strftime(
            "%Y-%m-%d %H:%M UTC", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
        ),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "config": config_lib.to_dict(run.config),
        "data": data,
        "versions": about["versions"] | {"commit": about["commit"], "platform": about["platform"]},
    }
    return {"run": facts, "suites": {name: result.record() for name, result in results.items()}}


def _write(record: dict, figures: dict, folder: Path) -> None:
    """Writes the report and deletes the pictures of the report before it that are not written again."""
    old = folder / "eval.json"
    try:
        before = read_json(old)
        parts = [*before["suites"].values(), *(before[part] for part in PARTS if part in before)]
        stale = {name for part in parts for name in part["figures"]} - set(figures)
    except (ValueError, KeyError, TypeError, AttributeError):  # there is none, or it is damaged
        stale = set()
    try:
        page.write_report(record, figures, folder)
        for name in stale:
            if Path(name).name == name:  # the old eval.json may be a stranger's
                (folder / f"{name}.png").unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"Cannot write the report in {folder}: {error.strerror or error}", "Give --out=DIR.") from None
