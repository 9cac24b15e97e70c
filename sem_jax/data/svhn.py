"""`svhn_cropped`: cropped digits of Street View House Numbers, 73,257 train and 26,032 test images of 32x32.

    train_32x32.mat, test_32x32.mat      # X: u8[32 32 3 n], y: [n 1] in 1..10, where 10 is the digit 0

Either file may be missing, since an evaluation needs only test. The 531,131 "extra" digits are not used.
"""

import functools
import io
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sem_jax.data.facts import PublicSet, Raw, Remote
from sem_jax.data.files import Files, open_files
from sem_jax.data.image_folder import open_split_folders
from sem_jax.data.public import load_public
from sem_jax.data.refusing import refusing
from sem_jax.errors import DataError

_COMPRESSED = 15  # type of a compressed element in the MATLAB 5 format
_SLACK = 1 << 16  # bytes allowed for headers
MAX_IMAGES = 1_000_000  # the largest official file has 531,131


def open_svhn(spec: PublicSet, path: Path) -> Mapping[str, Callable[[], Raw]]:
    """Readers of the .mat files or the image folder at `path`; DataError if it holds neither."""
    files = open_files(path)
    there = {split: name for split in spec.sizes if (name := files.find(f"{split}_32x32.mat"))}
    readers = {split: functools.partial(_read, spec, files, name) for split, name in there.items()}
    return readers or open_split_folders(spec, files)


def _read(spec: PublicSet, files: Files, name: str) -> Raw:
    from scipy.io import loadmat, whosmat

    where = files.where(name)
    remedy = f"Take the official file: {spec.remotes[0].url.rsplit('/', 1)[0]}/{name.rsplit('/', 1)[-1]}"
    data = files.read(name)
    with refusing(f"{where} is not a readable MATLAB file", remedy):
        # The shapes precede the compressed content, so a bomb is refused before it is unpacked.
        shapes = {key: shape for key, shape, _ in whosmat(io.BytesIO(data))}
        if shapes.get("X", ())[:3] != spec.shape or len(shapes["X"]) != 4 or shapes["X"][3] > MAX_IMAGES:
            raise DataError(f"{where} holds {shapes!s:.200}, expected X: (32, 32, 3, n) and y: (n, 1)", remedy)
        count = shapes["X"][3]
        if sorted(shapes.get("y", ())) != sorted((count, 1)):
            raise DataError(f"{where}: y has the shape {shapes.get('y')}, expected ({count}, 1)", remedy)
        if _unpacks_to_more(data, count * (math.prod(spec.shape) + 8) + _SLACK):
            raise DataError(f"{where} unpacks to more than the {count} images of its header", remedy)
        mat = loadmat(io.BytesIO(data), variable_names=["X", "y"])
        images, labels = mat["X"], mat["y"].reshape(-1)
    if images.dtype != np.uint8 or len(labels) != images.shape[3]:
        raise DataError(f"{where} holds X {images.dtype}{list(images.shape)} and {len(labels)} labels", remedy)
    if labels.size == 0 or labels.min() < 1 or labels.max() > 10:
        raise DataError(f"{where}: labels are not all in 1..10 ({len(labels)} labels)", remedy)
    return Raw(np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int32) % 10, spec.class_names)


def _unpacks_to_more(data: bytes, limit: int) -> bool:
    """Whether the compressed variables unpack to more than `limit` bytes; scipy believes their lengths, up to 4 GB."""
    order, at, total = (">" if data[126:128] == b"MI" else "<"), 128, 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind == _COMPRESSED:
            unpack, rest = zlib.decompressobj(), data[at + 8 : at + 8 + size]
            while rest and not unpack.eof and total <= limit:
                total += len(unpack.decompress(rest, 1 << 20))
                rest = unpack.unconsumed_tail
            if total > limit:
                return True
        at += 8 + size + (-size % 8 if kind != _COMPRESSED else 0)
    return False


_URL = "http://ufldl.stanford.edu/housenumbers/"

SVHN_CROPPED = PublicSet(
    load_public,
    name="svhn_cropped",
    version="3.1.0",
    description="SVHN cropped digits: 32x32 colour images of house numbers, 10 classes.",
    homepage=_URL,
    num_classes=10,
    class_names=tuple("0123456789"),
    image_size=32,
    train_size=73_257,
    test_size=26_032,
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    remotes=(
        Remote(
            _URL + "train_32x32.mat",
            182040794,
            "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        Remote(
            _URL + "test_32x32.mat",
            64275384,
            "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
    open_raw=open_svhn,
    markers=("train_32x32.mat", "test_32x32.mat"),
)
