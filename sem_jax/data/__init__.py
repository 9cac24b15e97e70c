"""Data sets by name: decoded, checked, in host memory as uint8; or encoded on disk.

>>> from sem_jax import data
>>> dataset = data.load("digits", val_size=100)
>>> dataset.splits["train"].images.shape, dataset.splits["val"].labels.shape
((1337, 8, 8, 1), (100,))

`DATASETS` is the table of names; a row (`Source`) holds the loader and what is known of the set without its data:

>>> sorted(data.DATASETS)
['arrays', 'cifar10', 'cifar100', 'digits', 'image_folder', 'svhn_cropped', 'tfds', 'tiny_imagenet']
>>> data.DATASETS["cifar10"].num_classes
10

To add a set: a file with its loader (or its `PublicSet`) and its `Source`, and a line in facts.py.
"""

from typing import TYPE_CHECKING

from sem_jax.data.facts import DATASETS, PUBLIC, Reading, Source
from sem_jax.registry import on_demand

if TYPE_CHECKING:
    from sem_jax.data.image_folder import read_image_tree
    from sem_jax.data.loading import load
    from sem_jax.data.npy_files import read_array_pair

__all__ = ["DATASETS", "PUBLIC", "Reading", "Source", "load", "read_array_pair", "read_image_tree"]

__getattr__ = on_demand(
    __name__,
    {
        "load": "sem_jax.data.loading:load",
        "read_array_pair": "sem_jax.data.npy_files:read_array_pair",
        "read_image_tree": "sem_jax.data.image_folder:read_image_tree",
    },
)
