"""Data sets by name: decoded, checked, in host memory as uint8.

    dataset = load("cifar10", data_dir="~/tensorflow_datasets", val_size=5000)
    dataset.splits["train"].images     # u8[45000 32 32 3]
    dataset.splits["val"].labels       # i32[5000]

`DATASETS` is the table of names; a row holds the loader and what is known of the set without its data. To add one:
a file with its loader (or its `PublicSet`), and a line here.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sem_jax.data import splits as _splits
from sem_jax.data.arrays import load_arrays
from sem_jax.data.cifar import CIFAR10, CIFAR100
from sem_jax.data.digits import IMAGE_SIZE, MEAN, NUM_CLASSES, STD, TEST_SIZE, TRAIN_SIZE, load_digits
from sem_jax.data.image_folder import load_image_folder
from sem_jax.data.public import Loaded, PublicSet, load_public
from sem_jax.data.sources import read_array_pair, read_image_tree
from sem_jax.data.svhn import SVHN_CROPPED
from sem_jax.data.tfds import load_tfds
from sem_jax.data.tiny_imagenet import TINY_IMAGENET
from sem_jax.errors import DataError
from sem_jax.interfaces import Dataset
from sem_jax.registry import lookup

__all__ = ["DATASETS", "PUBLIC", "Source", "load", "read_array_pair", "read_image_tree"]


class Source(NamedTuple):
    """One data set: its loader, and the facts that don't need its data (None where only the data tells)."""

    load: Callable[..., Loaded]
    num_classes: int | None = None
    image_size: int | None = None
    channels: int | None = None
    train_size: int | None = None  # images of the official train split, validation part included
    test_size: int | None = None
    mean: tuple[float, ...] | None = None  # per channel, of pixels in [0, 1]
    std: tuple[float, ...] | None = None
    streams: bool = False  # the loader takes `stream` and `eval_crop`: images can stay encoded on disk


def _public(spec: PublicSet) -> Source:
    return Source(
        load=functools.partial(_load_fixed_size, spec),
        num_classes=spec.num_classes,
        image_size=spec.image_size,
        channels=3,
        train_size=spec.sizes["train"],
        test_size=spec.sizes["test"],
        mean=spec.mean,
        std=spec.std,
        streams=True,
    )


def _load_fixed_size(
    spec: PublicSet, *, image_size: int = 0, stream: bool | None = False, eval_crop: float = 1.0, **options
) -> Loaded:
    return load_public(spec, stream=bool(stream), **options)  # None: these sets fit any machine's memory


PUBLIC = {spec.name: spec for spec in (CIFAR10, CIFAR100, TINY_IMAGENET, SVHN_CROPPED)}  # those `prepare` can make

DATASETS = {
    "digits": Source(load_digits, NUM_CLASSES, IMAGE_SIZE, 1, TRAIN_SIZE, TEST_SIZE, MEAN, STD),
    "cifar10": _public(CIFAR10),
    "cifar100": _public(CIFAR100),
    "tiny_imagenet": _public(TINY_IMAGENET),
    "svhn_cropped": _public(SVHN_CROPPED),
    "image_folder": Source(load_image_folder, channels=3, streams=True),
    "tfds": Source(load_tfds, channels=3, streams=True),
    "arrays": Source(load_arrays),
}


def load(
    name: str,
    *,
    data_dir: str = "",
    val_size: int = 0,
    val_seed: int = 0,
    train_size: int = 0,
    image_size: int = 0,
    splits: Sequence[str] = ("train", "test"),
    cache: bool = True,
    prepare: bool = True,
    stream: bool | None = False,
    eval_crop: float = 1.0,
) -> Dataset:
    """Reads, checks and, if asked, splits a data set.

    Args:
      name: a key of DATASETS.
      data_dir: where to look first (public sets: also a raw archive or folder), or the folder of one's own images.
      val_size: images held out of train as `splits["val"]`, class-balanced; 0 for none.
      val_seed: of the choice of these images.
      train_size: images of train, after val is held out, that are kept, class-balanced; 0 for all.
      image_size: 0, or the size images of an image_folder are brought to; other sets have their own.
      splits: which of "train" and "test" to read; an evaluation may do with ("test",). Without train, mean and std of
        image_folder and arrays are those of test: use the ones of the training run instead.
      cache: keep decoded arrays in $SEM_JAX_CACHE (default ~/.cache/sem_jax).
      prepare: download and prepare a public set that is not there.
      stream: True leaves the images encoded on disk, as `stream.StreamedImages`; None does so where they would take
        too much of this machine's memory. Every image is decoded once for a check, the statistics and the
        fingerprint, which are those of the same images in memory; the outcome is kept in the cache.
      eval_crop: share of the shorter side that the centre crop of streamed images keeps.

    Returns:
      Dataset; images u8[n h w c], labels i32[n].

    Raises:
      ConfigError: an unknown name.
      DataError: data missing, damaged or of the wrong kind, or a val_size that can't be; names file or field.
    """
    source = lookup(DATASETS, "data set", name)
    if image_size and source.image_size and image_size != source.image_size:
        message = f"data.image_size={image_size}, but images of {name} have {source.image_size}x{source.image_size}"
        raise DataError(message, "Set data.image_size=0; only image_folder is resized.")
    if not splits or set(splits) - {"train", "test"}:
        raise DataError(f"splits={list(splits)}, expected one or both of 'train' and 'test'")
    if val_size and "train" not in splits:
        raise DataError(f"data.val_size={val_size}, but the train split is not read")
    options = {"stream": stream, "eval_crop": eval_crop} if source.streams else {}
    if stream and not options:
        known = ", ".join(row for row, other in DATASETS.items() if other.streams)
        raise DataError(f"{name} is not read as a stream; these are: {known}", "Set runtime.residency=auto.")
    loaded = source.load(
        data_dir=data_dir, splits=tuple(splits), image_size=image_size, cache=cache, prepare=prepare, **options
    )
    out = dict(loaded.splits)
    for split, value in out.items():
        where = f"{name} {split}" + (f" ({data_dir})" if data_dir else "")
        _splits.check_split(value, len(loaded.class_names), where, every_class=split == "train")
    if val_size:
        train, val = _splits.hold_out(out["train"], val_size=val_size, seed=val_seed)
        out = {"train": train, "val": val} | {k: v for k, v in out.items() if k != "train"}
    if train_size and "train" in out:
        out["train"] = _splits.take_balanced(out["train"], size=train_size)
    mean, std = loaded.mean, loaded.std
    if mean is None:
        mean, std = _splits.channel_stats(out["train" if "train" in out else "test"].images)
    return Dataset(name, out, loaded.class_names, mean, std, _splits.fingerprint(out, loaded.class_names))
