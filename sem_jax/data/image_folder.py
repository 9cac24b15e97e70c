"""`image_folder`: anyone's images, one folder a class.

    photos/train/<class>/*.jpg, photos/test/<class>/*.jpg        # or val/ in place of test/; or a zip of it

    --config.data.name=image_folder --config.data.dir=photos [--config.data.image_size=64]

Class names are the folders' names, sorted; mean and standard deviation are computed from train. Every image becomes
RGB; image_size 0 takes them as they are, which needs one common size. A val/ beside a test/ is not read: what is held
out of train is chosen by data.val_size.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from sem_jax.data.decoded_cache import Labelled, identity, read_splits
from sem_jax.data.encoded import RecordImages, too_large
from sem_jax.data.facts import Loaded, PublicSet, Raw, Reading, Source
from sem_jax.data.files import Files, FolderFiles, open_files
from sem_jax.data.image_tree import common_prefix, list_tree, read_tree
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val")}


def load_image_folder(data_dir: str, splits: Sequence[str], image_size: int, reading: Reading) -> Loaded:
    """Loader of the data set `image_folder`.

    Args:
      data_dir: the folder or zip.
      splits: which of train and test to read.
      image_size: 0, or the size to bring every image to (shorter side resized, antialiased, then centre crop).
      reading: nothing is downloaded.

    Raises:
      DataError: no data_dir, a split or class without images, classes of train and test that differ, an image that
        can't be used, or images of several sizes with image_size 0.
    """
    if not data_dir:
        raise DataError("data.dir is empty, but image_folder needs a folder", "Give --config.data.dir=FOLDER.")
    path = Path(data_dir).expanduser()
    opened = functools.cache(lambda: open_files(path))
    if not path.exists():
        opened()  # raises
    encoded = reading.encoded
    if encoded is None:
        prefixes = [prefix for split in splits if (prefix := find_split(opened(), split))]
        count = sum(len(list_tree(opened(), prefix)[0]) for prefix in prefixes)
        encoded = too_large(count, image_size or 64)

    def read(split: str) -> Labelled:
        files = opened()
        prefix = _prefix(files, split)
        if not encoded:
            images, labels, names, _ = read_tree(files, prefix, image_size=image_size)
        elif not isinstance(files, FolderFiles):
            raise DataError(f"{path} is an archive; images that stay encoded need a folder", "Unpack it.")
        else:
            listed, labels, names = list_tree(files, prefix)
            about = [split, identity(path, image_size)]
            images = RecordImages(FileRecords(path, listed), image_size, about, eval_crop=reading.eval_crop)
        if not names:
            message = f"{files.where(prefix.rstrip('/'))} has images but no class folders"
            raise DataError(message, f"Expected {prefix}<class>/*: one folder of images for every class.")
        return Split(images, labels), names

    cache = reading.cache and not encoded
    return Loaded(*read_splits("image_folder", path, [image_size], splits, read, cache=cache))


def open_split_folders(spec: PublicSet, files: Files) -> dict[str, Callable[[], Raw]]:
    """Readers of a public set kept as an image folder: split -> reader. Class folders carry the set's class names."""

    def read(folder: str) -> Raw:
        return read_tree(files, folder, classes=spec.class_names or None, shape=spec.shape)

    folders = {name: find_split(files, name) for name in SPLIT_FOLDERS}
    if not any(folders.values()):
        message = f"{files.root} holds neither the official files of {spec.name} nor the folders train/ and test/"
        raise DataError(message, f"Give {spec.archives}, unpacked or not, or an image folder.")
    return {name: functools.partial(read, folder) for name, folder in folders.items() if folder}


def find_split(files: Files, split: str) -> str:
    """'train/', 'top/test/' ...: prefix of the files of one split, or ''."""
    for top in ("", common_prefix(files)):
        for folder in SPLIT_FOLDERS[split]:
            prefix = f"{top}{folder}/"
            if any(name.startswith(prefix) for name in files.names):
                return prefix
    return ""


class FileRecords:
    """`encoded.Records` of image files: their names below `root`, in order."""

    def __init__(self, root: Path, names: Sequence[str]):
        self._files, self._names = FolderFiles(root, ()), names

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        return self._files.read(self._names[index])

    def where(self, index: int) -> str:
        return self._files.where(self._names[index])


def _prefix(files: Files, split: str) -> str:
    prefix = find_split(files, split)
    if not prefix:
        wanted = " or ".join(f"{name}/" for name in SPLIT_FOLDERS[split])
        message = f"{files.root} has no folder {wanted} with images in it"
        raise DataError(message, "Expected train/<class>/* and test/<class>/* (or val/ in place of test/).")
    return prefix


SOURCE = Source(load_image_folder, channels=3, encodes=True)
