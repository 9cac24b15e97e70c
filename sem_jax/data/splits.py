"""Checks, held-out part, statistics and fingerprint of the splits that a loader has read."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from unicodedata import category

import numpy as np

from sem_jax.errors import DataError
from sem_jax.interfaces import Images, Split


def check_split(split: Split, num_classes: int, where: str, *, every_class: bool = False) -> None:
    """Refuses a split that cannot be trained or scored on, with a DataError that names the file or folder `where`.

    Images must be u8[n h w c] with n >= 1, labels i32[n] in [0, num_classes). `every_class` asks for one of each.
    """
    images, labels = split
    dtype = images.dtype if isinstance(images, np.ndarray) else np.dtype(np.uint8)
    if len(images.shape) != 4 or dtype != np.uint8:
        raise DataError(f"{where}: images are {dtype}{list(images.shape)}, expected uint8 [n h w c]")
    if 0 in images.shape:
        raise DataError(f"{where}: no images (shape {list(images.shape)})", "Give a data set with at least one image.")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{where}: {len(images)} images but {labels.size} labels", "Give one label for every image.")
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
        message = f"{where}: label {labels[bad[0]]} of image {bad[0]} is out of range, expected 0..{num_classes - 1}"
        raise DataError(message, "Number the classes from 0, without gaps.")
    counts = np.bincount(labels, minlength=num_classes)
    if every_class and not counts.all():
        message = f"{where}: class {int(counts.argmin())} of {num_classes} has no image"
        raise DataError(message, "Number the classes from 0, without gaps, and give every class an image.")


def check_class_names(names: Sequence[str], where: str) -> None:
    """Refuses names that are empty, double, not UTF-8 or hold control characters, which a terminal would obey."""
    if odd := [name for name in names if not name.strip() or any(category(c) in ("Cc", "Cs") for c in name)]:
        message = f"{where}: the class name {odd[0]!r} is empty, not UTF-8 or has control characters"
        raise DataError(message, "Rename the class.")
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(f"{where}: {count} classes have the name {name!r}", "Give each class a name of its own.")


def hold_out(split: Split, *, val_size: int, seed: int) -> tuple[Split, Split]:
    """Takes `val_size` items out of a split: (the rest, the part taken out). Both keep the order of `split`.

    Class counts of the part differ by at most one. If a class is too small, larger ones give more, since every class
    keeps at least one item in the rest. `seed` is that of the NumPy generator that chooses.

    Raises:
      DataError: val_size is too small for one item a class, or leaves a class without items.
    """
    labels = split.labels
    counts = np.bincount(labels)
    classes = int((counts > 0).sum())
    if val_size < classes or val_size > len(labels) - classes:
        message = f"data.val_size={val_size} of {len(labels)} training images with {classes} classes"
        raise DataError(message, f"Give 0 (no validation part) or {classes} to {len(labels) - classes}.")
    rng = np.random.default_rng(seed)
    room = np.maximum(counts - 1, 0)
    quota = np.zeros_like(counts)
    while (left := val_size - quota.sum()) > 0:
        open_classes = np.flatnonzero(quota < room)
        share = left // len(open_classes)
        if share == 0:  # fewer items than classes: draw the classes that get one more
            quota[rng.choice(open_classes, left, replace=False)] += 1
        else:
            quota[open_classes] = np.minimum(quota[open_classes] + share, room[open_classes])
    chosen = np.zeros(len(labels), bool)
    for label, size in enumerate(quota):
        chosen[rng.choice(np.flatnonzero(labels == label), size, replace=False)] = True
    return _part(split, ~chosen), _part(split, chosen)


def _part(split: Split, rows: np.ndarray) -> Split:
    images = split.images[rows] if isinstance(split.images, np.ndarray) else split.images.select(rows)
    return Split(images, split.labels[rows])


def take_balanced(split: Split, *, size: int) -> Split:
    """A class-balanced part of a split, the same for every seed. A larger part holds every smaller one.

    Class counts differ by at most one, except that the other classes give more where a class runs out. A fixed
    permutation chooses, since neighbours in a file may resemble each other; the order of `split` is kept.

    Raises:
      DataError: `size` is less than an item a class, or more than there are.
    """
    labels = split.labels
    classes = len(np.unique(labels))
    if not classes <= size <= len(labels):
        message = f"data.train_size={size} of {len(labels)} training images with {classes} classes"
        raise DataError(message, f"Give 0 (all) or {classes} to {len(labels)}.")
    order = np.random.default_rng(0).permutation(len(labels))
    rank = np.empty(len(labels), np.int64)  # of each item within its class, in the permuted order
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    chosen = np.zeros(len(labels), bool)
    chosen[np.lexsort((labels, rank))[:size]] = True
    return _part(split, chosen)


def channel_stats(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per channel of pixels scaled to [0, 1], exact, from a histogram.

    std is at least 1/255, so that a constant channel can be divided by it.
    """
    values = np.arange(256) / 255.0
    mean, std = [], []
    for counts in histogram(images) if isinstance(images, np.ndarray) else images.scan()[1]:
        weight = counts / counts.sum()
        mean.append(float((weight * values).sum()))
        std.append(max(float(np.sqrt((weight * (values - mean[-1]) ** 2).sum())), 1 / 255))
    return tuple(mean), tuple(std)


def histogram(images: np.ndarray) -> np.ndarray:
    """Number of pixels with each value, for each channel of u8[n h w c]: i64[c 256]."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), 4096):  # bincount copies its input as int64, eight times its size
        for channel, row in enumerate(counts):
            row += np.bincount(images[start : start + 4096, ..., channel].ravel(), minlength=256)
    return counts


def digest(array: Images) -> str:
    """Hex SHA-256 of an array's dtype, shape and bytes; encoded images have that of their decoded array."""
    if not isinstance(array, np.ndarray):
        return array.scan()[0]
    state = hashlib.sha256(f"{array.dtype.str}{list(array.shape)}".encode())
    state.update(np.ascontiguousarray(array).data.cast("B"))
    return state.hexdigest()


def fingerprint(splits: Mapping[str, Split], class_names: Sequence[str]) -> str:
    """Hex SHA-256 over the digests of every split's images and labels, in order, and the class names."""
    arrays = [array for name in splits for array in splits[name]]
    with ThreadPoolExecutor(2) as pool:  # hashlib releases the interpreter lock
        digests = list(pool.map(digest, arrays))
    return hashlib.sha256(repr((list(splits), digests, list(class_names))).encode()).hexdigest()
