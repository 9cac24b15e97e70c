"""Pairs of images and labels in .npy or .npz files, as evaluation sets are published.

Nothing is unpickled. A DataError names a file that cannot be used.
"""

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from sem_jax.data.files import TOTAL_LIMIT
from sem_jax.data.images import memory_of_machine
from sem_jax.data.refusing import reading_path, refusing, regular
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

_IMAGE_KEYS, _LABEL_KEYS = ("images", "data", "x"), ("labels", "targets", "y")
Check = Callable[[np.dtype, tuple[int, ...]], None]
_SAVE = "Save it again as a plain array: numpy.save(path, array)."
_SAVE_PAIR = "Save it with numpy.savez(path, images=..., labels=...)."


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """u8[n h w] or u8[n h w c] -> u8[n h w c]; DataError for anything else."""
    _check_images(array.dtype, array.shape, where)
    return array if array.ndim == 4 else array[..., None]


def _check_images(dtype: np.dtype, shape: tuple[int, ...], where: str) -> None:
    if dtype != np.uint8 or len(shape) not in (3, 4):
        message = f"{where} holds {dtype}{list(shape)}, expected uint8 [n h w] or [n h w c]"
        raise DataError(message, "Save the pixels as uint8 0..255, channels last.")
    if len(shape) == 4 and shape[-1] > 4:
        message = f"{where} has shape {list(shape)}: {shape[-1]} channels, expected 1 to 4, channels last"
        raise DataError(message, "Transpose it to [n h w c].")


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


def load_npy(path: Path, check: Check = lambda dtype, shape: None) -> np.ndarray:
    """The array of a .npy file that fits in memory; DataError if it is missing, damaged or holds objects.

    `check(dtype, shape)` may raise before the values are read.
    """
    limit = int(min(memory_of_machine(), 1 << 62))
    size = regular(path, limit, "Expected a pair of files: <name>_data.npy and <name>_labels.npy.")
    with refusing(f"cannot read {path}", "Make it readable."), path.open("rb") as file:
        return read_npy(file, size, str(path), check)


def read_npy(file: IO[bytes], size: int, where: str, check: Check = lambda dtype, shape: None) -> np.ndarray:
    """An array in NumPy's format from a file of `size` bytes, which messages call `where`; `check` as in `load_npy`.

    No memory is allocated before the file is known to have the size that the header's dtype and shape need.

    Raises:
      DataError: the file is no NumPy array, holds objects or arrays of arrays, or has another size.
    """
    dtype, shape, fortran, start = read_npy_header(file, size, where)
    check(dtype, shape)
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
    if dtype.subdtype is not None:
        raise DataError(f"{where} holds {dtype!s:.80}, expected plain numbers", _SAVE)
    start = file.tell()
    needed = math.prod(shape) * dtype.itemsize  # Python's integers cannot overflow
    if dtype.itemsize == 0 or any(not 0 <= n <= size for n in shape) or needed != size - start:
        found = f"{size} bytes, too {'few' if needed > size - start else 'many'} for the {dtype} {list(shape)}"
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
    with reading_path(path):
        return _read_pair(Path(path).expanduser())


def _read_pair(path: Path) -> Split:
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
    labels_path = path.with_name(path.name.removesuffix("_data.npy") + "_labels.npy")

    def check(dtype: np.dtype, shape: tuple[int, ...]) -> None:
        _check_images(dtype, shape, str(path))
        labels.append(as_labels(load_npy(labels_path), shape[0], str(labels_path)))

    labels: list[np.ndarray] = []
    images = as_images(load_npy(path, check), str(path))
    return Split(images, labels[0])


def _read_npz(path: Path) -> Split:
    regular(path, TOTAL_LIMIT, "Give an .npz with the keys images and labels.")
    with refusing(f"{path} is not a readable .npz file", _SAVE_PAIR), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise DataError(f"{path} has two members of one name", _SAVE_PAIR)
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
