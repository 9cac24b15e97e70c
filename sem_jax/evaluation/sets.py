"""The data sets that a checkpoint is scored on beside its own: where they are looked for and how they are read.

    found, absent = standard_shift(run, places, home)  # those that are there, and a line for each that is not
    read_given_shift(run, "CINIC-10", "cinic10/")      # what --shift and --ood name

Nothing is downloaded. Names are truthful: a part of a set says how many images it has, and what was done to images of
another size stands in the note.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sem_jax import data as data_lib
from sem_jax.data.decoded_cache import cached
from sem_jax.data.files import is_archive, open_files
from sem_jax.data.images import decode, is_image
from sem_jax.data.public import identity
from sem_jax.data.sources import as_images, load_npy
from sem_jax.errors import DataError
from sem_jax.interfaces import Split
from sem_jax.runs.opening import Run


class EvalSet(NamedTuple):
    """Images of the model's size and channels. Labels of an OOD set mean nothing."""

    name: str
    split: Split
    note: str = ""


class Absent(NamedTuple):
    """A set, or a suite, that is not there."""

    name: str
    reason: str
    remedy: str


class _Shift(NamedTuple):
    name: str
    files: tuple[str, ...]  # relative to a place
    size: int
    url: str


SHIFT = {
    "cifar10": (
        _Shift("CIFAR-10.1 v4", ("cifar10.1_v4_data.npy",), 2021, "https://github.com/modestyachts/CIFAR-10.1"),
        _Shift("CIFAR-10.1 v6", ("cifar10.1_v6_data.npy",), 2000, "https://github.com/modestyachts/CIFAR-10.1"),
        _Shift("CIFAR-10.2", ("cifar102_test.npz",), 2000, "https://github.com/modestyachts/cifar-10.2"),
    )
}
_SHIFT_FOLDERS = ("", "cifar10.1", "CIFAR-10.1", "CIFAR-10.1/datasets", "cifar10.2", "cifar-10.2", "CIFAR-10.2")


class _Ood(NamedTuple):
    name: str
    folders: tuple[str, ...]  # relative to a place; the first that has images is read
    remedy: str


_ODIN = "unpack {} of https://github.com/facebookresearch/odin into {{place}}"
OOD = (
    _Ood("LSUN-Crop", ("LSUN", "LSUN_C", "LSUN_crop"), _ODIN.format("LSUN.tar.gz")),
    _Ood("LSUN-Resize", ("LSUN_resize", "LSUN_R"), _ODIN.format("LSUN_resize.tar.gz")),
    _Ood(
        "Textures",
        ("dtd/images", "dtd", "Textures", "textures"),
        "unpack https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz into {place}",
    ),
    _Ood(
        "Places365",
        ("places365", "Places365", "val_256"),
        "unpack http://data.csail.mit.edu/places/places365/val_256.tar into {place}",
    ),
)
_SVHN_TEST = 26_032
_CROPPED = {"LSUN-Crop"}  # its 36x36 images have the 32x32 crop in a border of 2 pixels


def check(run: Run, found: EvalSet, *, labelled: bool) -> EvalSet:
    """The set, once its images fit the model, and for a labelled set its labels the classes.

    Raises:
      DataError: size, channels or labels that do not fit.
    """
    images, labels = found.split
    if not len(images):
        raise DataError(f"{found.name} has no images")
    if images.shape[1:] != run.data.image_shape:
        raise DataError(
            f"{found.name}: images are {_size(images.shape[1:])}, those of training {_size(run.data.image_shape)}",
            "Bring the images to that size first: a labelled set is not resized silently.",
        )
    if labelled:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(run.data.class_names):
            what = "has images without a class folder" if low < 0 else f"has labels up to {high}"
            remedy = f"Expected the model's {len(run.data.class_names)} classes, numbered from 0 or as folder names."
            raise DataError(f"{found.name} {what}", remedy)
    return found


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"


def standard_shift(run: Run, places: Sequence[Path], home: Path) -> tuple[list[EvalSet], list[Absent]]:
    """CIFAR-10.1 and CIFAR-10.2, for a model of CIFAR-10's classes; ([], []) for others.

    Args:
      run: the run to score.
      places: where sets are looked for; home: the one to put them in.
    """
    found, absent = [], []
    for item in SHIFT.get(run.data.name, ()):
        paths = [p / sub / file for p in places for sub in _SHIFT_FOLDERS for file in item.files]
        there = next((path for path in paths if path.is_file()), None)
        if there is None:
            where = ", ".join(map(str, places))
            remedy = f"put {item.files[0]}{_labels_too(item.files[0])} of {item.url} into {home}"
            absent.append(Absent(item.name, f"no {item.files[0]} in {where}", remedy))
            continue
        try:
            found.append(check(run, _named(item.name, data_lib.read_array_pair(there), item.size), labelled=True))
        except DataError as error:
            absent.append(damaged(item.name, error))
    return found, absent


def _labels_too(file: str) -> str:
    return f" and {file.replace('_data', '_labels')}" if "_data" in file else ""


def damaged(name: str, error: Exception) -> Absent:
    """An error as a line: a damaged set gives no number."""
    reason, _, remedy = str(error).partition("\n")
    return Absent(name, reason, remedy or "Replace the file.")


def _named(name: str, split: Split, official: int) -> EvalSet:
    count = len(split.labels)
    return EvalSet(name if count == official else f"{name} ({count:,} images)", split)


