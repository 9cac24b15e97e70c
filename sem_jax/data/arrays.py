"""`arrays`: images that are already NumPy arrays.

    folder/train_data.npy  u8[n h w] or u8[n h w c]      folder/train_labels.npy  integers [n], classes 0..k-1
    folder/test_data.npy                                 folder/test_labels.npy

    --config.data.name=arrays --config.data.dir=folder

Mean and standard deviation are computed from train. An optional `class_names.txt` holds one name a line.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from sem_jax.data.facts import Loaded, Reading, Source
from sem_jax.data.npy_files import read_array_pair
from sem_jax.data.refusing import read_file, refusing
from sem_jax.data.splits import check_split
from sem_jax.errors import DataError

NAMES_LIMIT = 1 << 24  # bytes of class_names.txt that are read


def load_arrays(source: Source, data_dir: str, splits: Sequence[str], image_size: int, reading: Reading) -> Loaded:
    """Loader of the data set `arrays`. An `image_size` other than 0 must be that of the images: nothing is resized.

    Raises:
      DataError: a file is missing, holds pickled objects or has another dtype or shape than above; lengths differ; or
        a class has no image in train.
    """
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "Expected train_data.npy, train_labels.npy and the same for test.")
    out = {split: read_array_pair(folder / f"{split}_data.npy") for split in splits}
    num_classes = max(int(split.labels.max(initial=-1)) for split in out.values()) + 1
    names = _class_names(folder / "class_names.txt", num_classes)
    first = out[splits[0]].images.shape[1:]
    for name, split in out.items():
        where, shape = str(folder / f"{name}_data.npy"), split.images.shape[1:]
        check_split(split, len(names), where, every_class=name == "train")
        if shape != first:
            message = f"{where}: images have shape {shape}, those of {splits[0]} have {first}"
            raise DataError(message, "Give both splits images of one shape.")
        if image_size and shape[:2] != (image_size, image_size):
            message = f"{where}: images have shape {shape}, but data.image_size={image_size}"
            raise DataError(message, "Set data.image_size=0: arrays are not resized.")
    return Loaded(out, names)


def _class_names(listing: Path, num_classes: int) -> tuple[str, ...]:
    if not os.path.lexists(listing):
        return tuple(str(i) for i in range(num_classes))
    remedy = "Give one name a line, as UTF-8 text."
    with refusing(f"{listing} cannot be read", remedy):
        text = read_file(listing, NAMES_LIMIT, remedy).decode("utf-8")
    names = tuple(name.strip() for name in text.split("\n") if name.strip())
    if len(names) < num_classes:
        raise DataError(f"{listing} has {len(names)} names for {num_classes} classes", "Give each class a line.")
    return names


ARRAYS = Source(load_arrays, own=True)
