"""The cache on disk: decoded arrays, and the statistics of encoded images, for a quick second start.

>>> def read():
...     print("reading")
...     return Split(np.zeros((2, 4, 4, 3), np.uint8), np.arange(2, dtype=np.int32)), ("cat", "dog")
>>> about = [["photos", "image_size=4"], ["0.png", 2048, 1700000000]]    # as `identity` returns it for a folder
>>> split, class_names = cached("photos", about, read)
reading
>>> split, class_names = cached("photos", about, read)    # from the cache
>>> split.images.shape, class_names
((2, 4, 4, 3), ('cat', 'dog'))

An entry is a folder below $SEM_JAX_CACHE (default: $XDG_CACHE_HOME/sem_jax or ~/.cache/sem_jax). Its name is a hash of
the source's files, their sizes and times of change. It is written under another name and renamed when complete. Every
reading compares the SHA-256 of its .npy arrays; a damaged entry is made again. Failing to write is only a warning.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sem_jax.data.files import FolderFiles
from sem_jax.data.splits import digest
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

FORMAT = 1  # raise it when the meaning of a stored array changes
log = logging.getLogger("sem_jax.data")
Labelled = tuple[Split, tuple[str, ...]]  # a split and its class names


def cache_dir() -> Path:
    """Folder of the cache, whether or not it exists."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sem_jax"
    return Path(os.environ.get("SEM_JAX_CACHE") or default).expanduser()


def identity(path: Path, *options) -> list:
    """What a cached reading of `path` depends on: [[place, *options], then [name, size, time] of each file]."""
    about = [str(path.resolve()), *options]
    if path.is_dir():
        stats = ((name, os.stat(os.path.join(path, name))) for name in FolderFiles(path).names)
        return [about, *([name, status.st_size, status.st_mtime_ns] for name, status in stats)]
    status = path.stat()
    return [about, [status.st_size, status.st_mtime_ns]]


def cached(name: str, identity: Sequence, read: Callable[[], Labelled]) -> Labelled:
    """`read()`, or what it returned before for the same `identity`.

    `name` begins the entry's name. The entry replaces older ones whose identity has the same first element.
    """
    import PIL  # its JPEG decoder is part of what an array depends on

    about = f"{name}-{_short([FORMAT, PIL.__version__, identity[0]])}"

    def make() -> dict:
        split, class_names = read()
        return split._asdict() | {"class_names": class_names}

    entry = cache_dir() / "decoded" / f"{about}-{_short(identity)}"
    value = kept(entry, Split._fields, make, other=("class_names",))
    for old in entry.parent.glob(f"{about}-*"):
        if old != entry:
            shutil.rmtree(old, ignore_errors=True)
    return Split(value["images"], value["labels"]), tuple(value["class_names"])


def place_of(kind: str, about: Sequence) -> Path:
    """Folder of the entry that `about`, a list of JSON values, determines."""
    return cache_dir() / kind / _short(about)


def kept(entry: Path, arrays: Sequence[str], make: Callable[[], dict[str, Any]], other: Sequence[str] = ()) -> dict:
    """`make()`, or what it returned when the folder `entry` was written.

    Its values named in `arrays` are kept as .npy files, those named in `other` as JSON.
    """
    if (value := _load(entry, arrays, other)) is not None:
        return value
    value = make()
    try:
        _store(entry, arrays, value)
    except OSError as error:
        log.warning("nothing is cached: cannot write %s (%s); set SEM_JAX_CACHE", entry.parent, error.strerror)
    return value


def read_splits(
    name: str, path: Path, options: Sequence, splits: Sequence[str], read: Callable[[str], Labelled], *, cache: bool
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """(`read(split)` of each split by name, class names), from the cache if `cache`.

    Args:
      name: name of the data set.
      path: the folder or file that is read; with `options` it determines the arrays.

    Raises:
      DataError: the classes of train and test differ.
    """
    about = identity(path, *options) if cache else []
    out = {s: cached(f"{name}-{s}", about, lambda s=s: read(s)) if cache else read(s) for s in splits}
    names = {split: class_names for split, (_, class_names) in out.items()}
    if len(set(names.values())) > 1:
        odd = sorted(set(names["train"]) ^ set(names["test"]))
        has, lacks = ("train", "test") if odd and odd[0] in names["train"] else ("test", "train")
        what = f"class {odd[0]!r} is in {has} but not in {lacks}" if odd else "train and test order classes differently"
        raise DataError(f"{path}: {what}", "Give both splits the same class folders.")
    return {split: value for split, (value, _) in out.items()}, names[splits[0]]


def _short(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _load(entry: Path, arrays: Sequence[str], other: Sequence[str]) -> dict[str, Any] | None:
    if not entry.is_dir():
        return None
    try:
        index = json.loads((entry / "index.json").read_text())
        value = {name: index[name] for name in (*arrays, *other)}
        if not all(isinstance(value[name], str | list) for name in other):
            raise ValueError("index.json holds values of another type")
        for name in arrays:
            array = np.load(entry / f"{name}.npy", allow_pickle=False)
            if digest(array) != value[name]:
                raise ValueError(f"checksum of {name}.npy does not agree")
            value[name] = array
        return value
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        log.warning("%s in the cache is damaged (%s): reading the source again", entry, error)
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _store(entry: Path, arrays: Sequence[str], value: dict[str, Any]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=entry.parent))
    try:
        for name in arrays:
            np.save(temporary / f"{name}.npy", value[name])
        index = value | {name: digest(value[name]) for name in arrays}
        (temporary / "index.json").write_text(json.dumps(index))
        os.replace(temporary, entry)
    except OSError:
        # Another process may have written the same entry meanwhile, which is as good.
        if not entry.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
