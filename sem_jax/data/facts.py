"""What is known of a data set without its data, and what loaders are given and give; imports no reader and no jax."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sem_jax.registry import Table

if TYPE_CHECKING:
    from sem_jax.interfaces import Split


class Reading(NamedTuple):
    """How a data set is read; `eval_crop` alone changes what comes out."""

    encoded: bool | None = False  # leave the images encoded on disk; None: where memory would not hold them decoded
    eval_crop: float = 1.0  # share of the shorter side that the centre crop of encoded images keeps
    cache: bool = True  # keep decoded arrays in $SEM_JAX_CACHE (default ~/.cache/sem_jax)
    download: bool = True  # download and prepare a public set that is not there


DEFAULT = Reading()


class Loaded(NamedTuple):
    """What a loader gives to `load`."""

    splits: dict[str, "Split"]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None  # None: computed from train
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Source:
    """One data set: its loader, and the facts that don't need its data (None where only the data tells).

    `load(source, data_dir, splits, image_size, reading)` gets this row, then arguments of `sem_jax.data.load`.
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
    own: bool = False  # anyone's images, which `data_dir` must name


class Raw(NamedTuple):
    """One split as official files or an image folder have it."""

    images: np.ndarray  # u8[n h w 3]
    labels: np.ndarray  # i32[n]
    class_names: tuple[str, ...]
    encoded: tuple[bytes, ...] | None = None  # the image files' own bytes, where there are such


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
    """One public data set, with the facts for finding, reading and preparing it; every image is RGB and a square."""

    name: str  # canonical name in tensorflow-datasets
    version: str
    description: str
    homepage: str
    num_classes: int = 0  # this and the other numbers are known of every public set
    class_names: tuple[str, ...]  # () where the files tell
    image_size: int = 0
    channels: int = 3
    train_size: int = 0
    test_size: int = 0
    encodes: bool = True
    remotes: tuple[Remote, ...]
    open_raw: Callable[["PublicSet", Path], Mapping[str, Callable[[], Raw]]]  # split -> reader, of those that are there
    markers: tuple[str, ...]  # a folder with one of these files is the unpacked official archive
    folders: tuple[str, ...] = ()  # top folder of the official archive
    refused: tuple[str, ...] = ()  # files or folders of the pickled version
    coarse: tuple[tuple[str, ...], tuple[int, ...]] | None = None  # superclass names; superclass of each class

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
PUBLIC: Table[PublicSet] = Table(_PUBLIC)  # those that `python -m sem_jax prepare` can make
DATASETS: Table[Source] = Table(
    {"digits": "sem_jax.data.digits:DIGITS"}
    | _PUBLIC
    | {
        "image_folder": "sem_jax.data.image_folder:IMAGE_FOLDER",
        "tfds": "sem_jax.data.tfds:TFDS",
        "arrays": "sem_jax.data.arrays:ARRAYS",
    }
)
