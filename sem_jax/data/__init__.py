"""Data sets by name, read and checked: uint8 arrays in host memory, or images that stay encoded on disk.

>>> from sem_jax import data
>>> dataset = data.load("digits", val_size=100)
>>> dataset.splits["train"].images.shape, dataset.splits["val"].labels.shape
((1337, 8, 8, 1), (100,))

`DATASETS` is the table of names. A row (`Source`) holds the loader and the facts that need no data:

>>> sorted(data.DATASETS)
['arrays', 'cifar10', 'cifar100', 'digits', 'hf', 'image_folder', 'svhn_cropped', 'tfds', 'tiny_imagenet']
>>> data.DATASETS["cifar10"].num_classes
10

A new set needs a file with its loader and its `Source`, and a line in facts.py.
"""

from typing import TYPE_CHECKING

from sem_jax.registry import on_demand

if TYPE_CHECKING:  # for editors and type checkers; "as" marks a name as offered
    from sem_jax.data.facts import DATASETS as DATASETS
    from sem_jax.data.facts import PUBLIC as PUBLIC
    from sem_jax.data.facts import Reading as Reading
    from sem_jax.data.facts import Source as Source
    from sem_jax.data.image_folder import read_image_tree as read_image_tree
    from sem_jax.data.loading import bring_data as bring_data
    from sem_jax.data.loading import load as load
    from sem_jax.data.loading import normalised_with as normalised_with
    from sem_jax.data.npy_files import read_array_pair as read_array_pair

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "sem_jax.data.facts": "DATASETS, PUBLIC, Reading, Source",
        "sem_jax.data.image_folder": "read_image_tree",
        "sem_jax.data.loading": "bring_data, load, normalised_with",
        "sem_jax.data.npy_files": "read_array_pair",
    },
)