def read_given_shift(run: Run, name: str, path: str) -> EvalSet:
    """A labelled set with the model's classes: an array pair, or an image folder whose folders are class names.

    Folders are resized only where the run resized its own (data.image_size), and in the same way.

    Raises:
      DataError: it is not there, damaged, or does not fit the model.
    """
    where = _existing(name, path)
    if _is_arrays(where):
        return check(run, EvalSet(name, data_lib.read_array_pair(where)), labelled=True)
    size = run.config.data.image_size
    split, _ = _tree(where, classes=run.data.class_names, image_size=size)
    note = f"resized to {size} pixels as in training" if size else ""
    return check(run, EvalSet(name, split, note), labelled=True)


def read_given_ood(run: Run, name: str, path: str) -> EvalSet:
    """A set without usable labels: a folder or archive of images, an array with or without labels, SVHN's .mat.

    Raises:
      DataError: it is not there or damaged, or has other channels than the model.
    """
    where = _existing(name, path)
    mat = where if where.suffix == ".mat" else where / "test_32x32.mat"
    if mat.is_file():
        return fitted(run, name, _load_svhn(mat.parent))
    if where.suffix == ".npy" and not _labels_of(where).is_file():
        images = as_images(load_npy(where), str(where))
        return fitted(run, name, Split(images, np.full(len(images), -1, np.int32)))
    if _is_arrays(where):
        return fitted(run, name, data_lib.read_array_pair(where))
    return _tree_fitted(run, name, where)


def standard_ood(run: Run, places: Sequence[Path], home: Path) -> Iterator[EvalSet | Absent]:
    """SVHN, LSUN-Crop, LSUN-Resize, Textures and Places365, read one by one, or why not."""
    if run.data.image_shape[2] != 3:
        reason = f"they are RGB, {run.data.name} has {_size(run.data.image_shape)}"
        yield Absent("the standard sets", reason, "Give others: --ood NAME=PATH")
        return
    if run.data.name != "svhn_cropped":
        yield _svhn(run, places)
    where = ", ".join(map(str, places))
    for item in OOD:
        folder = next((p / sub for p in places for sub in item.folders if (p / sub).is_dir()), None)
        if folder is None:
            yield Absent(item.name, f"no folder {item.folders[0]} in {where}", item.remedy.format(place=home))
            continue
        try:
            yield _tree_fitted(run, item.name, folder, crop=item.name in _CROPPED)
        except DataError as error:
            yield damaged(item.name, error)


def _load_svhn(place: Path) -> Split:
    return data_lib.load("svhn_cropped", data_dir=str(place), splits=("test",), prepare=False).splits["test"]


def _svhn(run: Run, places: Sequence[Path]) -> EvalSet | Absent:
    error = None
    for place in [*places, *(place / "svhn" for place in places)]:
        try:
            split = _load_svhn(place)
        except DataError as refused:
            error = error or refused
            continue
        found = _named("SVHN", split, _SVHN_TEST)
        return fitted(run, found.name, split)
    return Absent("SVHN", str(error).partition("\n")[0], "python -m sem_jax prepare svhn_cropped")


def _existing(name: str, path: str) -> Path:
    where = Path(path).expanduser()
    pair = where.with_name(f"{where.name}_data.npy")  # a pair may be given by its common prefix
    if not where.exists() and not pair.is_file():
        raise DataError(f"{name}: {where} does not exist", "Give NAME=PATH: an array pair, an .npz or an image folder.")
    return where


def _labels_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix("_data.npy") + "_labels.npy")


def _is_arrays(path: Path) -> bool:
    if path.is_dir():
        return any(path.glob("*_data.npy"))
    return path.suffix in (".npy", ".npz") or not path.exists()


def _tree(path: Path, *, classes: Sequence[str] | None = None, image_size: int = 0) -> tuple[Split, tuple[str, ...]]:
    """`read_image_tree`, decoded once: tens of thousands of pictures take minutes."""
    about = identity(path, list(classes or ()), image_size)
    read = lambda: data_lib.read_image_tree(path, classes=classes, image_size=image_size)  # noqa: E731
    return cached(f"evaluation-{path.name}", about, read)


def _tree_fitted(run: Run, name: str, path: Path, *, crop: bool = False) -> EvalSet:
    """An image folder brought to the model's size; `crop`: cut out of the middle, not resized."""
    size = run.data.image_shape[0]
    if not (path.is_dir() or is_archive(path)):
        raise DataError(f"{name}: {path} is no folder, archive or array", "Give a folder of images or <name>_data.npy.")
    files = open_files(path)
    first = next((file for file in files.names if is_image(file)), None)
    shape = decode(files.read(first), files.where(first)).shape[:2] if first else (size, size)
    if crop or shape == (size, size):
        try:
            return fitted(run, name, _tree(path)[0], crop=crop)
        except DataError as error:
            if "differ in size" not in str(error):
                raise
    return fitted(run, name, _tree(path, image_size=size)[0], resized=True)


def fitted(run: Run, name: str, split: Split, *, crop: bool = False, resized: bool = False) -> EvalSet:
    """An OOD set brought to the model's size, which the note says; channels must agree.

    Larger images of LSUN-Crop are cut out of the middle; others are resized, shorter side first (antialiased), and
    then the middle cut out.

    Raises:
      DataError: other channels than the model's.
    """
    images = split.images
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
    made = np.stack([_resize(image, height, width) for image in images])
    note = f"{was} pixels, resized to {height}x{width} (shorter side, antialiased, middle)"
    return EvalSet(name, Split(made, split.labels), note)


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    scale = max(height / image.shape[0], width / image.shape[1])
    rows, columns = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    picture = picture.resize((columns, rows), Image.Resampling.BILINEAR)  # Pillow's resize is antialiased
    top, left = (rows - height) // 2, (columns - width) // 2
    return np.asarray(picture.crop((left, top, left + width, top + height))).reshape(height, width, -1)
