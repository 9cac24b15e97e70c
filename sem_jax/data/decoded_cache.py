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
the source's files, their sizes and times of change (of content and, where the system has it, of the file: `cp -p` sets
the first back, but not the second). It is written under another name and renamed when complete; what a killed process
left is removed by the next. Every reading compares the SHA-256 of all values; a damaged entry is made again. Failing to
write is only a warning.
"""

import contextlib
import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sem_jax.data.files import FolderFiles
from sem_jax.data.npy_files import load_npy
from sem_jax.data.refusing import parse_json, read_file
from sem_jax.data.splits import digest
from sem_jax.errors import ConfigError, DataError, one_line
from sem_jax.interfaces import Split
from sem_jax.system.urls import require_local

FORMAT = 2  # raise it when the meaning of a stored value changes
INDEX_LIMIT = 64 << 20  # bytes of index.json, which has the class names
log = logging.getLogger("sem_jax.data")
Labelled = tuple[Split, tuple[str, ...]]  # a split and its class names


def cache_dir() -> Path:
    """Folder of the cache, whether or not it exists.

    Raises:
      ConfigError: it is in the home folder, and there is none.
    """
    require_local("$SEM_JAX_CACHE", os.environ.get("SEM_JAX_CACHE", ""), out=True)
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sem_jax"
    try:
        return Path(os.environ.get("SEM_JAX_CACHE") or default).expanduser()
    except RuntimeError:  # no $HOME, and nobody of this number in /etc/passwd, as in some containers
        raise ConfigError("there is no home folder for the cache", "Set SEM_JAX_CACHE to a folder.") from None


def identity(path: Path, *options) -> list:
    """What a cached reading of `path` depends on: [[place, *options], then [name, size, times] of each file]."""
    about = [str(path.resolve()), *options]
    if not path.is_dir():
        return [about, stamp(path)]
    return [about, *([name, *stamp(os.path.join(path, name))] for name in FolderFiles(path).names)]


def stamp(file: str | os.PathLike) -> list[int]:
    """Size of a file, the time of its last change and that of its status, in ns; [] of what cannot be read."""
    try:
        status = os.stat(file)
    except OSError:
        return []  # whoever reads it says so
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


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
    for old in entry.parent.glob(f"{glob.escape(about)}-*"):
        if old != entry:
            _remove(old)
    return Split(value["images"], value["labels"]), tuple(value["class_names"])


def place_of(kind: str, about: Sequence) -> Path:
    """Folder of the entry that `about`, a list of JSON values, determines."""
    return cache_dir() / kind / _short([FORMAT, *about])


def kept(entry: Path, arrays: Sequence[str], make: Callable[[], dict[str, Any]], other: Sequence[str] = ()) -> dict:
    """`make()`, or what it returned when the folder `entry` was written.

    Its values named in `arrays` are kept as .npy files, those named in `other` as JSON.
    """
    for left in entry.parent.glob(".incomplete-*"):
        with _locked(left) as free:
            if free:  # else another process is writing it
                _remove(left)
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


def _digest(index: dict[str, Any]) -> str:
    """Hex SHA-256 of an index without its own digest."""
    return hashlib.sha256(json.dumps({**index, "sha256": ""}, sort_keys=True).encode()).hexdigest()


def _load(entry: Path, arrays: Sequence[str], other: Sequence[str]) -> dict[str, Any] | None:
    if not os.path.lexists(entry):
        return None
    try:
        if entry.is_symlink():
            raise ValueError("a link")
        index = parse_json(read_file(entry / "index.json", INDEX_LIMIT))
        if index["sha256"] != _digest(index):
            raise ValueError("checksum of index.json does not agree")
        value = {name: index[name] for name in (*arrays, *other)}
        for name in arrays:
            array = load_npy(entry / f"{name}.npy")
            if digest(array) != value[name]:
                raise ValueError(f"checksum of {name}.npy does not agree")
            value[name] = array
        return value
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s in the cache is damaged (%s): reading the source again", entry, one_line(error))
        _remove(entry)
        return None


def _store(entry: Path, arrays: Sequence[str], value: dict[str, Any]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=entry.parent))
    try:
        with _locked(temporary):
            for name in arrays:
                np.save(temporary / f"{name}.npy", value[name])
            index = value | {name: digest(value[name]) for name in arrays}
            (temporary / "index.json").write_text(json.dumps(index | {"sha256": _digest(index)}))
            os.replace(temporary, entry)
    except OSError:
        # Another process may have written the same entry meanwhile, which is as good.
        if not entry.is_dir():
            raise
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    """Removes a file, a link or a folder; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process could lock the folder, until the end of the block; the system frees it if a process dies."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY | os.O_NONBLOCK)
    except (ImportError, OSError):  # Windows; or it is gone
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        locked = False
    else:
        locked = True
    try:
        yield locked
    finally:
        os.close(handle)
