"""Reads other data sets to score a checkpoint on, checks them and brings images to the model's size.

Nothing is downloaded. The name of a part of a set says how many images it has. The note of a set says how images of
another size were changed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sem_jax import data as data_lib
from sem_jax.data.decoded_cache import cached, identity
from sem_jax.data.files import is_archive, open_files
from sem_jax.data.images import cover, decode, is_image
from sem_jax.errors import DataError
from sem_jax.evaluation.early import size_text
from sem_jax.interfaces import Split
from sem_jax.runs.opening import Run


class EvalSet(NamedTuple):
    """Images of the model's size and channels, and labels, which are not used for OOD sets."""

    name: str
    split: Split
    note: str = ""


class Absent(NamedTuple):
    """A set that is not there or is damaged. The report has a line for it."""

    name: str
    reason: str
    remedy: str


class Standard(NamedTuple):
    """A published set: where to find it and how to read it."""

    name: str
    what: str  # a file name, or "folder NAME"
    places: tuple[str, ...]  # below a folder of data sets; the first that exists is read
    remedy: str  # with {home} for the folder to put it in
    read: Callable[[Run, Path], EvalSet]


def check(run: Run, found: EvalSet, *, labelled: bool) -> EvalSet:
    """Returns the set.

    Raises:
      DataError: it is empty, or size, channels or, if `labelled`, labels do not fit the model.
    """
    images, labels = found.split
    if not len(images):
        raise DataError(f"{found.name} has no images")
    if images.shape[1:] != run.data.image_shape:
        sizes = f"images are {size_text(images.shape[1:])}, those of training {size_text(run.data.image_shape)}"
        remedy = "Bring the images to that size first: a labelled set is not resized silently."
        raise DataError(f"{found.name}: {sizes}", remedy)
    if labelled:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(run.data.class_names):
            what = "has images without a class folder" if low < 0 else f"has labels up to {high}"
            remedy = f"Expected the model's {len(run.data.class_names)} classes, numbered from 0 or as folder names."
            raise DataError(f"{found.name} {what}", remedy)
    return found


def named(name: str, split: Split, official: int) -> EvalSet:
    """The set; its name says how many images it has if that is not the official number."""
    count = len(split.labels)
    return EvalSet(name if count == official else f"{name} ({count:,} images)", split)


def load_svhn(place: Path) -> Split:
    """Reads SVHN's test digits, in any published format, from a folder.

    Raises:
      DataError: they are not there, or damaged.
    """
    options = {"data_dir": str(place), "splits": ("test",), "reading": data_lib.Reading(download=False)}
    return data_lib.load("svhn_cropped", **options).splits["test"]


def read_tree(path: Path, *, classes: Sequence[str] | None = None, image_size: int = 0) -> Split:
    """`read_image_tree` with a cache, since decoding tens of thousands of pictures takes minutes."""
    about = identity(path, list(classes or ()), image_size)
    read = lambda: data_lib.read_image_tree(path, classes=classes, image_size=image_size)  # noqa: E731
    return cached(f"evaluation-{path.name}", about, read)[0]


def read_tree_fitted(run: Run, name: str, path: Path, *, crop: bool = False) -> EvalSet:
    """Reads an image folder or archive and brings it to the model's size, as `fitted` does."""
    size = run.data.image_shape[0]
    if not (path.is_dir() or is_archive(path)):
        raise DataError(f"{name}: {path} is no folder, archive or array", "Give a folder of images or <name>_data.npy.")
    files = open_files(path)
    first = next((file for file in files.names if is_image(file)), None)
    shape = decode(files.read(first), files.where(first)).shape[:2] if first else (size, size)
    if crop or shape == (size, size):
        try:
            return fitted(run, name, read_tree(path), crop=crop)
        except DataError as error:
            if "differ in size" not in str(error):
                raise
    return fitted(run, name, read_tree(path, image_size=size), resized=True)


def fitted(run: Run, name: str, split: Split, *, crop: bool = False, resized: bool = False) -> EvalSet:
    """Brings an OOD set to the model's size; the note says how.

    Args:
      crop: cut the middle out of larger images. Otherwise the shorter side is resized (antialiased) before that.
      resized: whether the images were resized when they were read.

    Raises:
      DataError: the number of channels differs from the model's.
    """
    images = np.asarray(split.images)
    height, width, channels = run.data.image_shape
    if images.shape[3] != channels:
        raise DataError(f"{name} has {images.shape[3]} channels, the model was trained on {channels}")
    if images.shape[1:3] == (height, width):
        note = f"resized to {height} pixels (shorter side, antialiased) and cropped to the middle" if resized else ""
        return check(run, EvalSet(name, split, note), labelled=False)
    was = f"{images.shape[1]}x{images.shape[2]}"
    if crop and images.shape[1] >= height and images.shape[2] >= width:
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        cut = np.ascontiguousarray(images[:, top : top + height, left : left + width])
        return EvalSet(name, Split(cut, split.labels), f"{was} pixels, the middle {height}x{width} cut out")
    made = np.stack([cover(image, height, width) for image in images])
    note = f"{was} pixels, resized to {height}x{width} (shorter side, antialiased, middle)"
    return EvalSet(name, Split(made, split.labels), note)
