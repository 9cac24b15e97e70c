"""`image_folder`: the user's own images, one folder a class.

    photos/train/<class>/*.jpg, photos/test/<class>/*.jpg        # or val/ in place of test/; or a zip of it

    --config.data.name=image_folder --config.data.dir=photos [--config.data.image_size=64]

Any file of a class folder is an image, whatever its name, but hidden ones and those of `images.BESIDE`, such as .txt.
Class names are the folders' names, sorted. Mean and standard deviation are computed from train. Every image becomes
RGB; with image_size 0 all must have one size. A val/ beside a test/ is not read: data.val_size holds images out of
train. `read_image_tree` reads a single folder of classes.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sem_jax.data.decoded_cache import Labelled, identity, read_splits, stamp
from sem_jax.data.encoded import RecordImages, too_large
from sem_jax.data.facts import Loaded, PublicSet, Raw, Reading, Source
from sem_jax.data.files import Files, FolderFiles, open_files
from sem_jax.data.images import decode_all, holds_image, is_image
from sem_jax.data.refusing import reading_path
from sem_jax.data.splits import check_class_names
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

ROUNDED = 2 * 10**9  # ns by which a server may round a file's time, some while after it was written
SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val")}


def load_image_folder(
    source: Source, data_dir: str, splits: Sequence[str], image_size: int, reading: Reading
) -> Loaded:
    """Loader of the data set `image_folder`; `image_size` as `images.decode` takes it.

    Raises:
      DataError: a split or class has no images, the classes of train and test differ, an image cannot be used, or
        images have several sizes and image_size is 0.
    """
    path = Path(data_dir).expanduser()
    opened = functools.cache(lambda: open_files(path))
    if not (path.is_dir() or path.is_file()):
        opened()  # raises
    encoded = reading.encoded
    if encoded is None:
        prefixes = [prefix for split in splits if (prefix := find_split(opened(), split))]
        count = sum(len(list_tree(opened(), prefix)[0]) for prefix in prefixes)
        encoded = too_large(count, image_size or 64)

    def read(split: str) -> Labelled:
        files = opened()
        prefix = find_split(files, split)
        if not prefix:
            for name in set(SPLIT_FOLDERS[split]) & set(files.names):
                files.read(name)  # raises if it is a link to nothing
            wanted = " or ".join(f"{name}/" for name in SPLIT_FOLDERS[split])
            remedy = "Expected train/<class>/* and test/<class>/* (or val/ in place of test/)."
            if split == "test":
                remedy += " Without test images, set data.val_size and data.use_test=False."
            raise DataError(f"{files.root} has no folder {wanted} with images", remedy)
        if not encoded:
            images, labels, names, _ = read_tree(files, prefix, image_size=image_size)
        elif not isinstance(files, FolderFiles):
            raise DataError(f"{path} is an archive; images that stay encoded need a folder", "Unpack it.")
        else:
            listed, labels, names = list_tree(files, prefix)
            about = [split, identity(path, image_size)]
            stamps = {name: it[:2] for name, *it in about[1][1:]}
            stamps = np.array([stamps.get(name) or (-1, -1) for name in listed], np.int64)
            records = FileRecords(FolderFiles(path, ()), listed, stamps)
            images = RecordImages(records, image_size, about, eval_crop=reading.eval_crop)
        if not names:
            message = f"{files.where(prefix.rstrip('/'))} has images but no class folders"
            raise DataError(message, f"Expected {prefix}<class>/*: one folder of images for every class.")
        return Split(images, labels), names

    return Loaded(*read_splits("image_folder", path, [image_size], splits, read, cache=reading.cache and not encoded))


def open_split_folders(spec: PublicSet, files: Files) -> dict[str, Callable[[], Raw]]:
    """Readers of a public set kept as an image folder (split -> reader). Class folders have the set's class names."""
    folders = {name: find_split(files, name) for name in SPLIT_FOLDERS}
    if not any(folders.values()):
        message = f"{files.root} holds neither the official files of {spec.name} nor the folders train/ and test/"
        raise DataError(message, f"Give {spec.archives}, packed or unpacked, or an image folder.")
    read = functools.partial(read_tree, files, classes=spec.class_names or None, shape=spec.shape)
    return {name: functools.partial(read, folder) for name, folder in folders.items() if folder}


def find_split(files: Files, split: str) -> str:
    """Prefix of the files of one split, such as 'train/' or 'top/test/'; '' if it has none."""
    for top in ("", common_prefix(files)):
        for folder in SPLIT_FOLDERS[split]:
            prefix = f"{top}{folder}/"
            if any(name.startswith(prefix) for name in files.names):
                return prefix
    return ""


