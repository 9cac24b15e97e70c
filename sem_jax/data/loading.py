"""`load`: reads a data set by name, checks it and splits it. `normalised_with`: another mean and deviation."""

from collections.abc import Sequence
from numbers import Integral

from sem_jax.data.facts import DATASETS, DEFAULT, PublicSet, Reading, Source
from sem_jax.data.refusing import reading_path
from sem_jax.data.splits import channel_stats, check_class_names, check_split, fingerprint, hold_out, take_balanced
from sem_jax.errors import ConfigError, DataError
from sem_jax.interfaces import Dataset
from sem_jax.registry import lookup
from sem_jax.system.urls import is_url

MAX_SIZE = 8192  # pixels of a side that images are resized to


def load(
    name: str,
    *,
    data_dir: str = "",
    splits: Sequence[str] = ("train", "test"),
    image_size: int = 0,
    val_size: int = 0,
    val_seed: int = 0,
    train_size: int = 0,
    reading: Reading = DEFAULT,
) -> Dataset:
    """Reads and checks a data set, and holds images out if asked.

    >>> dataset = load("digits", val_size=100, train_size=500)
    >>> {name: split.images.shape for name, split in dataset.splits.items()}
    {'train': (500, 8, 8, 1), 'val': (100, 8, 8, 1), 'test': (360, 8, 8, 1)}
    >>> dataset.mean
    (0.3054,)

    Args:
      name: a key of `DATASETS`.
      data_dir: folder of the user's own images; for a public set the place to look first, or its archive.
      splits: "train", "test" or both. Without train, mean and std of image_folder, tfds and arrays are those of test:
        use the ones of the training run instead.
      image_size: 0, or the size to bring the images of image_folder, tfds or hf to.
      val_size: images to hold out of train as `splits["val"]`, class-balanced; 0 for none.
      val_seed: seed of their choice.
      train_size: images of train to keep after val is held out, class-balanced; 0 for all.
      reading: cache, download, and whether images stay encoded on disk as `encoded.RecordImages`. Encoded images are
        all decoded once for a check, the statistics and the fingerprint, which equal those of arrays and are cached.

    Returns:
      Dataset; images u8[n h w c], labels i32[n].

    Raises:
      ConfigError: the name is unknown.
      DataError: data is missing, damaged or of the wrong kind, or val_size is impossible; names the file or field.
    """
    source = lookup(DATASETS, "data set", name)
    if image_size and source.image_size and image_size != source.image_size:
        message = f"data.image_size={image_size}, but images of {name} have {source.image_size}x{source.image_size}"
        raise DataError(message, "Set data.image_size=0; only images of image_folder, tfds and hf are resized.")
    numbers = {"image_size": image_size, "val_seed": val_seed, "val_size": val_size, "train_size": train_size}
    for field, value in numbers.items():
        if not isinstance(value, Integral) or value < 0:
            raise DataError(f"data.{field}={value!r}, expected an integer of 0 or more")
    if image_size > MAX_SIZE:
        raise DataError(f"data.image_size={image_size}, expected at most {MAX_SIZE}")
    if not 0 < reading.eval_crop <= 1:
        raise DataError(f"data.eval_crop={reading.eval_crop}, expected above 0 and at most 1")
    if source.own and not data_dir:
        raise DataError(f"data.dir is empty, but {name} needs a folder", "Give --config.data.dir=FOLDER.")
    if not splits or set(splits) - {"train", "test"}:
        raise DataError(f"splits={list(splits)}, expected one or both of 'train' and 'test'")
    if val_size and "train" not in splits:
        raise DataError(f"data.val_size={val_size}, but the train split is not read")
    if reading.encoded and not source.encodes:
        known = ", ".join(row for row, other in DATASETS.items() if other.encodes)
        raise DataError(f"images of {name} cannot stay encoded; those of {known} can", "Set runtime.residency=auto.")
    if reading.download:
        bring_data(name, data_dir)
    with reading_path(data_dir or name):
        loaded = source.load(source, _on_disk(source, data_dir), tuple(splits), image_size, reading)
    out = dict(loaded.splits)
    check_class_names(loaded.class_names, data_dir or name)
    if "train" in splits and len(loaded.class_names) < 2:
        message = f"{data_dir or name} has the classes {list(loaded.class_names)}, expected two or more"
        raise DataError(message, "Give images of another class.")
    for split, value in out.items():
        where = f"{name} {split}" + (f" ({data_dir})" if data_dir else "")
        check_split(value, len(loaded.class_names), where, every_class=split == "train")
    if val_size:
        train, val = hold_out(out["train"], val_size=val_size, seed=val_seed)
        out = {"train": train, "val": val} | {k: v for k, v in out.items() if k != "train"}
    if train_size and "train" in out:
        out["train"] = take_balanced(out["train"], size=train_size)
    mean, std = loaded.mean, loaded.std
    if mean is None or std is None:
        mean, std = channel_stats(out["train" if "train" in out else "test"].images)
    return Dataset(name, out, loaded.class_names, mean, std, fingerprint(out, loaded.class_names))


def bring_data(name: str, data_dir: str = "") -> None:
    """Copies a data set to this machine if `data_dir`, or for a public set $TFDS_DATA_DIR, is in a bucket.

    `load` does so with `reading.download`: else what a stranger's run names would be fetched.

    Raises:
      SemError: the bucket cannot be read, has nothing of the set, or too much.
    """
    source = lookup(DATASETS, "data set", name)
    if isinstance(source, PublicSet):
        from sem_jax.data.places import bring_set

        bring_set(source, data_dir)
    elif source.own and not data_dir.startswith("hf://") and is_url(data_dir):
        from sem_jax.data.bucket_data import bring

        bring(source, data_dir)


def _on_disk(source: Source, data_dir: str) -> str:
    """The folder of the user's own set on this machine."""
    if not source.own or data_dir.startswith("hf://") or not is_url(data_dir):
        return data_dir
    from sem_jax.data.bucket_data import here

    if not (folder := here(data_dir)).exists():
        remedy = f"Give --data-dir={data_dir}: what a run names in a bucket is not fetched unasked."
        raise DataError(f"{data_dir} has not been copied to this machine", remedy)
    return str(folder)


def normalised_with(dataset: Dataset, *, mean: Sequence[float] = (), std: Sequence[float] = ()) -> Dataset:
    """The data set with another mean and standard deviation, f32[c] of pixels in [0, 1], where they are given.

    Some published recipes divide by numbers that are not the data's, and pretrained weights want those that they were
    trained with. The run folder keeps what was used (data.json), and evaluation uses it.

    >>> normalised_with(load("digits"), std=(0.5,)).std
    (0.5,)

    Raises:
      ConfigError: not one number a channel.
    """
    given = {name: tuple(map(float, values)) for name, values in {"mean": mean, "std": std}.items() if values}
    channels = len(dataset.mean)
    for name, values in given.items():
        if len(values) != channels:
            raise ConfigError(f"data.{name} must be () or {channels} numbers, one a channel, got {values}")
    return dataset._replace(**given)
