"""The record of all runs of a sweep: one line of JSON a run, only ever appended to; tables are made from it alone.

    ledger = Ledger("runs/paper/ledger")
    ledger.append({"id": cell.id, "status": "done", ...}, items={"correct test": correct})
    book = ledger.read()             # Book(done, failed, duplicates, torn)
    book.done[cell.id]["accuracy"]["last"]
    ledger.items(book.done[cell.id])["correct test"]

The folder holds ledger.jsonl and, for paired tests, items/<id>.npz: what each test item got to. Several processes may
append at once. A line that was cut off is left out and counted.
"""

import fcntl
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sem_jax.errors import RunError
from sem_jax.runs.records import replacing

FORMAT = 1  # raise it when the meaning of a field changes
STATUSES = ("done", "failed")


class Book(NamedTuple):
    """The ledger, read."""

    done: dict[str, dict]  # id -> its newest entry that is done
    failed: dict[str, dict]  # id -> its newest entry, where none is done
    duplicates: dict[str, int]  # id -> number of done entries, where there are several
    torn: int  # lines that could not be read


class Ledger:
    """A ledger folder.

    Args:
      folder: made with the first entry.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        self.path = self.folder / "ledger.jsonl"
        self._items: dict[str, dict[str, np.ndarray]] = {}  # by digest: a report asks for the same ones many times

    def append(self, entry: Mapping, items: Mapping[str, np.ndarray] | None = None) -> dict:
        """Adds an entry; on disk when this returns.

        Args:
          entry: JSON with "id" and "status" ("done" or "failed").
          items: arrays of one row an item: bool and float; see `pack`.

        Returns:
          The entry as written.
        """
        entry = {"format": FORMAT, **entry}
        if entry["status"] not in STATUSES:
            raise ValueError(f"status must be one of {STATUSES}, got {entry['status']!r}")
        self.folder.mkdir(parents=True, exist_ok=True)
        if items is not None:
            content = pack(items)
            path = self.folder / "items" / f"{entry['id']}.npz"
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as file:
                file.write(content)
            entry["items"] = {"file": f"items/{path.name}", "sha256": hashlib.sha256(content).hexdigest()}
        line = json.dumps(entry, allow_nan=False) + "\n"
        with open(self.path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if (end := file.seek(0, os.SEEK_END)) > 0:
                file.seek(end - 1)
                if file.read(1) != b"\n":  # a writer died here: its half line must not swallow this one
                    line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        return entry

    def read(self) -> Book:
        """All entries; of several for one id the newest done one counts.

        Raises:
          RunError: the ledger is not there, or of a newer format.
        """
        if not self.path.is_file():
            raise RunError(f"{self.path} is missing: no ledger", "Run: python -m experiments.paper --out=DIR")
        done, failed, counts, torn = {}, {}, {}, 0
        for line in self.path.read_bytes().splitlines():
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                name, status = entry["id"], entry["status"]
            except (ValueError, KeyError, TypeError):
                torn += 1
                continue
            if entry.get("format", 0) > FORMAT:
                raise RunError(f"{self.path} has an entry of format {entry['format']}, this version reads {FORMAT}")
            if status == "done":
                done[name] = entry
                counts[name] = counts.get(name, 0) + 1
            else:
                failed[name] = entry
        failed = {name: entry for name, entry in failed.items() if name not in done}
        return Book(done, failed, {name: n for name, n in counts.items() if n > 1}, torn)

    def read_or_empty(self) -> Book:
        """`read`, with nothing in it where there is no ledger yet."""
        return self.read() if self.path.is_file() else Book({}, {}, {}, 0)

    def items(self, entry: Mapping) -> dict[str, np.ndarray] | None:
        """What `append` was given with an entry; None where it was nothing, is gone or is of another entry."""
        about = entry.get("items")
        if not about:
            return None
        digest, path = about["sha256"], self.folder / about["file"]
        if digest not in self._items and path.is_file():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == digest:
                self._items[digest] = unpack(content)
        return self._items.get(digest)


def pack(items: Mapping[str, np.ndarray]) -> bytes:
    """An .npz file: booleans as bits with their number, other arrays as float16.

    A maximum softmax probability ("msp ...") is stored as its log odds: AUROC knows only the order, and near 1 float16
    could not tell one probability from the next. One that is float16 has been unpacked, and stays as it is.
    """
    arrays = {}
    for name, values in items.items():
        if values.dtype == bool:
            arrays[f"bits {name}"], arrays[f"size {name}"] = np.packbits(values), np.int64(len(values))
            continue
        if name.startswith("msp ") and values.dtype != np.float16:
            chance = np.clip(values.astype(np.float64), 1e-12, 1 - 1e-15)
            values = np.log(chance) - np.log1p(-chance)
        arrays[name] = values.astype(np.float16)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """What `pack` was given, floats as float16 and "msp ..." as log odds."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = dict(stored)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise RunError(f"items of a ledger entry cannot be read: {error}") from error
    out = {name: values for name, values in arrays.items() if not name.startswith(("bits ", "size "))}
    for name, values in arrays.items():
        if name.startswith("bits "):
            label = name.removeprefix("bits ")
            out[label] = np.unpackbits(values, count=int(arrays[f"size {label}"])).astype(bool)
    return out
