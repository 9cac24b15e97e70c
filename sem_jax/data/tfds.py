"""`tfds`: any image classification set prepared by tensorflow-datasets, such as ImageNet.

    --config.data.name=tfds --config.data.dir=~/tensorflow_datasets/imagenet2012/5.1.0 --config.data.image_size=224

The folder holds dataset_info.json and shards of examples with `image` and `label`. Test is the split `test`, or
`validation` if `test` is missing or has no labels, as in ImageNet. Mean and standard deviation come from train.
"""

from collections.abc import Sequence
from pathlib import Path

from sem_jax.data.array_records import read_encoded_split
from sem_jax.data.decoded_cache import Labelled, read_splits
from sem_jax.data.encoded import too_large
from sem_jax.data.facts import Loaded, Reading, Source
from sem_jax.data.tfds_folder import INFO, read_split, splits_of
from sem_jax.errors import DataError

SPLITS = {"train": ("train",), "test": ("test", "validation")}
UNLABELLED = ("imagenet2012",)  # sets with an official test split without labels (-1)


def load_tfds(source: Source, data_dir: str, splits: Sequence[str], image_size: int, reading: Reading) -> Loaded:
    """Loader of the data set `tfds`, as `image_folder.load_image_folder`."""
    path = Path(data_dir).expanduser()
    if not (path / INFO).is_file():
        raise DataError(f"{path} has no {INFO}", "Give the folder of one version: <name>/<version>.")
    sizes = splits_of(path)
    if path.parent.name in UNLABELLED:
        sizes.pop("test", None)
    found = {split: next((name for name in SPLITS[split] if name in sizes), "") for split in splits}
    for split, name in found.items():
        if not name:
            wanted, has = " or ".join(SPLITS[split]), ", ".join(sizes) or "none"
            raise DataError(f"{path} has no split {wanted} (it has: {has})", "Prepare the set with this split.")
    encoded = reading.encoded
    if encoded is None:
        encoded = too_large(sum(sizes[name] for name in found.values()), image_size or 64)

    def read(split: str) -> Labelled:
        if encoded:
            return read_encoded_split(path, found[split], image_size=image_size, eval_crop=reading.eval_crop)
        return read_split(path, found[split], None, image_size=image_size)

    return Loaded(*read_splits("tfds", path, [image_size], splits, read, cache=reading.cache and not encoded))


TFDS = Source(load_tfds, channels=3, encodes=True, own=True)
