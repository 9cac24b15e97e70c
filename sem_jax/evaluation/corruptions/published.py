"""Reads published corrupted test sets: CIFAR-10-C and CIFAR-100-C arrays, Tiny-ImageNet-C folders, tfds.

    corrupted = open_published("~/data/CIFAR-10-C", clean_labels=test.labels)
    images, labels = corrupted.read("fog", 3)                          # u8[10000 32 32 3], i32[10000]

Everything that can be checked without reading all pixels is checked when a set is opened, so that a damaged one
gives an error and no number. Whether files of arrays have each other's names takes pixels: `names` checks it.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sem_jax.data.prepared import check_metadata
from sem_jax.data.sources import read_npy_header
from sem_jax.errors import DataError
from sem_jax.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from sem_jax.interfaces import Split

NAMES = tuple(CORRUPTIONS)
# tfds names two of them differently.
TFDS_NAMES = {name: name for name in NAMES} | {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
_OFFICIAL_COUNT = 10_000
_PICTURES = (".jpeg", ".jpg", ".png")


class Published(NamedTuple):
    """An opened set; `read(name, severity)` gives its images and labels."""

    layout: str  # "arrays", "folders" or "tfds"
    path: str
    names: tuple[str, ...]
    read: Callable[[str, int], Split]


def open_published(path: str, *, clean_labels: np.ndarray | None = None, num_classes: int = 10, **options) -> Published:
    """Opens the set at `path`, whichever of the three layouts it has.

    Args:
      path: folder with <corruption>.npy and labels.npy, or with <corruption>/<severity>/<class>/*.JPEG, or the tfds
        data folder that has cifar10_corrupted in it.
      clean_labels: int[m], labels of the clean test set, which the set's must match.
      num_classes: labels are below.
      **options: of `open_arrays` or `open_folders`.

    Raises:
      DataError: nothing of the kind there, or the set is damaged.
    """
    path = os.path.expanduser(path)
    found = os.listdir(path) if os.path.isdir(path) else ()
    if any(f"{name}.npy" in found for name in (*NAMES, "labels")):
        return open_arrays(path, clean_labels=clean_labels, num_classes=num_classes, **options)
    if "cifar10_corrupted" in found:
        return open_tfds(path, clean_labels=clean_labels, num_classes=num_classes, **options)
    if any(name in found for name in NAMES):
        return open_folders(path, clean_labels=clean_labels, **options)
    raise DataError(
        f"no corrupted set at {path}",
        "Expected <corruption>.npy files, <corruption>/<severity>/<class>/ folders or cifar10_corrupted of tfds there.",
    )


def _memory_map(path: str) -> np.ndarray:
    """An .npy file, left on disk; it is never unpickled."""
    try:
        with open(path, "rb") as file:
            read_npy_header(file, os.path.getsize(path), path)  # also what a memory map would hang or warn about
        return np.lib.format.open_memmap(path, mode="r")  # np.load would also open archives, and leave them open
    except DataError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a whole .npy file of plain numbers", f"NumPy says: {reason}") from None


def _check_labels(path: str, labels: np.ndarray, num_classes: int) -> None:
    if labels.size and not (0 <= labels.min() and labels.max() < num_classes):
        raise DataError(f"{path} holds labels from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1}")


def _check_counts(path: str, labels: np.ndarray, clean_labels: np.ndarray | None) -> None:
    """For layouts that don't keep the order of the clean set: as many images of every class as there."""
    if clean_labels is None:
        return
    size = 1 + max(labels.max(initial=0), np.max(clean_labels, initial=0))
    found, expected = np.bincount(labels, minlength=size), np.bincount(clean_labels, minlength=size)
    if not np.array_equal(found, expected):
        worst = int(np.argmax(found != expected))
        raise DataError(
            f"{path} has {found[worst]} images of class {worst}, expected {expected[worst]} as in the clean test set"
        )


def open_arrays(
    folder: str,
    *,
    clean_labels: np.ndarray | None = None,
    num_classes: int = 10,
    count: int | None = None,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    names: Sequence[str] = NAMES,
) -> Published:
    """CIFAR-10-C or CIFAR-100-C as published: one uint8 array a corruption, the five severities one after another.

    Args:
      folder: has <corruption>.npy, u8[5m h w c], and labels.npy, int[5m].
      clean_labels: int[m], labels of the clean test set in its order; the file's must equal them.
      num_classes: 10 or 100.
      count: m, images of one severity; by default as many as clean labels, or the official 10,000.
      image_shape: (h, w, c).
      names: corruptions that must be there.

    Returns:
      The opened set; its images are memory-mapped, read-only.

    Raises:
      DataError: a file is missing or differs from this description.
    """
    folder = os.path.expanduser(folder)
    if count is None:
        count = _OFFICIAL_COUNT if clean_labels is None else len(clean_labels)
    rows = count * len(SEVERITIES)
    missing = [f"{name}.npy" for name in (*names, "labels") if not os.path.isfile(os.path.join(folder, f"{name}.npy"))]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of {len(names) + 1} files: {', '.join(missing)}")

    labels_path = os.path.join(folder, "labels.npy")
    labels = _memory_map(labels_path)
    if labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise DataError(f"{labels_path} is {labels.dtype} {list(labels.shape)}, expected integers [{rows}]")
    labels = labels.astype(np.int64)
    _check_labels(labels_path, labels, num_classes)
    blocks = labels.reshape(len(SEVERITIES), count)
    for severity, block in zip(SEVERITIES, blocks, strict=True):
        if not np.array_equal(block, blocks[0]):
            at = int(np.argmax(block != blocks[0]))
            raise DataError(
                f"{labels_path}: the labels of severity {severity} differ from those of severity 1",
                f"Image {at} has {block[at]} and {blocks[0][at]}; expected the same labels five times.",
            )
    if clean_labels is not None and not np.array_equal(blocks[0], clean_labels):
        wrong = blocks[0] != np.asarray(clean_labels)
        raise DataError(
            f"{labels_path}: {wrong.sum()} of {count} labels differ from the clean test set's, the first at "
            f"image {int(np.argmax(wrong))}",
            "Expected the same images in the same order.",
        )

    arrays = {}
    for name in names:
        path = os.path.join(folder, f"{name}.npy")
        array = _memory_map(path)
        if array.dtype != np.uint8 or array.shape != (rows, *image_shape):
            expected = f"uint8 {[rows, *image_shape]}"
            raise DataError(f"{path} is {array.dtype} {list(array.shape)}, expected {expected}")
        arrays[name] = array
    labels = blocks[0].astype(np.int32)

    def read(name: str, severity: int) -> Split:
        _check_request(names, name, severity)
        first = (severity - 1) * count
        return Split(arrays[name][first : first + count], labels)

    return Published("arrays", folder, tuple(names), read)


def _check_request(names: Sequence[str], name: str, severity: int) -> None:
    if name not in names or severity not in SEVERITIES:
        raise DataError(f"no {name!r} at severity {severity!r}; severities are 1 to 5, opened: {', '.join(names)}")


def open_folders(
    folder: str,
    *,
    class_names: Sequence[str] = (),
    clean_labels: np.ndarray | None = None,
    image_shape: tuple[int, int, int] = (64, 64, 3),
    names: Sequence[str] = NAMES,
) -> Published:
    """Tiny-ImageNet-C as published: <corruption>/<severity>/<class>/*.JPEG.

    Args:
      folder: has one folder for each corruption.
      class_names: folder names in the order of the labels; by default sorted.
      clean_labels: int[m]; every class must have as many images as there.
      image_shape: (h, w, 3) of every image.
      names: corruptions that must be there.

    Returns:
      The opened set; a read decodes one corruption at one severity, ordered by class, then file name.

    Raises:
      DataError: folders missing, classes or files differing between severities, images of another size.
    """
    folder = os.path.expanduser(folder)
    wanted = [(name, severity) for name in names for severity in SEVERITIES]
    missing = [f"{n}/{s}" for n, s in wanted if not os.path.isdir(os.path.join(folder, n, str(s)))]
    if missing:
        shown = ", ".join(missing[:15]) + (", ..." if len(missing) > 15 else "")
        raise DataError(f"{folder} lacks {len(missing)} of {len(wanted)} folders: {shown}")

    reference: list[tuple[str, str]] = []
    for name, severity in wanted:
        path = os.path.join(folder, name, str(severity))
        classes = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
        expected = sorted(class_names) if class_names else sorted({item[0] for item in reference}) or classes
        if classes != expected or not classes:
            odd = sorted(set(classes) ^ set(expected))[:5]
            raise DataError(f"{path} has {len(classes)} class folders, expected {len(expected)}; differing: {odd}")
        files = [
            (one, file)
            for one in classes
            for file in sorted(os.listdir(os.path.join(path, one)))
            if file.lower().endswith(_PICTURES)
        ]
        reference = reference or files
        if files != reference or not files:
            odd = sorted("/".join(item) for item in set(files) ^ set(reference))[:3]
            first = os.path.join(folder, *map(str, wanted[0]))
            raise DataError(
                f"{path} has {len(files)} images, expected {len(reference)} as in {first}; differing: {odd}"
            )
    place = {one: i for i, one in enumerate(class_names or sorted({item[0] for item in reference}))}
    labels = np.array([place[one] for one, _ in reference], np.int32)
    _check_counts(folder, labels, clean_labels)

    def read(name: str, severity: int) -> Split:
        _check_request(names, name, severity)
        path = os.path.join(folder, name, str(severity))
        images = np.empty((len(reference), *image_shape), np.uint8)
        for i, item in enumerate(reference):
            file = os.path.join(path, *item)
            try:
                with Image.open(file) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
            except (OSError, SyntaxError) as error:
                raise DataError(f"{file} is not a readable picture ({error})") from None
            if pixels.shape != tuple(image_shape):
                raise DataError(f"{file} is {list(pixels.shape)}, expected {list(image_shape)}")
            images[i] = pixels
        return Split(images, labels)

    return Published("folders", folder, tuple(names), read)


def open_tfds(
    data_dir: str,
    *,
    clean_labels: np.ndarray | None = None,
    num_classes: int = 10,
    names: Sequence[str] = NAMES,
) -> Published:
    """tfds cifar10_corrupted, prepared as array_record: <data_dir>/cifar10_corrupted/<corruption>_<severity>/<version>.

    tfds calls glass_blur frosted_glass_blur and elastic_transform elastic, and stores images in an order of its own.

    Args:
      data_dir: the tfds data folder.
      clean_labels: int[m]; every class must have as many images as there.
      num_classes: labels are below.
      names: corruptions that must be there, by our names.

    Returns:
      The opened set; a read decodes one corruption at one severity.

    Raises:
      DataError: tfds is not installed; a set is missing, of another file format, or damaged.
    """
    data_dir = os.path.expanduser(data_dir)
    root = os.path.join(data_dir, "cifar10_corrupted")
    wanted = {(name, severity): f"{TFDS_NAMES[name]}_{severity}" for name in names for severity in SEVERITIES}
    versions = {}
    for item, config in wanted.items():
        path = os.path.join(root, config)
        whole = [v for v in _listdir(path) if os.path.isfile(os.path.join(path, v, "dataset_info.json"))]
        if whole:
            latest = max(whole, key=lambda version: [int(part) for part in version.split(".") if part.isdigit()])
            versions[item] = os.path.join(path, latest)
    missing = [config for item, config in wanted.items() if item not in versions]
    if missing:
        shown = ", ".join(missing[:15]) + (", ..." if len(missing) > 15 else "")
        raise DataError(f"{root} lacks {len(missing)} of {len(wanted)} prepared sets: {shown}")
    for path in versions.values():
        info = os.path.join(path, "dataset_info.json")
        try:
            with open(info) as file:
                found = json.load(file).get("fileFormat")
        except ValueError as error:
            raise DataError(f"{info} is damaged ({error})") from None
        if found != "array_record":
            raise DataError(f"{path} is in the file format {found}, expected array_record")

    def read(name: str, severity: int) -> Split:
        _check_request(names, name, severity)
        path = versions[name, severity]
        try:
            import tensorflow_datasets as tfds  # optional, and slow to import
        except ImportError:
            raise DataError(
                f"reading {path} needs tensorflow-datasets", "Run: pip install tensorflow-datasets"
            ) from None
        try:
            check_metadata(Path(path))
            source = tfds.builder_from_directory(path).as_data_source(split="test")
            examples = [source[i] for i in range(len(source))]
            images = np.stack([example["image"] for example in examples])
            labels = np.array([example["label"] for example in examples], np.int32)
        except Exception as error:  # tfds and array_record raise many kinds for a damaged set
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{path} can't be read as a tfds set", f"tfds says: {reason}") from None
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
            raise DataError(f"{path} holds {images.dtype} {list(images.shape)}, expected uint8 [n, 32, 32, 3]")
        _check_labels(path, labels, num_classes)
        _check_counts(path, labels, clean_labels)
        return Split(images, labels)

    return Published("tfds", data_dir, tuple(names), read)


def _listdir(path: str) -> list[str]:
    return os.listdir(path) if os.path.isdir(path) else []
