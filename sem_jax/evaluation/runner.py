"""Scores a checkpoint with every suite whose data is there and writes the report.

    record = evaluate("runs/wrn_c10", suites=("clean", "ood"), ood={"Places": "places_crops"})
    record["suites"]["clean"]["scalars"]["top1"]
    record = evaluate_run("runs/wrn_c10")             # the cheap suites, quietly, as at the end of training

The order: arguments, run, data, given sets, suites, report. What can be refused is refused before anything is computed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from sem_jax import config as config_lib
from sem_jax.errors import ConfigError, DataError, RunError
from sem_jax.evaluation.context import Context, Missing, Options, Result
from sem_jax.evaluation.corruptions import CORRUPTIONS
from sem_jax.evaluation.corruptions.frost_pictures import read as read_frost
from sem_jax.evaluation.report import page
from sem_jax.evaluation.sets import EvalSet, read_given_ood, read_given_shift
from sem_jax.evaluation.suites import CHEAP, SUITES
from sem_jax.evaluation.suites.shift import open_given
from sem_jax.interfaces import Dataset
from sem_jax.registry import lookup
from sem_jax.runs.opening import Loaded, Run, load_splits, open_compared, open_run
from sem_jax.runs.records import environment


def evaluate(
    workdir: str | Path = "",
    *,
    suites: Sequence[str] = tuple(SUITES),
    checkpoint: str | int = "final",
    data_dir: str = "",
    shift: Mapping[str, str] | None = None,
    ood: Mapping[str, str] | None = None,
    corruptions_dir: str = "",
    corruption_items: int = 0,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    frost_dir: str = "",
    compare: Sequence[str] = (),
    pairs: int = 1000,
    umap: bool = True,
    seed: int = 0,
    dataset: Dataset | None = None,
    cached: bool = True,
    out: str | Path = "",
    items: str | Path = "",
    pictures: bool = True,
    progress: bool = True,
    say=lambda line: None,
) -> dict:
    """Runs the suites and writes eval.json, eval.md, eval.html and the figures as PNG.

    Args:
      workdir: the run folder.
      suites: names of `SUITES`, in the order of the report.
      checkpoint: "final", "best_val", a step, or a folder: a run's, or one of its checkpoints/STEP, moved wherever.
      data_dir: where the run's data and the standard sets are; "" = where the run had it, $TFDS_DATA_DIR,
        ~/tensorflow_datasets.
      shift: name -> array pair or image folder of the model's classes.
      ood: name -> array pair or image folder.
      corruptions_dir: the published corrupted set; "" looks in the standard places and else generates.
      corruption_items: score the corruptions on so many test images, chosen by seed; 0 = all.
      corruptions: which corruptions; what is left out is not in the mean.
      frost_dir: folder of the published frost photographs; "" = textures of our own.
      compare: other runs for the equivariance suite, their checkpoint chosen as this one's is; or checkpoint folders.
      pairs: of the equivariance suite.
      umap: draw the picture of two classes by UMAP too, where umap-learn is there.
      seed: of corruptions, pairs and choices.
      dataset: the run's data set, if it is in memory.
      cached: keep predictions below the run folder.
      out: folder of the report; "" = evaluation/ in workdir, or in the run of the checkpoint folder.
      items: file (.npz) to write what each item got to, for paired tests of two runs: "correct SET" bool[n], "msp SET"
        f64[n] and "relative error MIXER" f64[pairs]; "" = none. The same data and options give the same rows.
      pictures: draw the figures; without them the report has its numbers, in half the time for a small net.
      progress: bars on a terminal.
      say: called with a line when a suite is done.

    Returns:
      The record, as in eval.json; see page.py.

    Raises:
      SemError: a run, checkpoint, data set or path that cannot be used; or nothing at all that could be scored.
    """
    for name in suites:
        lookup(SUITES, "suite", name)
    for name in corruptions:
        lookup(CORRUPTIONS, "corruption", name)
    if not suites or not corruptions:
        raise ConfigError(f"suites and corruptions must name at least one, got {list(suites)} and {list(corruptions)}")
    for name, value, least in (("corruption_items", corruption_items, 0), ("pairs", pairs, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"{name} must be >= {least}, got {value}")
    run = open_run(workdir, checkpoint)
    loaded = load_splits(run, data_dir=data_dir, dataset=dataset)
    # All that a person gave is read before anything is computed: a typing error costs seconds, not hours.
    options = Options(
        data_dir=data_dir,
        shift=tuple(_given(run, shift, read_given_shift)) if "shift" in suites else (),
        ood=tuple(_given(run, ood, read_given_ood)) if "ood" in suites else (),
        published=_opened(run, loaded, corruptions_dir, corruptions) if "corruptions" in suites else None,
        frost_dir=frost_dir,
        corruption_items=corruption_items,
        corruptions=tuple(corruptions),
        compare=tuple(map(str, compare)),
        pairs=pairs,
        umap=umap,
        cached=cached,
        seed=seed,
        progress=progress,
    )
    if frost_dir and "corruptions" in suites:
        read_frost(str(Path(frost_dir).expanduser()))
    for folder in compare if "equivariance" in suites else ():
        open_compared(folder, run.checkpoint)
    folder = Path(out).expanduser() if out else (Path(workdir).expanduser() if workdir else run.folder) / "evaluation"
    context = Context(run, loaded, options)
    results: dict[str, Result | Missing] = {}
    for name in suites:
        try:
            results[name] = SUITES[name](context)
        except Missing as error:
            results[name] = error
        say(_line(name, results[name]))
    if all(isinstance(it, Missing) for it in results.values()):
        first = next(iter(results.values()))
        raise DataError(first.reason, first.remedy)
    if not pictures:
        for result in results.values():
            if isinstance(result, Result):
                result.figures.clear()
                result.captions.clear()
    record = _record(run, results)
    _write(record, {k: v for it in results.values() if isinstance(it, Result) for k, v in it.figures.items()}, folder)
    if items:
        arrays = {
            name: it for result in results.values() if isinstance(result, Result) for name, it in result.items.items()
        }
        np.savez_compressed(Path(items).expanduser(), **arrays)
    return json.loads((folder / "eval.json").read_text(encoding="utf-8"))


def evaluate_run(workdir: str | Path, *, dataset: Dataset | None = None, suites: Sequence[str] = CHEAP) -> dict:
    """The suites that need nothing but the run's own data, on fewer pairs and without UMAP: seconds for small nets.

    Args:
      workdir: a run with a checkpoint.
      dataset: its data set, if it is in memory.
      suites: those to run.

    Returns:
      The record, as of `evaluate`; the report lies in workdir/evaluation.
    """
    return evaluate(workdir, suites=suites, dataset=dataset, pairs=256, umap=False, progress=False)


def _given(run: Run, sets: Mapping[str, str] | None, read) -> Iterator[EvalSet]:
    return (read(run, name, path) for name, path in (sets or {}).items())


def _opened(run: Run, loaded: Loaded, path: str, corruptions: Sequence[str]):
    if not path:
        return None
    labels = loaded.splits["test"].labels if "test" in loaded.splits else None
    return open_given(run, str(Path(path).expanduser()), corruptions, labels)


def _line(name: str, result: Result | Missing) -> str:
    """One suite in one line."""
    if isinstance(result, Missing):
        text = f"{result.reason.rstrip('.')}. {result.remedy}"
        return f"{name:<13} missing: {' '.join(text.split())}"
    lines = [f"{name:<13} " + ", ".join(f"{what} {_short(value)}" for what, value in result.scalars.items())]
    for table in result.tables:
        if table["title"] == "Sets that are not there":
            lines += [f"{'':<13} left out {row[0]}: {row[1]}; {row[2]}" for row in table["rows"]]
    return "\n".join(lines)


def _short(value) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _record(run: Run, results: Mapping[str, Result | Missing]) -> dict:
    data = {run.data.name: {"fingerprint": run.data.fingerprint, "sizes": run.data.sizes}}
    suites = {}
    for name, it in results.items():
        if isinstance(it, Missing):
            suites[name] = {"status": "missing", "reason": f"{it.reason.rstrip('.')}.", "remedy": it.remedy}
        else:
            suites[name] = it.record()
            data |= it.data
    found = environment()
    devices = jax.local_devices()
    return {
        "run": {
            "name": run.name,
            "folder": str(run.folder),
            "checkpoint": run.checkpoint,
            "step": run.step,
            "method": config_lib.method_of(run.config),
            "fingerprint": run.fingerprint,
            "precision": run.precision,
            "devices": f"{len(devices)} x {devices[0].device_kind}",
            "config": config_lib.to_dict(run.config),
            "data": data,
            "versions": found["versions"] | {"commit": found["commit"], "platform": found["platform"]},
        },
        "suites": suites,
    }


def _write(record: dict, figures: dict, folder: Path) -> None:
    """Writes the report and takes away the pictures of the report before it that this one has not."""
    old = folder / "eval.json"
    try:
        before = json.loads(old.read_text(encoding="utf-8"))["suites"].values() if old.is_file() else ()
        stale = {name for suite in before for name in suite["figures"]} - set(figures)
    except (ValueError, KeyError, TypeError, AttributeError):
        stale = set()
    try:
        page.write_report(record, figures, folder)
        for name in stale:
            if Path(name).name == name:  # the old file is read, not trusted
                (folder / f"{name}.png").unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"Cannot write the report in {folder}: {error.strerror or error}", "Give --out=DIR.") from None
