"""Images that stay encoded on disk and can be indexed like an array; indexing reads and decodes them.

    images = RecordImages(records, 224, identity)
    images.shape, len(images)                           # (1281167, 224, 224, 3)
    images[rows]                                        # u8[b 224 224 3]: shorter side resized, centre cropped
    images.cropped(rows, seed=0, epoch=3, scale=0.08)   # u8[b 224 224 3]: random resized crops

A `Split` holds one in place of an array when the decoded set would not fit in memory. A crop is a function of seed,
epoch and item alone.
"""

import copy
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Protocol

import numpy as np

from sem_jax.data.decoded_cache import kept, place_of
from sem_jax.data.images import THREADS, decode, gather, memory_of_machine
from sem_jax.data.splits import histogram

HOST_SHARE = 0.4  # share of the machine's memory that decoded images may take; larger sets stay encoded
RATIO = (3 / 4, 4 / 3)  # width / height of a random resized crop, log-uniform
CHUNK = 256  # images decoded at a time when a whole set is scanned


class Records(Protocol):
    """Encoded images by number. Can be pickled, since worker processes read them too."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded image; a DataError names the file if it cannot be read."""
        ...

    def where(self, index: int) -> str:
        """File (and record), for error messages."""
        ...


class RecordImages:
    """u8[n h w 3] decoded on demand.

    Args:
      records: the encoded images.
      image_size: as `images.decode` takes it; with 0 all images must have the size of the first.
      identity: JSON value that changes whenever the files do; the cache of `scan` depends on its hash.
      eval_crop: as `images.decode` takes it.
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, records: Records, image_size: int, identity, *, eval_crop: float = 1.0):
        self.records, self._size, self._share = records, image_size, eval_crop
        self._identity = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        self.rows = np.arange(len(records))
        one = (image_size, image_size, 3) if image_size else decode(records.read(0), records.where(0)).shape
        self.shape = (len(records), *one)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def select(self, rows) -> "RecordImages":
        """Some of the images; nothing is read."""
        part = copy.copy(self)
        part.rows = self.rows[rows]
        part.shape = (len(part.rows), *self.shape[1:])
        return part

    def __getitem__(self, rows) -> np.ndarray:
        """u8[b h w 3], centre cropped and decoded by THREADS threads; for a single number u8[h w 3]."""
        chosen = self.rows[rows]
        if np.ndim(chosen) == 0:
            return self._decode(int(chosen))
        return self._fill(chosen, self._decode, threads=THREADS)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def batch(self, rows) -> np.ndarray:
        """`self[rows]`, decoded by one thread."""
        return self._fill(self.rows[rows], self._decode)

    def cropped(self, rows, *, seed: int, epoch: int, scale: float) -> np.ndarray:
        """Random resized crops (Szegedy et al. 2015), u8[b h w 3], not mirrored and decoded by one thread.

        Args:
          rows: i[b], numbers of items; an item's crop depends on its number, `seed` and `epoch`.
          scale: smallest share of the image's area, in (0, 1]; the largest is 1.
        """

        def one(index: int) -> np.ndarray:
            key = np.array([seed << 32 | epoch, index], np.uint64)
            generator = np.random.Generator(np.random.Philox(key=key))
            box = functools.partial(draw_crop, generator, scale=scale)
            return decode(self.records.read(index), self.records.where(index), self._size, box=box)

        return self._fill(self.rows[rows], one)

    def scan(self) -> tuple[str, np.ndarray]:
        """(hex SHA-256 as `splits.digest`, i64[3 256] histogram). Every image is decoded; the cache keeps the result.

        An image that cannot be decoded is refused here, before training starts.
        """
        import PIL  # the pixels depend on its JPEG decoder

        rows = hashlib.sha256(np.ascontiguousarray(self.rows).tobytes()).hexdigest()
        about = ["scan", PIL.__version__, self._identity, rows, self._size, self._share, list(self.shape)]
        found = kept(place_of("encoded", about), ["histogram"], self._scan, other=["digest"])
        return found["digest"], found["histogram"]

    def _scan(self) -> dict:
        from sem_jax.system.progress import bar

        state = hashlib.sha256(f"{self.dtype.str}{list(self.shape)}".encode())
        counts = np.zeros((self.shape[-1], 256), np.int64)
        with bar(total=len(self), desc="checking images", unit="img", leave=False) as shown:
            for first in range(0, len(self), CHUNK):
                images = self[first : first + CHUNK]
                state.update(np.ascontiguousarray(images).data.cast("B"))
                counts += histogram(images)
                shown.update(len(images))
        return {"digest": state.hexdigest(), "histogram": counts}

    def _decode(self, index: int) -> np.ndarray:
        return decode(self.records.read(index), self.records.where(index), self._size, eval_crop=self._share)

    def _fill(self, rows: np.ndarray, image: Callable[[int], np.ndarray], threads: int = 1) -> np.ndarray:
        where, numbers = self.records.where, rows.tolist()
        return gather(
            len(rows), lambda i: image(numbers[i]), lambda i: where(numbers[i]), self.shape[1:], where(0), threads
        )


def draw_crop(generator: np.random.Generator, width: int, height: int, *, scale: float) -> tuple[int, int, int, int]:
    """Box of a random resized crop: (left, top, right, bottom) in pixels.

    The area is uniform in [scale, 1] of the image, and width / height log-uniform in RATIO. After ten boxes that do not
    fit, it is the largest centred box with an allowed ratio.
    """
    low, high = np.log(RATIO)
    for _ in range(10):
        area = width * height * generator.uniform(scale, 1.0)
        ratio = np.exp(generator.uniform(low, high))
        w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(generator.integers(0, width - w + 1)), int(generator.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def too_large(count: int, image_size: int) -> bool:
    """Whether `count` decoded RGB images would take more than HOST_SHARE of this machine's memory."""
    return count * image_size**2 * 3 > HOST_SHARE * memory_of_machine()
