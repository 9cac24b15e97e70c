"""Reads the sets and runs that the options name before anything is computed, so that typing errors cost seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sem_jax import data as data_lib
from sem_jax.data.npy_files import as_images, load_npy
from sem_jax.errors import DataError
from sem_jax.evaluation.corruptions.frost_pictures import read as read_frost
from sem_jax.evaluation.corruptions.published import NAMES, Published, open_published
from sem_jax.evaluation.options import Options
from sem_jax.evaluation.run_data import Loaded
from sem_jax.evaluation.sets import EvalSet, check, fitted, load_svhn, read_tree, read_tree_fitted
from sem_jax.interfaces import Split
from sem_jax.runs.opening import Run, open_run
from sem_jax.runs.shared import NAMED


class Given(NamedTuple):
    """The sets and runs that the options name."""

    shift: tuple[EvalSet, ...] = ()
    ood: tuple[EvalSet, ...] = ()
    published: Published | None = None  # the corrupted set
    compared: tuple[Run, ...] = ()


def read_given(run: Run, loaded: Loaded, options: Options) -> Given:
    """Reads the sets and runs that the chosen suites need.

    Raises:
      SemError: one is not there, is damaged, or does not fit the run.
    """
    shift, ood, published = (), (), None
    if "shift" in options.suites:
        shift = tuple(_read_shift(run, name, path) for name, path in options.shift.items())
    if "ood" in options.suites:
        ood = tuple(_read_ood(run, name, path) for name, path in options.ood.items())
    if "corruptions" in options.suites:
        if options.corruptions_dir:
            test = loaded.splits.get("test")
            labels = None if test is None else test.labels
            published = open_corrupted(run, Path(options.corruptions_dir), options.corruptions, labels)
        if options.frost_dir:
            read_frost(str(Path(options.frost_dir).expanduser()))
    compared = (_open_compared(it, run.checkpoint, options.trust_model) for it in options.compare)
    return Given(shift, ood, published, tuple(compared))


def _read_shift(run: Run, name: str, path: str) -> EvalSet:
    """Reads a labelled set with the model's classes; an image folder is resized as the run resized its own."""
    where = _existing(name, path)
    if _is_arrays(where):
        return check(run, EvalSet(name, data_lib.read_array_pair(where)), labelled=True)
    size = run.config.data.image_size
    split = read_tree(where, classes=run.data.class_names, image_size=size)
    note = f"resized to {size} pixels as in training" if size else ""
    return check(run, EvalSet(name, split, note), labelled=True)


def _read_ood(run: Run, name: str, path: str) -> EvalSet:
    """Reads an OOD set: a folder or archive of images, an array, or SVHN's .mat file. Labels are not used."""
    where = _existing(name, path)
    mat = where if where.suffix == ".mat" else where / "test_32x32.mat"
    if mat.is_file():
        return fitted(run, name, load_svhn(mat.parent))
    labels = where.with_name(where.name.removesuffix("_data.npy") + "_labels.npy")
    if where.suffix == ".npy" and not labels.is_file():
        images = as_images(load_npy(where), str(where))
        return fitted(run, name, Split(images, np.full(len(images), -1, np.int32)))
    if _is_arrays(where):
        return fitted(run, name, data_lib.read_array_pair(where))
    return read_tree_fitted(run, name, where)


def open_corrupted(run: Run, path: Path, names: Sequence[str], labels: np.ndarray | None) -> Published:
    """Opens the published corrupted set at `path` and compares its labels with those of the clean test set.

    Raises:
      DataError: no such set there, or it is damaged.
    """
    path = path.expanduser()
    options = {"clean_labels": labels, "num_classes": len(run.data.class_names), "names": tuple(names)}
    if any((path / name).is_dir() for name in NAMES):
        options |= {"class_names": run.data.class_names, "image_shape": run.data.image_shape}
    return open_published(str(path), **options)


def _open_compared(path: str | Path, checkpoint: str, trust_model: str) -> Run:
    """Opens a run at the same `checkpoint` ("final", "best_val", "ema") as the scored one, or a checkpoint folder."""
    if "://" in str(path):
        return open_run(path, checkpoint if checkpoint in NAMED else "final", trust_model=trust_model)
    folder = Path(path).expanduser()
    if (folder / "checkpoints").is_dir() and checkpoint in ("final", "best_val", "ema"):
        return open_run(folder, checkpoint, trust_model=trust_model)
    return open_run(
        "", str(folder.resolve()), trust_model=trust_model
    )  # absolute: a folder may be called 7800 or final


def _existing(name: str, path: str) -> Path:
    where = Path(path).expanduser()
    pair = where.with_name(f"{where.name}_data.npy")  # a pair may be given by its common prefix
    if not where.exists() and not pair.is_file():
        raise DataError(f"{name}: {where} does not exist", "Give NAME=PATH: an array pair, an .npz or an image folder.")
    return where


def _is_arrays(path: Path) -> bool:
    if path.is_dir():
        return any(path.glob("*_data.npy"))
    return path.suffix in (".npy", ".npz") or not path.exists()
