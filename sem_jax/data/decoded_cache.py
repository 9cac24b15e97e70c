"""Decoded arrays kept as .npy files, so that the second start takes a second; checked before they are believed.

    split, class_names = cached(key, read)     # read() -> (Split, class_names) is called when nothing good is there

An entry is a folder below $SEM_JAX_CACHE (default: $XDG_CACHE_HOME/sem_jax or ~/.cache/sem_jax) whose name is derived
from the source's files, their sizes and times of change. It is written under another name and renamed when complete;
its arrays' SHA-256 are compared on every reading. A damaged entry is made anew; a cache that can't be written costs a
warning, nothing else.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sem_jax.data.splits import digest
from sem_jax.interfaces import Split

FORMAT = 1  # raise it when the meaning of a stored array changes
log = logging.getLogger("sem_jax.data")


def cache_dir() -> Path:
    """Folder of the cache, whether or not it exists."""
    if folder := os.environ.get("SEM_JAX_CACHE"):
        return Path(folder).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "sem_jax"


def cached(
    name: str, identity: Sequence, read: Callable[[], tuple[Split, tuple[str, ...]]]
) -> tuple[Split, tuple[str, ...]]:
    """`read()`, or what it returned for the same `identity` before.

    Args:
      name: readable beginning of the entry's name: data set and split.
      identity: list of json values that change whenever the result may: its first is what the entry is about (a path
        and options: an older entry with the same first is replaced), the rest the files' sizes and times.
      read: makes the value.

    Returns:
      (Split, class names).
    """
    import PIL  # its JPEG decoder is part of what an array depends on

    about = _short([FORMAT, PIL.__version__, identity[0]])
    entry = cache_dir() / "decoded" / f"{name}-{about}-{_short(identity)}"
    if (value := _load(entry)) is not None:
        return value
    value = read()
    try:
        _store(entry, value)
        for old in entry.parent.glob(f"{name}-{about}-*"):
            if old != entry:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        log.warning(
            "decoded arrays are not kept: cannot write %s (%s); set SEM_JAX_CACHE", entry.parent, error.strerror
        )
    return value


def _short(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _load(entry: Path) -> tuple[Split, tuple[str, ...]] | None:
    if not entry.is_dir():
        return None
    try:
        index = json.loads((entry / "index.json").read_text())
        arrays = []
        for field in Split._fields:
            arrays.append(np.load(entry / f"{field}.npy", allow_pickle=False))
            if digest(arrays[-1]) != index[field]:
                raise ValueError(f"checksum of {field}.npy does not agree")
        return Split(*arrays), tuple(index["class_names"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        log.warning("cached arrays in %s are damaged (%s): reading the source again", entry, error)
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _store(entry: Path, value: tuple[Split, tuple[str, ...]]) -> None:
    split, class_names = value
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=entry.parent))
    try:
        for field, array in split._asdict().items():
            np.save(temporary / f"{field}.npy", array)
        index = {field: digest(array) for field, array in split._asdict().items()} | {"class_names": class_names}
        (temporary / "index.json").write_text(json.dumps(index))
        os.replace(temporary, entry)
    except OSError:
        # Another process may have written the same entry in the meantime: then it is as good as ours.
        if not entry.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
