"""Makes images of a model's size from what users have: arrays, picture files, folders of both.

    images = from_array(array, (32, 32, 3))                        # u8[n 32 32 3]
    images = Inputs(list_inputs(["photos", "more.npy"]), (32, 32, 3))
    images.names, images[0:64]                                     # read when they are asked for

Pictures are resized as in training. Arrays are not: another size is refused.
"""

import functools
import io
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sem_jax.data.images import THREADS, cover, decode, holds_image, is_image
from sem_jax.data.npy_files import read_npy_header
from sem_jax.errors import DataError, one_line
from sem_jax.system.urls import require_local

Shape = tuple[int, int, int]  # height, width, channels
PICTURES = tuple(".jpg .jpeg .jpe .jfif .png .bmp .webp .gif .ppm .pgm .tif .tiff".split())
LARGEST = 1 << 30  # bytes of a picture file
HEAD = 1 << 20  # bytes of a file of another name that tell whether it is a picture


class Item(NamedTuple):
    """One image that is not read yet."""

    name: str  # the file; for row 3 of an array "images.npy[3]"
    read: Callable[[Shape, float], np.ndarray]  # (h, w, c), eval_crop -> u8[h w c]


class Inputs:
    """Images that are read when a batch of them is asked for; in memory are their names alone.

    Args:
      items: from `list_inputs`.
      shape: (h, w, c) of the model's images.
      eval_crop: share of a picture's shorter side that is kept, as `data.images.decode` takes it.
      skip_broken: an image that cannot be read is black and has an entry in `broken`; else it is an error.
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, items: Sequence[Item], shape: Shape, *, eval_crop: float = 1.0, skip_broken: bool = False):
        self._items, self._options, self._skip = items, (shape, eval_crop), skip_broken
        self.shape = (len(items), *shape)
        self.broken: dict[int, str] = {}  # row -> what is wrong with it

    def __len__(self) -> int:
        return len(self._items)

    @property
    def names(self) -> list[str]:
        """The name of every image."""
        return [item.name for item in self._items]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """u8[b h w c]."""
        with ThreadPoolExecutor(THREADS) as pool:
            return np.stack(list(pool.map(self._read, range(len(self))[rows])))

    def _read(self, row: int) -> np.ndarray:
        try:
            return self._items[row].read(*self._options)
        except DataError as error:
            if not self._skip:
                raise
            self.broken[row] = str(error).partition("\n")[0]
            return np.zeros(self.shape[1:], np.uint8)


def is_picture(given: Any) -> bool:
    """Whether `list_inputs` takes it: a path, or an image of PIL."""
    return isinstance(given, str | Path) or _is_pil(given)


def _is_pil(given: Any) -> bool:
    pil = sys.modules.get("PIL.Image")  # not imported here: whoever has an image of it has imported it
    return pil is not None and isinstance(given, pil.Image)


def list_inputs(paths: Iterable[Any]) -> list[Item]:
    """The images of picture files, of folders with pictures at any depth, of .npy files and of PIL, in this order.

    Of a folder the files are sorted by name. Hidden ones, those that may lie beside images (`images.BESIDE`, such as
    .txt) and those that neither are named like a picture nor begin like one are passed over. Pictures are not opened.

    Raises:
      DataError: a path that does not exist, or a folder without pictures.
    """
    items, paths = [], list(paths)
    for path in paths:
        if not is_picture(path):
            raise DataError(f"a {type(path).__name__} among pictures", "Give arrays alone, or pictures alone.")
        require_local("PATH", "" if _is_pil(path) else path)
    for number, given in enumerate(paths):
        if _is_pil(given):
            items.append(Item(f"image {number}", functools.partial(_read_pil, given, f"image {number}")))
            continue
        path = Path(given).expanduser()
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if is_image(file.name) and not file.is_dir())
            pictures = [file for file in found if file.suffix.lower() in PICTURES or _begins_like_one(file)]
            if not pictures:
                raise DataError(f"{path} holds no pictures", f"Known names end in {', '.join(PICTURES)}.")
            items += [_picture(file) for file in pictures]
        elif not path.exists():
            raise DataError(f"{path} does not exist", "Give picture files, folders of them, or .npy files.")
        else:
            items += _rows(path) if path.suffix == ".npy" else [_picture(path)]
    return items


def from_array(array: Any, shape: Shape, where: str = "images") -> np.ndarray:
    """u8[n h w c] of one image or several, in the size and channels of a model.

    Args:
      array: [n h w c], [n h w], [h w c] or [h w]. Integers in 0..255 are pixels; floats in [0, 1] are scaled to them
        and rounded. Grey images are repeated for a model of 3 channels, an alpha channel is left out, and for a model
        of one channel colours become luma (ITU-R 601).
      shape: (h, w, c) of the model's images.
      where: the array's name, for messages.

    Raises:
      DataError: values of another range or type, or images of another size.

    >>> from_array(np.full((2, 2), 0.2), (2, 2, 3)).tolist()
    [[[[51, 51, 51], [51, 51, 51]], [[51, 51, 51], [51, 51, 51]]]]
    """
    height, width, channels = shape
    size = (height, width)
    try:
        array = np.asarray(array)
    except ValueError as error:  # a list of arrays of several sizes
        raise DataError(f"{where}: no array can be made of the list: {one_line(error)}") from None
    if array.shape == size:
        array = array[None, ..., None]
    elif array.ndim == 3 and array.shape[:2] == size and array.shape[2] in (1, 3, 4, channels):
        array = array[None]
    elif array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[1:3] != size or not len(array):
        expected = f"expected [n, {height}, {width}, {channels}] with n >= 1, or one image [{height}, {width}, ...]"
        raise DataError(
            f"{where}: the array has shape {list(array.shape)}, {expected}",
            "Arrays are not resized. Picture files are, and so are folders of them.",
        )
    return _channels(_pixels(array, where), channels, where)


def _pixels(array: np.ndarray, where: str) -> np.ndarray:
    """The values as uint8."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "uif":
        raise DataError(f"{where}: values are {array.dtype}, expected uint8 in 0..255 or floats in [0, 1]")
    low, high = float(array.min()), float(array.max())
    whole = array.dtype.kind != "f"
    if not (low >= 0 and high <= (255 if whole else 1)):  # NaN is refused here too
        expected = "integers in 0..255" if whole else "floats in [0, 1] (or uint8 in 0..255)"
        raise DataError(
            f"{where}: values of {array.dtype} go from {low:g} to {high:g}, expected {expected}",
            "Undo the normalisation; the model's own is applied to the pixels.",
        )
    return (array if whole else np.round(array * 255)).astype(np.uint8)


