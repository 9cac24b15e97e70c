"""Pairs of images and labels in .npy or .npz files, as evaluation sets are published.

Nothing is unpickled. A DataError names a file that cannot be used.
"""

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from sem_jax.data.files import TOTAL_LIMIT
from sem_jax.data.refusing import refusing
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

_IMAGE_KEYS, _LABEL_KEYS = ("images", "data", "x"), ("labels", "targets", "y")
_SAVE = "Save it again as a plain array: numpy.save(path, array)."
_SAVE_PAIR = "Save it with numpy.savez(path, images=..., labels=...)."


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """u8[n h w] or u8[n h w c] -> u8[n h w c]; DataError for anything else."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        message = f"{where} holds {array.dtype}{list(array.shape)}, expected uint8 [n h w] or [n h w c]"
        raise DataError(message, "Save the pixels as uint8 0..255, channels last.")
    if array.ndim == 4 and array.shape[-1] > 4:
        message = f"{where} has shape {list(array.shape)}: {array.shape[-1]} channels, expected 1 to 4, channels last"
        raise DataError(message, "Transpose it to [n h w c].")
    return array if array.ndim == 4 else array[..., None]


def as_labels(array: np.ndarray, count: int, where: str) -> np.ndarray:
    """Integer labels [n] or [n 1] -> i32[n]; DataError for another type or length."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        message = f"{where} holds {array.dtype}{list(array.shape)}, expected integers [n]"
        raise DataError(message, "Save one class number (0, 1, ...) for every image.")
    if len(array) != count:
        raise DataError(f"{where} has {len(array)} labels for {count} images", "Give one label for every image.")
    if count and (array.min() < -1 or array.max() > 1_000_000):
        raise DataError(f"{where} has labels from {array.min()} to {array.max()}, expected class numbers from 0")
    return array.astype(np.int32)


def load_npy(path: Path) -> np.ndarray:
    """The array of a .npy file; DataError if it is missing, damaged or holds objects."""
    if not path.is_file():
        raise DataError(f"{path} does not exist", "Expected a pair of files: <name>_data.npy and <name>_labels.npy.")
    with refusing(f"cannot read {path}", "Make it readable."), path.open("rb") as file:
        return read_npy(file, path.stat().st_size, str(path))


def read_npy(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """An array in NumPy's format from a file of `size` bytes, which messages call `where`.

    No memory is allocated before the file is known to be large enough for the header's dtype and shape.

    Raises:
      DataError: the file is no NumPy array, holds objects, or is too short.
    """
    dtype, shape, fortran, start = read_npy_header(file, size, where)
    needed = math.prod(shape) * dtype.itemsize
    data = file.read(needed)
    if len(data) != needed:
        raise DataError(f"{where} has {start + len(data)} bytes, its header says {start + needed}", _SAVE)
    array = np.frombuffer(bytearray(data), dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def read_npy_header(file: IO[bytes], size: int, where: str) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    """(dtype, shape, whether in Fortran order, bytes of the header) of the array that `read_npy` reads."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with refusing(f"{where} is not a readable .npy file", _SAVE):
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    if dtype.hasobject:
        raise DataError(f"{where} holds pickled objects, which are never loaded", _SAVE)
    start = file.tell()
    needed = math.prod(shape) * dtype.itemsize  # Python's integers cannot overflow
    if dtype.itemsize == 0 or any(not 0 <= n <= size for n in shape) or needed > size - start:
        found = f"{size} bytes, too few for the {dtype} {list(shape)}"
        raise DataError(f"{where} has {found:.120} of its header", _SAVE)
    return dtype, shape, fortran, start


def read_array_pair(path: str | os.PathLike) -> Split:
    """Split(u8[n h w c], i32[n]) from `<name>_data.npy` and `<name>_labels.npy`, as in CIFAR-10.1, or from an .npz.

    Args:
      path: the `_data.npy` file; the common prefix `<name>`; a folder with exactly one `*_data.npy`; or an .npz with
        the keys images (or data, x) and labels (or targets, y).

    Raises:
      DataError: a file is missing or damaged, holds pickled objects or another dtype or shape, or lengths differ.
    """
    path = Path(path).expanduser()
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.is_dir():
        found = sorted(path.glob("*_data.npy"))
        if len(found) != 1:
            message = f"{path} has {len(found)} files named *_data.npy, expected one"
            raise DataError(message, "Give the file itself: <name>_data.npy, with <name>_labels.npy beside it.")
        path = found[0]
    elif not path.name.endswith("_data.npy"):
        path = path.with_name(f"{path.name.removesuffix('.npy')}_data.npy")
    images = as_images(load_npy(path), str(path))
    labels_path = path.with_name(path.name.removesuffix("_data.npy") + "_labels.npy")
    return Split(images, as_labels(load_npy(labels_path), len(images), str(labels_path)))


def _read_npz(path: Path) -> Split:
    if not path.is_file():
        raise DataError(f"{path} does not exist", "Give an .npz with the keys images and labels.")
    with refusing(f"{path} is not a readable .npz file", _SAVE_PAIR), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        keys = [next((k for k in known if k in members), "") for known in (_IMAGE_KEYS, _LABEL_KEYS)]
        if not all(keys):
            expected = "expected images (or data, x) and labels (or targets, y)"
            raise DataError(f"{path} has the keys {', '.join(members)[:80]}; {expected}", _SAVE_PAIR)
        images, labels = (_read_member(archive, members[key], f"{path}: {key}") for key in keys)
    images = as_images(images, f"{path}: {keys[0]}")
    return Split(images, as_labels(labels, len(images), f"{path}: {keys[1]}"))


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    if info.file_size > TOTAL_LIMIT:
        raise DataError(f"{where} unpacks to {info.file_size} bytes", f"At most {TOTAL_LIMIT} are read from an .npz.")
    with archive.open(info) as member:
        return read_npy(member, info.file_size, where)
