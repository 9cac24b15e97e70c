"""Reads published corrupted test sets: CIFAR-10-C and CIFAR-100-C arrays, Tiny-ImageNet-C folders, tfds.

    corrupted = open_published("~/data/CIFAR-10-C", clean_labels=test.labels)
    images, labels = corrupted.read("fog", 3)                          # u8[10000 32 32 3], i32[10000]

Opening a set checks all that can be checked without reading the pixels, so that a damaged set gives no number.
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sem_jax.data.files import FolderFiles
from sem_jax.data.images import decode_all
from sem_jax.data.npy_files import read_npy_header
from sem_jax.data.refusing import parse_json, read_file, refusing, remedied
from sem_jax.data.tfds_folder import JSON_LIMIT, read_split
from sem_jax.errors import DataError
from sem_jax.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from sem_jax.interfaces import Split

NAMES = tuple(CORRUPTIONS)
# tfds renames two of them.
TFDS_NAMES = {name: name for name in NAMES} | {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
_TFDS_FORMATS = ("array_record", "tfrecord")
_OFFICIAL_COUNT = 10_000
_PICTURES = (".jpeg", ".jpg", ".png")


class Published(NamedTuple):
    """An opened set."""

    layout: str  # "arrays", "folders" or "tfds"
    path: str
    names: tuple[str, ...]  # of the corruptions that were opened
    read_cell: Callable[[str, int], Split]  # (name, severity) -> images and labels

    def read(self, name: str, severity: int) -> Split:
        """The images, u8[n h w c], and labels, i32[n], of one corruption at one severity.

        Raises:
          DataError: the corruption was not opened, there is no such severity, or files are damaged.
        """
        if name not in self.names or severity not in SEVERITIES:
            opened = ", ".join(self.names)
            raise DataError(f"no {name!r} at severity {severity!r}; severities are 1 to 5, opened: {opened}")
        return self.read_cell(name, severity)


def open_published(
    path: str,
    *,
    names: Sequence[str] = NAMES,
    clean_labels: np.ndarray | None = None,
    num_classes: int = 10,
    class_names: Sequence[str] = (),
    image_shape: tuple[int, int, int] | None = None,
) -> Published:
    """Opens the set at `path`, which has one of three layouts.

    - arrays, as CIFAR-10-C and CIFAR-100-C: <corruption>.npy, u8[5m h w c], the five severities one after another, and
      labels.npy, int[5m]. The images are memory-mapped, read-only.
    - folders, as Tiny-ImageNet-C: <corruption>/<severity>/<class>/*.JPEG, ordered by class, then file name.
    - tfds: <path>/cifar10_corrupted/<corruption>_<severity>/<version>, as array_record or tfrecord, in tfds's order.

    Args:
      path: the folder; for tfds its data folder.
      names: corruptions that must be there.
      clean_labels: int[m], labels of the clean test set. Arrays must have equal labels in the same order, the other
        layouts as many images of every class. By default m of arrays is the official 10,000.
      num_classes: labels of arrays and tfds must be below it.
      class_names: class folders in the order of the labels; by default sorted.
      image_shape: (h, w, c) of every image; by default (32, 32, 3) for arrays, (64, 64, 3) for folders.

    Raises:
      DataError: no such set there; something is missing or differs from this description; tfds is not installed.
    """
    path = os.path.expanduser(path)
    found = os.listdir(path) if os.path.isdir(path) else ()
    names = tuple(names)
    if any(f"{name}.npy" in found for name in (*NAMES, "labels")):
        return _open_arrays(path, names, clean_labels, num_classes, image_shape or (32, 32, 3))
    if "cifar10_corrupted" in found:
        return _open_tfds(path, names, clean_labels, num_classes)
    if any(name in found for name in NAMES):
        return _open_folders(path, names, clean_labels, tuple(class_names), image_shape or (64, 64, 3))
    raise DataError(
        f"no corrupted set at {path}",
        "Expected <corruption>.npy files, <corruption>/<severity>/<class>/ folders or cifar10_corrupted of tfds there.",
    )


def _require(folder: str, kind: str, wanted: Sequence[str], is_there: Callable[[str], bool]) -> None:
    """Raises a DataError that lists the `wanted` names that are missing below the folder."""
    missing = [name for name in wanted if not is_there(os.path.join(folder, name))]
    if missing:
        shown = ", ".join(missing[:15]) + (", ..." if len(missing) > 15 else "")
        raise DataError(f"{folder} lacks {len(missing)} of {len(wanted)} {kind}: {shown}")


def _check_labels(path: str, labels: np.ndarray, num_classes: int) -> None:
    if labels.size and not (0 <= labels.min() and labels.max() < num_classes):
        raise DataError(f"{path} holds labels from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1}")


def _check_counts(path: str, labels: np.ndarray, clean_labels: np.ndarray | None) -> None:
    """Compares the number of images of each class, for layouts with another order than the clean set."""
    if clean_labels is None:
        return
    size = 1 + max(labels.max(initial=0), np.max(clean_labels, initial=0))
    found, expected = np.bincount(labels, minlength=size), np.bincount(clean_labels, minlength=size)
    if not np.array_equal(found, expected):
        worst = int(np.argmax(found != expected))
        images = f"{found[worst]} images of class {worst}, expected {expected[worst]}"
        raise DataError(f"{path} has {images} as in the clean test set")


def _memory_map(path: str) -> np.ndarray:
    """The array of an .npy file, left on disk; nothing is unpickled."""
    with refusing(f"{path} is not a whole .npy file of plain numbers"):
        with open(path, "rb") as file:
            read_npy_header(file, os.path.getsize(path), path)  # a memory map would hang on some wrong headers
        return np.lib.format.open_memmap(path, mode="r")  # np.load would also open archives, and leave them open


def _open_arrays(folder, names, clean_labels, num_classes: int, image_shape) -> Published:
    count = _OFFICIAL_COUNT if clean_labels is None else len(clean_labels)
    _require(folder, "files", [f"{name}.npy" for name in (*names, "labels")], os.path.isfile)
    labels = _labels_of_arrays(os.path.join(folder, "labels.npy"), count, num_classes)
    if clean_labels is not None and not np.array_equal(labels, clean_labels):
        wrong = labels != np.asarray(clean_labels)
        raise DataError(
            f"{folder}/labels.npy: {wrong.sum()} of {count} labels differ from the clean test set's, the first at "
            f"image {int(np.argmax(wrong))}",
            "Expected the same images in the same order.",
        )
    arrays = {name: _memory_map(os.path.join(folder, f"{name}.npy")) for name in names}
    shape = (count * len(SEVERITIES), *image_shape)
    for name, array in arrays.items():
        if array.dtype != np.uint8 or array.shape != shape:
            found = f"{array.dtype} {list(array.shape)}"
            raise DataError(f"{folder}/{name}.npy is {found}, expected uint8 {list(shape)}")

    def read_cell(name: str, severity: int) -> Split:
        return Split(arrays[name][(severity - 1) * count : severity * count], labels)

    return Published("arrays", folder, names, read_cell)


def _labels_of_arrays(path: str, count: int, num_classes: int) -> np.ndarray:
    """The labels of one severity, i32[count], which all severities must share."""
    rows = count * len(SEVERITIES)
    labels = _memory_map(path)
    if labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise DataError(f"{path} is {labels.dtype} {list(labels.shape)}, expected integers [{rows}]")
    labels = labels.astype(np.int64)
    _check_labels(path, labels, num_classes)
    blocks = labels.reshape(len(SEVERITIES), count)
    for row, at in np.argwhere(blocks != blocks[0])[:1]:
        raise DataError(
            f"{path}: the labels of severity {SEVERITIES[row]} differ from those of severity 1",
            f"Image {at} has {blocks[row, at]} and {blocks[0, at]}; expected the same labels five times.",
        )
    return blocks[0].astype(np.int32)


def _open_folders(folder, names, clean_labels, class_names: tuple[str, ...], image_shape) -> Published:
    cells = [f"{name}/{severity}" for name in names for severity in SEVERITIES]
    _require(folder, "folders", cells, os.path.isdir)
    classes, files = class_names, []
    for cell in cells:
        path = os.path.join(folder, cell)
        found = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
        classes = classes or tuple(found)
        if found != sorted(classes) or not found:
            odd = sorted(set(found) ^ set(classes))[:5]
            raise DataError(f"{path} has {len(found)} class folders, expected {len(classes)}; differing: {odd}")
        here = [f"{c}/{file}" for c in found for file in sorted(os.listdir(os.path.join(path, c)))]
        here = [file for file in here if file.lower().endswith(_PICTURES)]
        files = files or here
        if here != files or not here:
            odd, first = sorted(set(here) ^ set(files))[:3], os.path.join(folder, cells[0])
            raise DataError(f"{path} has {len(here)} images, expected {len(files)} as in {first}; differing: {odd}")
    labels = np.array([classes.index(file.split("/")[0]) for file in files], np.int32)
    _check_counts(folder, labels, clean_labels)

    def read_cell(name: str, severity: int) -> Split:
        cell = FolderFiles(Path(folder, name, str(severity)), files)
        read, where = (lambda i: cell.read(files[i])), (lambda i: cell.where(files[i]))
        return Split(decode_all(len(files), read, where, shape=image_shape), labels)

    return Published("folders", folder, names, read_cell)


def _open_tfds(data_dir, names, clean_labels, num_classes: int) -> Published:
    root = os.path.join(data_dir, "cifar10_corrupted")
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise DataError(f"reading {root} needs tensorflow-datasets", "Run: pip install tensorflow-datasets")
    cells = {(name, severity): f"{TFDS_NAMES[name]}_{severity}" for name in names for severity in SEVERITIES}
    _require(root, "prepared sets", list(cells.values()), lambda path: bool(_versions(path)))
    prepared = {cell: _versions(os.path.join(root, config))[-1] for cell, config in cells.items()}
    for path in prepared.values():
        info = path / "dataset_info.json"
        with refusing(f"{info} is damaged"):
            found = parse_json(read_file(info, JSON_LIMIT)).get("fileFormat")
        if found not in _TFDS_FORMATS:
            raise DataError(f"{path} is in the file format {found}, expected {' or '.join(_TFDS_FORMATS)}")

    def read_cell(name: str, severity: int) -> Split:
        path = prepared[name, severity]
        with remedied(f"Prepare cifar10_corrupted/{path.parent.name} again with tfds."):
            split, _ = read_split(path, "test", (32, 32, 3))
        _check_labels(str(path), split.labels, num_classes)
        _check_counts(str(path), split.labels, clean_labels)
        return split

    return Published("tfds", data_dir, names, read_cell)


def _versions(path: str) -> list[Path]:
    """Folders of the prepared versions of a tfds set, oldest first."""
    found = [file.parent for file in Path(path).glob("*/dataset_info.json")]
    return sorted(found, key=lambda folder: [int(part) for part in folder.name.split(".") if part.isdigit()])
