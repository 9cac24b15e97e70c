"""TFRecord files without TensorFlow: framing and masked CRC-32C, in numpy.

    read_records(path)         # list[bytes], every checksum checked
    crc32c_many(rows)          # u32[n]

A record is: u64 length, u32 masked crc of those 8 bytes, the bytes, u32 masked crc of the bytes; little endian.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sem_jax.errors import DataError

_HEADER = struct.Struct("<QI")
_BATCH_BYTES = 8 << 20  # of one matrix of records; stays near the cache


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Table for one byte and, from it, for two bytes at once (reversed Castagnoli polynomial 0x82F63B78)."""
    one = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = np.where(one & 1, (one >> 1) ^ np.uint32(0x82F63B78), one >> 1)
    two = np.arange(65536, dtype=np.uint32)
    for _ in range(2):
        two = one[two & 0xFF] ^ (two >> 8)
    return one, two


_ONE, _TWO = _tables()


def crc32c_many(rows: Sequence[bytes]) -> np.ndarray:
    """CRC-32C of each row.

    Records go through the table side by side, two bytes a step, so 60,000 PNGs of 2 KB take about a second. Rows are
    aligned at their ends: a CRC that starts at 0 ignores leading zeros, and starting at 0xFFFFFFFF equals inverting
    the first four bytes.

    Args:
      rows: n byte strings of any lengths.

    Returns:
      u32[n].
    """
    out = np.empty(len(rows), np.uint32)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    start = 0
    while start < len(order):
        if len(rows[order[start]]) < 4:
            out[order[start]] = _crc_short(rows[order[start]])
            start += 1
            continue
        # Shorter rows first: the last of a batch is the longest and gives the matrix its width.
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * len(rows[order[stop]]) <= _BATCH_BYTES:
            stop += 1
        index = order[start:stop]
        width = (len(rows[index[-1]]) + 1) // 2 * 2
        matrix = np.zeros((len(index), width), np.uint8)
        for row, i in zip(matrix, index, strict=True):
            row[width - len(rows[i]) :] = np.frombuffer(rows[i], np.uint8)
            row[width - len(rows[i]) : width - len(rows[i]) + 4] ^= 0xFF
        crc = np.zeros(len(index), np.uint32)
        for column in np.ascontiguousarray(matrix.view("<u2").T):
            crc = _TWO[(crc ^ column) & 0xFFFF] ^ (crc >> 16)
        out[index] = crc ^ np.uint32(0xFFFFFFFF)
        start = stop
    return out


def _crc_short(row: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in row:
        crc = int(_ONE[(crc ^ byte) & 0xFF]) ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked(crc: np.ndarray) -> np.ndarray:
    """CRC-32C, u32[n], as the format stores it."""
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


def read_records(path: Path) -> list[bytes]:
    """Every record of one file.

    Raises:
      DataError: the file cannot be read, ends inside a record, or a checksum does not agree; names file and record.
    """
    remedy = "The file is damaged: copy or prepare the data set again."
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", remedy) from error
    records, headers, expected, header_expected = [], [], [], []
    at = 0
    while at < len(data):
        if at + 12 > len(data):
            raise DataError(f"{path} ends inside record {len(records)}", remedy)
        length, header_crc = _HEADER.unpack_from(data, at)
        if length > len(data) - at - 16:
            raise DataError(f"{path} is damaged or cut off: record {len(records)} does not fit the file", remedy)
        headers.append(data[at : at + 8])
        header_expected.append(header_crc)
        records.append(data[at + 12 : at + 12 + length])
        expected.append(int.from_bytes(data[at + 12 + length : at + 16 + length], "little"))
        at += 16 + length
    bad = (masked(crc32c_many(headers)) != np.array(header_expected, np.uint32)) | (
        masked(crc32c_many(records)) != np.array(expected, np.uint32)
    )
    if bad.any():
        raise DataError(f"{path}: checksum of record {int(bad.argmax())} of {len(records)} does not agree", remedy)
    return records