def _channels(images: np.ndarray, channels: int, where: str) -> np.ndarray:
    """u8[... c] in the channels of a model."""
    found = images.shape[-1]
    if found == channels:
        return images
    if found == 4 and channels in (1, 3):
        images = images[..., :3]
    if found == 1 and channels == 3:
        return np.repeat(images, 3, axis=-1)
    if images.shape[-1] == 3 and channels == 1:  # as Pillow computes it
        weighted = images.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
        return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., None]
    if images.shape[-1] == channels:
        return images
    raise DataError(f"{where} has {found} channels, the model was trained on {channels}")


def _picture(path: Path) -> Item:
    return Item(str(path), functools.partial(_read_picture, path))


def _read_picture(path: Path, shape: Shape, eval_crop: float) -> np.ndarray:
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise DataError(f"{path} has {size:,} bytes, more than a picture of at most {LARGEST:,}")
        data = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    return _decoded(data, str(path), shape, eval_crop)


def _read_pil(picture: Any, name: str, shape: Shape, eval_crop: float) -> np.ndarray:
    """As of its file: the pixels go through PNG, which keeps them."""
    from PIL import ImageOps

    file, picture = io.BytesIO(), ImageOps.exif_transpose(picture)
    kept = picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
    (picture if kept else picture.convert("RGB")).save(file, "PNG")
    return _decoded(file.getvalue(), name, shape, eval_crop)


def _decoded(data: bytes, name: str, shape: Shape, eval_crop: float) -> np.ndarray:
    height, width, channels = shape
    square = height == width
    image = decode(data, name, height if square else 0, eval_crop=eval_crop if square else 1.0)
    image = image if image.shape[:2] == (height, width) else cover(image, height, width)
    return _channels(image, channels, name)


def _rows(path: Path) -> list[Item]:
    """The rows of an array in a file, which stays on disk."""
    if not path.is_file():
        raise DataError(f"{path} is no file")
    try:
        with path.open("rb") as file:
            dtype, shape, _, _ = read_npy_header(file, path.stat().st_size, str(path))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(shape) not in (3, 4) or not shape[0]:
        raise DataError(f"{path} holds {dtype}{list(shape)}, expected [n h w] or [n h w c], n >= 1")
    names = (f"{path}[{row}]" for row in range(shape[0]))
    return [Item(name, functools.partial(_read_row, array, row, name)) for row, name in enumerate(names)]


def _read_row(array: np.ndarray, row: int, name: str, shape: Shape, eval_crop: float) -> np.ndarray:
    del eval_crop
    return from_array(array[row : row + 1], shape, name)[0]


def _begins_like_one(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False  # a pipe would be waited for
        with path.open("rb") as file:
            return holds_image(file.read(HEAD))
    except OSError:
        return True  # the reader says what is wrong
