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

from sem_jax.data.decoded_cache import cached
from sem_jax.data.encoded import StreamedImages, too_large
from sem_jax.data.files import Files, FolderFiles, open_files
from sem_jax.data.public import Loaded, PublicSet, Raw, identity
from sem_jax.data.sources import common_prefix, list_tree, read_tree
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val")}


def load_image_folder(
    *,
    data_dir: str = "",
    splits: Sequence[str] = ("train", "test"),
    image_size: int = 0,
    cache: bool = True,
    prepare=True,
    stream: bool | None = False,
    eval_crop: float = 1.0,
) -> Loaded:
    """Loader of the data set `image_folder`.

    Args:
      data_dir: the folder or zip.
      splits: which of train and test to read.
      image_size: 0, or the size to bring every image to (shorter side resized, antialiased, then centre crop).
      cache: keep the decoded arrays.
      prepare: ignored; there is nothing to download.
      stream: leave the images encoded on disk (see `stream`); None where they would take too much memory decoded.
      eval_crop: see `images.decode`; streamed images only.

    Raises:
      DataError: no data_dir, a split or class without images, classes of train and test that differ, an image that
        can't be used, or images of several sizes with image_size 0.
    """
    if not data_dir:
        raise DataError("data.dir is empty, but image_folder needs a folder", "Give --config.data.dir=FOLDER.")
    path = Path(data_dir).expanduser()
    opened = functools.cache(lambda: open_files(path))
    if not path.exists():
        open_files(path)  # raises
    about = identity(path, image_size) if cache else []
    out, names = {}, {}
    if stream is None:
        listed = [list_tree(opened(), find_split(opened(), split)) for split in splits if find_split(opened(), split)]
        stream = too_large(sum(len(files) for files, *_ in listed), image_size or 64)
    for split in splits:
        if stream:
            out[split], names[split] = _stream(opened(), split, image_size, eval_crop, about or identity(path))
            continue
        read = functools.partial(_read, opened, split, image_size)
        out[split], names[split] = cached(f"image_folder-{split}", about, read) if cache else read()
    _check_classes(path, names)
    return Loaded(out, names[splits[0]], None, None)


def open_split_folders(spec: PublicSet, files: Files) -> dict[str, Callable[[], Raw]]:
    """Readers of a public set kept as an image folder: split -> reader. Class folders carry the set's class names."""

    def read(folder: str) -> Raw:
        split, names = read_tree(files, folder, classes=spec.class_names or None, shape=spec.shape)
        return Raw(split.images, split.labels, names)

    folders = {name: find_split(files, name) for name in SPLIT_FOLDERS}
    if not any(folders.values()):
        files_wanted = " or ".join(r.file for r in spec.remotes)
        message = f"{files.root} holds neither the official files of {spec.name} nor the folders train/ and test/"
        raise DataError(message, f"Give {files_wanted}, unpacked or not, or an image folder.")
    return {name: functools.partial(read, folder) for name, folder in folders.items() if folder}


def find_split(files: Files, split: str) -> str:
    """'train/', 'top/test/' ...: prefix of the files of one split, or ''."""
    for top in ("", common_prefix(files)):
        for folder in SPLIT_FOLDERS[split]:
            prefix = f"{top}{folder}/"
            if any(name.startswith(prefix) for name in files.names):
                return prefix
    return ""


def _read(opened, split: str, image_size: int):
    files = opened()
    prefix = _prefix(files, split)
    value, names = read_tree(files, prefix, image_size=image_size)
    _check_labelled(files, prefix, names)
    return value, names


def _stream(files: Files, split: str, image_size: int, eval_crop: float, about: list):
    if not isinstance(files, FolderFiles):
        raise DataError(f"{files.root} is an archive; streaming needs a folder", "Unpack it.")
    prefix = _prefix(files, split)
    names, labels, class_names = list_tree(files, prefix)
    _check_labelled(files, prefix, class_names)
    records = FileRecords(files.root, tuple(names))
    return Split(
        StreamedImages(records, image_size=image_size, eval_crop=eval_crop, identity=[split, about]), labels
    ), class_names


class FileRecords:
    """`stream.Records` of image files: their names below `root`, in order."""

    def __init__(self, root: Path, names: tuple[str, ...]):
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


def _check_labelled(files: Files, prefix: str, names: tuple[str, ...]) -> None:
    if not names:
        message = f"{files.where(prefix.rstrip('/'))} has images but no class folders"
        raise DataError(message, f"Expected {prefix}<class>/*: one folder of images for every class.")


def _check_classes(path: Path, names: dict[str, tuple[str, ...]]) -> None:
    if len(names) < 2 or names["train"] == names["test"]:
        return
    odd = sorted(set(names["train"]) ^ set(names["test"]))[0]
    has, lacks = ("train", "test") if odd in names["train"] else ("test", "train")
    message = f"{path}: class {odd!r} is in {has} but not in {lacks}"
    raise DataError(message, "Give both splits the same class folders.")
