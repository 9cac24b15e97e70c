"""`cifar10` and `cifar100`: the official binary archives, packed or unpacked, and image folders.

    data_batch_1.bin ... data_batch_5.bin, test_batch.bin      # CIFAR-10: 1 label byte, 3072 pixel bytes a record
    train.bin, test.bin                                        # CIFAR-100: coarse label, fine label, 3072 pixel bytes

Both sets use CIFAR-10's mean and standard deviation, as much published code does; CIFAR-100's own would be
.5071 .4865 .4409 / .2673 .2564 .2762. The Python (pickle) archives are refused.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sem_jax.data.facts import PublicSet, Raw, Remote
from sem_jax.data.files import Files, open_files
from sem_jax.data.image_folder import open_split_folders
from sem_jax.data.places import pickled
from sem_jax.data.public import load_public
from sem_jax.errors import DataError

PIXELS = 3 * 32 * 32
RECORDS = {  # set -> split -> file -> records in it
    "cifar10": {
        "train": {f"data_batch_{i}.bin": 10_000 for i in range(1, 6)},
        "test": {"test_batch.bin": 10_000},
    },
    "cifar100": {"train": {"train.bin": 50_000}, "test": {"test.bin": 10_000}},
}


def open_cifar(spec: PublicSet, path: Path) -> Mapping[str, Callable[[], Raw]]:
    """Readers of the .bin files or the image folder at `path`; DataError if it holds neither."""
    files = open_files(path)
    readers = {}
    for split, records in RECORDS[spec.name].items():
        first = next(iter(records))
        if found := files.find(first):
            readers[split] = functools.partial(_read, spec, files, found.removesuffix(first), records)
    tops = {part for name in files.names for part in name.split("/")[:2]}
    if not readers and tops & set(spec.refused):
        raise pickled(spec, path)
    return readers or open_split_folders(spec, files)


def _read(spec: PublicSet, files: Files, prefix: str, records: Mapping[str, int]) -> Raw:
    label_bytes = 2 if spec.coarse else 1
    remedy = f"Take the official binary archive: {spec.remotes[0].url}"
    images, labels = [], []
    for name, count in records.items():
        where, data = files.where(prefix + name), files.read(prefix + name)
        expected = count * (label_bytes + PIXELS)
        if len(data) != expected:
            raise DataError(f"{where} has {len(data)} bytes, expected {expected} ({count} images)", remedy)
        rows = np.frombuffer(data, np.uint8).reshape(count, -1)
        labels.append(rows[:, label_bytes - 1].astype(np.int32))  # CIFAR-100: the fine label
        if (wrong := np.flatnonzero(labels[-1] >= spec.num_classes)).size:
            found = f"label {labels[-1][wrong[0]]} of image {wrong[0]} is out of range 0..{spec.num_classes - 1}"
            raise DataError(f"{where}: {found}", remedy)
        images.append(rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Raw(np.ascontiguousarray(np.concatenate(images)), np.concatenate(labels), spec.class_names)


_URL = "https://www.cs.toronto.edu/~kriz/"

CIFAR10 = PublicSet(
    load_public,
    name="cifar10",
    version="3.0.2",
    description="CIFAR-10: 60000 32x32 colour images in 10 classes.",
    homepage=_URL + "cifar.html",
    num_classes=10,
    class_names=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
    image_size=32,
    train_size=50_000,
    test_size=10_000,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    remotes=(
        Remote(
            _URL + "cifar-10-binary.tar.gz",
            170052171,
            "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    open_raw=open_cifar,
    markers=("data_batch_1.bin", "test_batch.bin"),
    folders=("cifar-10-batches-bin",),
    refused=("cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1"),
)

_FINE = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_COARSE = (
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices "
    "household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes "
    "large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees "
    "vehicles_1 vehicles_2"
)
_COARSE_OF_FINE = (
    "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 "
    "19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 "
    "13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13 "
)

CIFAR100 = dataclasses.replace(
    CIFAR10,
    name="cifar100",
    description="CIFAR-100: 60000 32x32 colour images in 100 classes, grouped into 20 superclasses.",
    num_classes=100,
    class_names=tuple(_FINE.split()),
    remotes=(
        Remote(
            _URL + "cifar-100-binary.tar.gz",
            168513733,
            "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
    ),
    markers=("train.bin", "test.bin"),
    folders=("cifar-100-binary",),
    refused=("cifar-100-python", "cifar-100-python.tar.gz"),
    coarse=(tuple(_COARSE.split()), tuple(int(i) for i in _COARSE_OF_FINE.split())),
)
