"""Trees of image files, in a folder, a zip or a tar: one class a sub-folder, or all in one folder without labels.

read_image_tree("places_crops")              # (Split, class names)
read_image_tree("photos", image_size=32)     # no class folders: labels are -1, class names ()
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sem_jax.data.facts import Raw
from sem_jax.data.files import Files, open_files
from sem_jax.data.images import decode_all, is_image
from sem_jax.errors import DataError
from sem_jax.interfaces import Split


def read_image_tree(
    path: str | os.PathLike, *, classes: Sequence[str] | None = None, image_size: int = 0
) -> tuple[Split, tuple[str, ...]]:
    """Images of a folder, zip or tar: one class a sub-folder, or all directly in the folder without labels.

    Args:
      path: the folder or archive. Folders inside a class folder belong to that class.
      classes: class names in label order; None takes the sub-folders' names, sorted. A sub-folder that is not among
        them is an error, a class without a sub-folder is not (`labels` then lack it).
      image_size: 0 if all images have one size; else the size to bring them to (see `images.decode`).

    Returns:
      (Split(u8[n h w 3], i32[n]), class names); for a folder without class folders labels are -1 and names `classes`
      or ().

    Raises:
      DataError: no images, an empty class folder, images beside class folders, or an image that can't be used.
    """
    files = open_files(Path(path).expanduser())
    prefix = common_prefix(files) if files.root.is_file() else ""
    raw = read_tree(files, prefix, classes=classes, image_size=image_size)
    return Split(raw.images, raw.labels), raw.class_names


def common_prefix(files: Files) -> str:
    """'top/' if every file of the archive lies below one folder that holds folders; else ''."""
    tops = {name.split("/")[0] for name in files.names}
    deep = all(name.count("/") >= 2 for name in files.names if is_image(name))
    return f"{tops.pop()}/" if len(tops) == 1 and deep and files.names else ""


def read_tree(
    files: Files, prefix: str, *, classes: Sequence[str] | None = None, image_size: int = 0, shape=None
) -> Raw:
    """`read_image_tree` for the files of `files` whose names start with `prefix` ('' or ending in '/')."""
    names, labels, class_names = list_tree(files, prefix, classes=classes)
    images = decode_all(
        len(names),
        lambda i: files.read(names[i]),
        lambda i: files.where(names[i]),
        image_size=image_size,
        shape=shape,
        progress=f"decoding {files.where(prefix.rstrip('/')) if prefix else files.root}",
    )
    return Raw(images, labels, class_names)


def list_tree(
    files: Files, prefix: str, *, classes: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """(file names, labels i32[n], class names) of what `read_tree` reads; nothing is opened."""
    where = files.where(prefix.rstrip("/")) if prefix else str(files.root)
    inside = [name for name in files.names if name.startswith(prefix)]
    names = [name for name in inside if is_image(name)]
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
            raise DataError(f"{where}: class folder {empty[0]!r} holds no images", "Fill the folder or delete it.")
        class_names = tuple(classes or found)
        index = {name: i for i, name in enumerate(class_names)}
        if unknown := [name for name in found if name not in index]:
            classes_are = f"the {len(index)} classes ({', '.join(class_names)[:80]})"
            message = f"{where}: folder {unknown[0]!r} is none of {classes_are}"
            raise DataError(message, "Name the class folders as the classes are named.")
        labels = np.array([index[folder] for folder in folders], np.int32)
    return names, labels, class_names


def _folders(files: Files, prefix: str, inside: list[str]) -> set[str]:
    """Sub-folders of `prefix`, also those on disk with nothing in them (archives list files only)."""
    found = {name[len(prefix) :].split("/")[0] for name in inside if "/" in name[len(prefix) :]}
    folder = files.root / prefix
    if folder.is_dir():
        found |= {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX"))}
    return found
