"""Arrow files as `datasets.Dataset.save_to_disk` writes them, read row by row from where they lie.

    for batch in open_batches(path):                   # record batches, mapped into memory: nothing is copied
    records = ArrowRecords(files, "image", identity)   # `encoded.Records`
    records.read(3)                                    # the bytes of the encoded image

A file may be a stranger's: every batch is validated before it is read, and compressed ones, of which a small file may
hold gigabytes, are refused.
"""

import functools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sem_jax.data.refusing import refusing
from sem_jax.errors import DataError

REMEDY = "Take a folder of `save_to_disk`, or of parquet files as a hub has them."


def open_batches(path: str | Path) -> list[Any]:
    """The record batches of a file, as pyarrow.RecordBatch.

    Raises:
      DataError: compressed batches. What pyarrow raises: a damaged file.
    """
    import pyarrow

    with pyarrow.memory_map(str(path)) as file:
        for message in pyarrow.ipc.MessageReader.open_stream(file):
            if _is_compressed(bytes(message.metadata)):
                raise DataError(f"{path} has compressed batches, which save_to_disk does not write", REMEDY)
    with pyarrow.memory_map(str(path)) as file:
        batches = list(pyarrow.ipc.open_stream(file))
    for batch in batches:
        batch.validate(full=True)  # a damaged one would be read beyond its end
    return batches


def content_of(cell: Any, where: str) -> bytes:
    """The encoded image in a cell of a column of images: {"bytes": ..., "path": ...}, or the bytes themselves.

    Raises:
      DataError: there is none.
    """
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if content is None:
        raise DataError(f"{where} has no image, perhaps a path to one, which is not opened", REMEDY)
    return content


class ArrowRecords:
    """`encoded.Records` of a column of images. It can be pickled, since a file is opened when it is first read.

    Args:
      files: Arrow files with one or more rows together.
      column: of the images.
      identity: text that changes with the files, so that a replaced file is opened again.
    """

    def __init__(self, files: Sequence[Path], column: str, identity: str):
        self._files, self._column, self._identity = [str(file) for file in files], column, identity
        self._starts = np.cumsum([0, *(_open(file, identity)[1][-1] for file in self._files)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def where(self, index: int) -> str:
        """File and row."""
        return "{}: row {}".format(*self._place(index))

    def read(self, index: int) -> bytes:
        """The encoded image."""
        file, row = self._place(index)
        with refusing(f"{file} is damaged", "Fetch or save it once more."):
            batches, starts = _open(file, self._identity)
            number = _before(starts, row)
            cell = batches[number].column(self._column)[row - int(starts[number])].as_py()
        return content_of(cell, self.where(index))

    def _place(self, index: int) -> tuple[str, int]:
        number = _before(self._starts, index)
        return self._files[number], index - int(self._starts[number])


def _before(starts: np.ndarray, row: int) -> int:
    """Number of the part that has a row, where parts may be empty."""
    return int(np.searchsorted(starts, row, side="right")) - 1


@functools.lru_cache(maxsize=256)  # for the whole process, which may open about 1,000 files
def _open(file: str, identity: str) -> tuple[list[Any], np.ndarray]:  # the identity is part of the cache's key
    """(batches, number of rows before each of them and after the last)."""
    with refusing(f"{file} is damaged", "Fetch or save it once more."):
        batches = open_batches(file)
    return batches, np.cumsum([0, *(batch.num_rows for batch in batches)])


def _is_compressed(message: bytes) -> bool:
    """Whether an Arrow message is a record batch with compressed buffers (flatbuffers: Message.header.compression)."""

    def slot(table: int, number: int) -> int:
        """Place of a field of a table; 0 = it is not there."""
        vtable = table - struct.unpack_from("<i", message, table)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", message, vtable)[0]:
            return 0
        offset = struct.unpack_from("<H", message, vtable + 4 + 2 * number)[0]
        return table + offset if offset else 0

    root = struct.unpack_from("<I", message, 0)[0]
    kind, header = slot(root, 1), slot(root, 2)
    if not kind or not header or message[kind] != 3:  # 3 = RecordBatch
        return False
    return bool(slot(header + struct.unpack_from("<I", message, header)[0], 3))
