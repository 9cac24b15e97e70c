"""`digits`: 1,797 real handwritten digits of 8x8 pixels that ship inside scikit-learn; nothing to download.

    load_digits().splits["train"].images      # u8[1437 8 8 1]

scikit-learn has no official split: 36 images of each class are test, the same ones always.
"""

from collections.abc import Sequence

import numpy as np

from sem_jax.data.public import Loaded
from sem_jax.data.splits import hold_out
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

NUM_CLASSES, IMAGE_SIZE, TRAIN_SIZE, TEST_SIZE = 10, 8, 1437, 360
MEAN, STD = (0.3054,), (0.3758,)  # of the 1,437 training images


def load_digits(
    *,
    data_dir: str = "",
    splits: Sequence[str] = ("train", "test"),
    image_size: int = 0,
    cache: bool = True,
    prepare=True,
) -> Loaded:
    """Loader of the data set `digits`; grey levels 0..16 become 0..255. Only `splits` means something here."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise DataError(
            "scikit-learn, which the digits ship with, is not installed", "pip install scikit-learn"
        ) from error

    data = load()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    train, test = hold_out(Split(images, data.target.astype(np.int32)), val_size=TEST_SIZE, seed=0)
    both = {"train": train, "test": test}
    return Loaded({name: both[name] for name in splits}, tuple(str(i) for i in range(NUM_CLASSES)), MEAN, STD)