class FileRecords:
    """`encoded.Records` of the named files of a folder or archive, in this order.

    Args:
      stamps: i64[n 2], size and time of change of each file of a folder: one that is replaced later is refused, since a
        run that reads it would not be one on the data that it has recorded. None: not compared.
    """

    def __init__(self, files: Files, names: Sequence[str], stamps: np.ndarray | None = None):
        self._files, self._names, self._stamps = files, names, stamps

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        content = self._files.read(self._names[index])
        if self._stamps is not None:
            where, (size, changed) = self.where(index), self._stamps[index].tolist()
            now = stamp(where)[:2] or (-1, -1)
            if now[0] != size or abs(now[1] - changed) > ROUNDED:
                message = f"{where} has changed since the data was read first"
                raise DataError(message, "Put the file back as it was, or start a run on the new data.")
        return content

    def where(self, index: int) -> str:
        return self._files.where(self._names[index])


def read_image_tree(path: str | os.PathLike, *, classes: Sequence[str] | None = None, image_size: int = 0) -> Labelled:
    """Images of a folder, zip or tar: one sub-folder a class, or all directly in the folder, without labels.

    Args:
      path: the folder or archive. Folders inside a class folder belong to that class.
      classes: class names in label order, which may include more than the sub-folders; None takes the sub-folders'
        names, sorted.
      image_size: 0 if all images have one size; else the size to bring them to (see `images.decode`).

    Returns:
      (Split(u8[n h w 3], i32[n]), class names). Without class folders, labels are -1 and the names `classes` or ().

    Raises:
      DataError: no images, an empty or unknown class folder, images beside class folders, or an image that cannot be
        used.
    """
    with reading_path(path):
        files = open_files(Path(path).expanduser())
        prefix = common_prefix(files) if files.root.is_file() else ""
        raw = read_tree(files, prefix, classes=classes, image_size=image_size)
    return Split(raw.images, raw.labels), raw.class_names


def common_prefix(files: Files) -> str:
    """'top/' if all files of the archive lie in one folder, and the images in folders below it; else ''."""
    tops = {name.split("/")[0] for name in files.names}
    pictures = [name for name in files.names if is_image(name)]
    deep = any(name.count("/") >= 2 for name in pictures)
    # One without a suffix may be a note, such as CHANGELOG.
    deep = deep and all(name.count("/") >= 2 for name in pictures if "." in name.split("/")[-1])
    return f"{tops.pop()}/" if len(tops) == 1 and deep and files.names else ""


def read_tree(
    files: Files, prefix: str, *, classes: Sequence[str] | None = None, image_size: int = 0, shape=None
) -> Raw:
    """`read_image_tree` for the files of `files` whose names start with `prefix` ('' or ending in '/')."""
    names, labels, class_names = list_tree(files, prefix, classes=classes)
    records = FileRecords(files, names)
    progress = f"decoding {files.where(prefix.rstrip('/')) if prefix else files.root}"
    options = {"image_size": image_size, "shape": shape, "progress": progress}
    return Raw(decode_all(len(records), records.read, records.where, **options), labels, class_names)


def list_tree(
    files: Files, prefix: str, *, classes: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """(file names, labels i32[n], class names) of the images that `read_tree` reads; opens none of them."""
    where = files.where(prefix.rstrip("/")) if prefix else str(files.root)
    inside = [name for name in files.names if name.startswith(prefix)]
    names = [name for name in inside if is_image(name)]
    if any("/" in name[len(prefix) :] for name in names):  # notes may lie beside class folders, but no image
        names = [name for name in names if "/" in name[len(prefix) :] or holds_image(files.read(name))]
    if not names:
        raise DataError(f"{where} holds no images", "Expected one folder of image files for every class.")
    folders = [name[len(prefix) :].rpartition("/")[0].split("/")[0] for name in names]
    found = sorted(set(folders))
    if found == [""]:
        class_names, labels = tuple(classes or ()), np.full(len(names), -1, np.int32)
    else:
        if "" in found:
            loose = names[folders.index("")]
            raise DataError(f"{files.where(loose)} lies beside class folders", "Move it into the folder of its class.")
        if empty := sorted(_folders(files, prefix, inside) - set(found)):
            raise DataError(f"{where}: class folder {empty[0]!r} holds no images", "Add images or delete the folder.")
        check_class_names(found, where)
        class_names = tuple(classes or found)
        index = {name: i for i, name in enumerate(class_names)}
        if unknown := [name for name in found if name not in index]:
            message = (
                f"{where}: folder {unknown[0]!r} is none of the {len(index)} classes: {', '.join(class_names):.80}"
            )
            raise DataError(message, "Name each class folder like its class.")
        labels = np.array([index[folder] for folder in folders], np.int32)
    return names, labels, class_names


def _folders(files: Files, prefix: str, inside: list[str]) -> set[str]:
    """Sub-folders of `prefix`; on disk the empty ones too."""
    found = {name[len(prefix) :].split("/")[0] for name in inside if "/" in name[len(prefix) :]}
    folder = files.root / prefix
    if folder.is_dir():
        found |= {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX"))}
    return found


IMAGE_FOLDER = Source(load_image_folder, channels=3, encodes=True, own=True)
