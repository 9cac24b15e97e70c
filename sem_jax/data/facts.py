"""The facts of a data set that need no data, and what its loader takes and returns. Imports no reader and no jax."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sem_jax.registry import Table

if TYPE_CHECKING:
    from sem_jax.interfaces import Split


class Reading(NamedTuple):
    """How a data set is read. Only `eval_crop` changes the images."""

    encoded: bool | None = False  # leave the images encoded on disk; None: if memory would not hold them decoded
    eval_crop: float = 1.0  # share of the shorter side that the centre crop of encoded images keeps
    cache: bool = True  # keep decoded arrays in $SEM_JAX_CACHE (default ~/.cache/sem_jax)
    download: bool = True  # download and prepare a public set that is not found; fetch what is on a hub
    image_column: str = ""  # of tables (`hf`); "" = the one that has images
    label_column: str = ""


DEFAULT = Reading()


class Loaded(NamedTuple):
    """What a loader returns to `load`."""

    splits: dict[str, "Split"]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None  # None: computed from train
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Source:
    """One data set: its loader and its facts (None where they depend on the data).

    The loader is called as `load(source, data_dir, splits, image_size, reading)`, where `source` is this row.
    """

    load: Callable[..., Loaded]
    num_classes: int | None = None
    image_size: int | None = None
    channels: int | None = None
    train_size: int | None = None  # images of the official train split, validation part included
    test_size: int | None = None
    mean: tuple[float, ...] | None = None  # per channel, of pixels in [0, 1]
    std: tuple[float, ...] | None = None
    encodes: bool = False  # the loader can leave images encoded on disk (`Reading.encoded`)
    own: bool = False  # the user's own images, in the folder `data_dir`


class Raw(NamedTuple):
    """One split, as it is in official files or an image folder."""

    images: np.ndarray  # u8[n h w 3]
    labels: np.ndarray  # i32[n]
    class_names: tuple[str, ...]
    encoded: tuple[bytes, ...] | None = None  # bytes of the image files, if the images were encoded


class Remote(NamedTuple):
    """One official file."""

    url: str
    size: int  # bytes; 0 if not published
    digest: str  # "sha256:..." or "md5:..."

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class PublicSet(Source):
    """A public data set with the facts for finding, reading and preparing it. Its images are RGB squares."""

    name: str  # canonical name in tensorflow-datasets
    version: str
    description: str
    homepage: str
    num_classes: int = 0  # never None here, like the other numbers
    class_names: tuple[str, ...]  # () if the files have them
    image_size: int = 0
    channels: int = 3
    train_size: int = 0
    test_size: int = 0
    encodes: bool = True
    remotes: tuple[Remote, ...]
    open_raw: Callable[["PublicSet", Path], Mapping[str, Callable[[], Raw]]]  # split -> its reader
    markers: tuple[str, ...]  # files of which a folder with the unpacked archive has one
    folders: tuple[str, ...] = ()  # top folder of the official archive
    refused: tuple[str, ...] = ()  # files and folders of the pickled version
    coarse: tuple[tuple[str, ...], tuple[int, ...]] | None = None  # names of superclasses; superclass of each class

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    @property
    def sizes(self) -> dict[str, int]:
        """Split -> images in the official set."""
        return {"train": self.train_size, "test": self.test_size}

    @property
    def archives(self) -> str:
        """Names of the official files, for messages."""
        return " or ".join(remote.file for remote in self.remotes)


_PUBLIC = {
    "cifar10": "sem_jax.data.cifar:CIFAR10",
    "cifar100": "sem_jax.data.cifar:CIFAR100",
    "tiny_imagenet": "sem_jax.data.tiny_imagenet:TINY_IMAGENET",
    "svhn_cropped": "sem_jax.data.svhn:SVHN_CROPPED",
}
PUBLIC: Table[PublicSet] = Table(_PUBLIC)  # the sets that `python -m sem_jax prepare` knows
DATASETS: Table[Source] = Table(
    {"digits": "sem_jax.data.digits:DIGITS"}
    | _PUBLIC
    | {
        "image_folder": "sem_jax.data.image_folder:IMAGE_FOLDER",
        "tfds": "sem_jax.data.tfds:TFDS",
        "arrays": "sem_jax.data.arrays:ARRAYS",
        "hf": "sem_jax.data.hub_data:HF",
    }
)
