"""Reads the data set of a run again and compares its fingerprint with the run's; nothing is downloaded.

loaded = load_splits(open_run("runs/digits"))
loaded.splits["test"]
"""

from typing import Any, NamedTuple

from sem_jax import data as data_lib
from sem_jax.errors import DataError, RunError
from sem_jax.interfaces import Dataset, Split
from sem_jax.runs.opening import Run


class Loaded(NamedTuple):
    """The splits of the run's data set that were found."""

    splits: dict[str, Split]
    absent: DataError | None = None  # why the others are not
    verified: bool = False  # whether the fingerprint of all splits is the run's


def load_splits(run: Run, *, data_dir: str = "", dataset: Dataset | None = None) -> Loaded:
    """Reads the run's data set and compares its fingerprint. For a test split alone: its size and class names.

    Args:
      run: an opened run.
      data_dir: folder of the data; "" = where training found it.
      dataset: the data set, if it is in memory.

    Raises:
      RunError: the data is not the run's, or the run must not look at test data.
    """
    cfg = run.config.data
    if not cfg.use_test:
        raise RunError(
            f"{run.folder} was trained without looking at test data (data.use_test=False), so it is not scored on it",
            "Train with the chosen settings and data.use_test=True, and score that run.",
        )
    columns = {"image_column": cfg.image_column, "label_column": cfg.label_column}
    encoded = True if cfg.crop_scale else None
    reading = data_lib.Reading(encoded=encoded, eval_crop=cfg.eval_crop, download=False, **columns)
    options = {"data_dir": data_dir or cfg.dir, "image_size": cfg.image_size, "reading": reading}
    held_out = {"val_size": cfg.val_size, "val_seed": run.config.seed, "train_size": cfg.train_size}
    if dataset is None:
        data_lib.bring_data(cfg.name, data_dir)  # what the user names, not what the run does
    try:
        found = dataset or data_lib.load(cfg.name, **held_out, **options)
        loaded = Loaded(found.splits, verified=True)
        _same(run, "fingerprint", run.data.fingerprint[:12], found.fingerprint[:12])
    except DataError as error:
        try:
            found = data_lib.load(cfg.name, splits=("test",), **options)
        except DataError:
            return Loaded({}, absent=error)
        loaded = Loaded(found.splits, absent=error)
        _same(run, "classes", list(run.data.class_names), list(found.class_names))
        _same(run, "test images", run.data.sizes.get("test"), len(found.splits["test"].labels))
    _same(run, "image shape", list(run.data.image_shape), list(found.splits["test"].images.shape[1:]))
    return loaded


def _same(run: Run, what: str, there: Any, here: Any) -> None:
    if there != here:
        raise RunError(
            f"{run.folder} was trained on other data than is found now: {what} {there!s:.60} there, {here!s:.60} here",
            f"Give the folder of the data it was trained on ({run.data.name}) with --data-dir.",
        )
