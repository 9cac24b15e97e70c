"""`tiny_imagenet`: 200 classes of 64x64 with 500 train images each; test is the official validation part (50 each).

    tiny-imagenet-200.zip, or unpacked: tiny-imagenet-200/train/<wnid>/images/*.JPEG
                                        tiny-imagenet-200/val/images/*.JPEG, val/val_annotations.txt

Classes are WordNet ids, numbered in sorted order as in torchvision's ImageFolder. The official test part has no labels
and is not read. A zip with some of the classes works, with a warning.
"""

import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sem_jax.data.facts import PublicSet, Raw, Remote
from sem_jax.data.files import Files, open_files
from sem_jax.data.image_folder import open_split_folders
from sem_jax.data.images import FORMATS, decode_all, encode_png, is_image
from sem_jax.data.public import load_public
from sem_jax.errors import DataError

ANNOTATIONS = "val/val_annotations.txt"
REMEDY = "Take the official archive again: http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def open_tiny_imagenet(spec: PublicSet, path: Path) -> Mapping[str, Callable[[], Raw]]:
    """Readers of the official layout or an image folder at `path`; DataError if it holds neither."""
    files = open_files(path)
    if not (found := files.find(ANNOTATIONS)):
        return open_split_folders(spec, files)
    top = found.removesuffix(ANNOTATIONS)
    train = [name for name in files.names if name.startswith(f"{top}train/") and is_image(name)]
    wnids = [name[len(top) :].split("/")[1] for name in train]
    classes = tuple(sorted(set(wnids)))
    if not train:
        raise DataError(f"{files.where(top + 'train')} holds no images", REMEDY)
    if f"{top}wnids.txt" in files.names:
        listed = files.read(f"{top}wnids.txt").decode("ascii", "replace").split()
        if absent := sorted(set(listed) - set(classes)):
            message = f"{files.where(top + 'train/' + absent[0])} has no images, but wnids.txt lists this class"
            raise DataError(message, REMEDY)
    return {
        "train": functools.partial(_read, spec, files, classes, train, wnids),
        "test": functools.partial(_read_val, spec, files, classes, top),
    }


def _read_val(spec: PublicSet, files: Files, classes: tuple[str, ...], top: str) -> Raw:
    names, wnids = [], []
    for number, line in enumerate(files.read(top + ANNOTATIONS).decode("ascii", "replace").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in classes:
            message = f"{files.where(top + ANNOTATIONS)}, line {number}: {line[:60]!r} names no class of train"
            raise DataError(message, REMEDY)
        names.append(f"{top}val/images/{fields[0]}")
        wnids.append(fields[1])
    if absent := sorted(set(names) - set(files.names)):  # also a name with ".." that leads out of the folder
        raise DataError(f"{files.where(absent[0])} is missing, but {ANNOTATIONS} lists it", REMEDY)
    if not names:
        raise DataError(f"{files.where(top + ANNOTATIONS)} lists no images", REMEDY)
    return _read(spec, files, classes, names, wnids)


def _read(spec: PublicSet, files: Files, classes, names: list[str], wnids: list[str]) -> Raw:
    from PIL import Image

    encoded = [files.read(name) for name in names]
    images = decode_all(
        len(names),
        encoded.__getitem__,
        lambda i: files.where(names[i]),
        shape=spec.shape,
        progress=f"decoding {files.root.name}",
    )
    # About 2% of the files are grey JPEGs; they become RGB, so that every record has the shape in features.json.
    kept = tuple(
        data if Image.open(io.BytesIO(data), formats=FORMATS).mode == "RGB" else encode_png(image)
        for data, image in zip(encoded, images, strict=True)
    )
    return Raw(images, np.searchsorted(classes, wnids).astype(np.int32), classes, kept)


TINY_IMAGENET = PublicSet(
    load_public,
    name="tiny_imagenet",
    version="1.0.0",
    description="Tiny-ImageNet: 64x64 colour images of 200 ImageNet classes.",
    homepage="http://cs231n.stanford.edu/",
    num_classes=200,
    class_names=(),
    image_size=64,
    train_size=100_000,
    test_size=10_000,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    # No SHA-256 is published. The MD5 that is in common use guards against damage, not against an attacker.
    remotes=(
        Remote("http://cs231n.stanford.edu/tiny-imagenet-200.zip", 248100043, "md5:90528d7ca1a48142e341f4ef8d21d0de"),
    ),
    open_raw=open_tiny_imagenet,
    markers=(ANNOTATIONS,),
    folders=("tiny-imagenet-200",),
)
