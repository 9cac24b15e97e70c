"""`digits`: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn; nothing is downloaded.

>>> load_digits(DIGITS, "", ("train",), 0, Reading()).splits["train"].images.shape
(1437, 8, 8, 1)

There is no official split. Test is a fixed choice of 36 images of each class.
"""

from collections.abc import Sequence

import numpy as np

from sem_jax.data.facts import Loaded, Reading, Source
from sem_jax.data.splits import hold_out
from sem_jax.errors import DataError
from sem_jax.interfaces import Split


def load_digits(source: Source, data_dir: str, splits: Sequence[str], image_size: int, reading: Reading) -> Loaded:
    """Loader of the data set `digits`, which uses `splits` alone. Grey levels 0..16 become 0..255."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        message = "the data set digits needs scikit-learn, which is not installed"
        raise DataError(message, "Run: pip install scikit-learn") from error

    pixels, labels = load(return_X_y=True)
    images = np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    train, test = hold_out(Split(images, np.asarray(labels, np.int32)), val_size=360, seed=0)
    both = {"train": train, "test": test}
    return Loaded({name: both[name] for name in splits}, tuple("0123456789"), source.mean, source.std)


DIGITS = Source(
    load_digits,
    num_classes=10,
    image_size=8,
    channels=1,
    train_size=1437,
    test_size=360,
    mean=(0.3054,),  # of the 1,437 training images
    std=(0.3758,),
)
