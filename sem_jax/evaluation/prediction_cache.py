"""The cache of predictions below a run folder, by checkpoint, set of images and precision.

    cache = Cache(run.folder / "predictions", run.fingerprint, run.precision)
    entry = cache("test", digest(images), lambda: {"logits": logits, "features": features})

An entry is an .npz file, not compressed, with the SHA-256 of every array in it. A damaged entry is computed again. A
link in place of the folder or of an entry is left alone.

A run folder may come from somebody else, and so may what it says that a net predicted. An entry is therefore signed
with a key of this user, a file below $SEM_JAX_CACHE. What was not signed here is computed again.
"""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sem_jax.data.decoded_cache import cache_dir
from sem_jax.data.npy_files import read_npy
from sem_jax.data.splits import digest
from sem_jax.errors import RunError, one_line, plain
from sem_jax.runs.reading import parse_json, read_bytes
from sem_jax.runs.records import replacing

FORMAT = 1  # raise it when the meaning of a stored array changes
KEY, KEY_BYTES = "predictions.key", 32
Arrays = dict[str, np.ndarray]
log = logging.getLogger("sem_jax.evaluation")


class Cache:
    """The entries of one checkpoint.

    Args:
      folder: made when the first entry is written; None = only in memory.
      checkpoint, precision: digest of the model, and what else the numbers depend on.
    """

    def __init__(self, folder: Path | None, checkpoint: str, precision: str):
        self._folder, self._about = folder, (FORMAT, checkpoint, precision)
        if folder is not None and folder.is_symlink():
            log.warning("predictions are not kept: %s is a link", plain(str(folder)))
            self._folder = None
        self._memory: dict[str, Arrays] = {}

    def __call__(self, name: str, images: str, make: Callable[[], Arrays], *, wanted: Sequence[str] = ()) -> Arrays:
        """The arrays of an entry, from memory, from disk, or from `make()`.

        Args:
          name: readable beginning of the file's name.
          images: digest of the images, or a text that determines them.
          make: computes the arrays.
          wanted: names of arrays that the entry must have; one that lacks them is computed again.
        """
        key = hashlib.sha256(json.dumps([*self._about, images]).encode()).hexdigest()
        arrays = self._memory.get(key) or self._read(name, key)
        if arrays is None or not set(wanted) <= set(arrays):
            arrays = {what: np.asarray(value) for what, value in make().items()}
            self._write(name, key, arrays)
        self._memory[key] = arrays
        return arrays

    @staticmethod
    def _path(folder: Path, name: str, key: str) -> Path:
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._")[:60] or "set"
        return folder / f"{readable}-{key[:20]}.npz"

    def _read(self, name: str, key: str) -> Arrays | None:
        if self._folder is None or not (path := self._path(self._folder, name, key)).is_file() or path.is_symlink():
            return None
        try:
            with zipfile.ZipFile(path) as file:
                entries = {it.filename: it for it in file.infolist()}
                packed = any(it.compress_type for it in entries.values())
                if packed or sum(it.file_size for it in entries.values()) > path.stat().st_size:
                    raise ValueError("its arrays are larger than the file")

                def stored(what: str) -> np.ndarray:
                    with file.open(entries[f"{what}.npy"]) as member:
                        return read_npy(member, entries[f"{what}.npy"].file_size, what)

                index = parse_json(stored("index").tobytes())
                arrays = {what: stored(what) for what in index["arrays"]}
            if index["key"] != key or any(digest(arrays[what]) != sha for what, sha in index["arrays"].items()):
                raise ValueError("checksum does not agree")
            if not hmac.compare_digest(index["signature"], _sign(key, index["arrays"])):
                log.warning("%s was not written by this user on this machine: computing it again", plain(str(path)))
                return None
            return arrays
        except Exception as error:  # zip, zlib and NumPy raise errors of their own
            log.warning("%s is damaged (%s): computing it again", plain(str(path)), plain(one_line(error)))
            return None

    def _write(self, name: str, key: str, arrays: Arrays) -> None:
        if self._folder is None:
            return
        path = self._path(self._folder, name, key)
        digests = {what: digest(value) for what, value in arrays.items()}
        about = json.dumps({"key": key, "arrays": digests, "signature": _sign(key, digests)})
        stored: dict[str, Any] = {"index": np.frombuffer(about.encode(), np.uint8), **arrays}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                np.savez(file, **stored)
        except OSError as error:
            log.warning("predictions are not kept: cannot write %s (%s)", path, error.strerror or error)
            self._folder = None  # warns only once


def _sign(key: str, digests: dict[str, str]) -> str:
    """Hex HMAC-SHA256 of an entry's key and of the digests of its arrays."""
    return hmac.digest(_secret(), json.dumps([key, digests], sort_keys=True).encode(), "sha256").hex()


_of_this_process = secrets.token_bytes(KEY_BYTES)


def _secret() -> bytes:
    """The key of this user, made when there is none; where it cannot be kept, one that ends with this process."""
    path = cache_dir() / KEY
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{KEY}.{os.getpid()}-{secrets.token_hex(4)}")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            os.replace(temporary, path)
        found = read_bytes(path, limit=KEY_BYTES)
    except (OSError, RunError):
        return _of_this_process
    return found if len(found) == KEY_BYTES else _of_this_process
