"""`tfds`: any image classification set prepared by tensorflow-datasets, such as ImageNet.

    --config.data.name=tfds --config.data.dir=~/tensorflow_datasets/imagenet2012/5.1.0 --config.data.image_size=224

The folder holds dataset_info.json and shards, whose examples have an `image` and a `label`. Test is the split `test`,
or `validation` where there is none or, as in ImageNet, one without labels. Mean and standard deviation are computed
from train.
"""

from collections.abc import Sequence
from pathlib import Path

from sem_jax.data import prepared
from sem_jax.data.decoded_cache import cached
from sem_jax.data.encoded import too_large
from sem_jax.data.public import Loaded, identity
from sem_jax.errors import DataError

SPLITS = {"train": ("train",), "test": ("test", "validation")}
UNLABELLED = ("imagenet2012",)  # sets whose official test split has no labels (-1)


def load_tfds(
    *,
    data_dir: str = "",
    splits: Sequence[str] = ("train", "test"),
    image_size: int = 0,
    cache: bool = True,
    prepare=True,
    stream: bool | None = False,
    eval_crop: float = 1.0,
) -> Loaded:
    """Loader of the data set `tfds`; arguments and errors as those of `image_folder.load_image_folder`."""
    if not data_dir:
        raise DataError("data.dir is empty, but tfds needs a prepared folder", "Give --config.data.dir=FOLDER.")
    path = Path(data_dir).expanduser()
    if not (path / prepared.INFO).is_file():
        raise DataError(f"{path} has no {prepared.INFO}", "Give the folder of one version: <name>/<version>.")
    sizes = prepared.splits_of(path)
    if path.parent.name in UNLABELLED:
        sizes.pop("test", None)
    found = {split: next((name for name in SPLITS[split] if name in sizes), "") for split in splits}
    for split, name in found.items():
        if not name:
            wanted, has = " or ".join(SPLITS[split]), ", ".join(sizes) or "none"
            raise DataError(f"{path} has no split {wanted} (it has: {has})", "Prepare the set with this split.")
    if stream is None:
        stream = too_large(sum(sizes[name] for name in found.values()), image_size or 64)
    about = identity(path, image_size) if cache else []
    out, names = {}, None
    for split, name in found.items():

        def read(name=name):
            return prepared.read_split(path, name, None, image_size=image_size)

        if stream:
            out[split], names = prepared.stream_split(path, name, image_size=image_size, eval_crop=eval_crop)
        else:
            out[split], names = cached(f"tfds-{split}", about, read) if cache else read()
    return Loaded(out, names, None, None)
