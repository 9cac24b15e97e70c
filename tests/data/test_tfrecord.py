"""TFRecord: checksums against known ones, an independent writer, damage at every byte."""

import pytest

from sem_jax.data.tfrecord import crc32c_many, read_records
from sem_jax.errors import DataError
from tests.helpers.data_sets import (
    write_records,
)


def test_crc32c(rng):
    assert crc32c_many([b"123456789", b"", b"a"]).tolist() == [0xE3069283, 0, 0xC1D04330]
    rows = [rng.bytes(n) for n in (3, 4, 5, 2500, 17, 17, 4)]
    assert crc32c_many(rows).tolist() == [crc32c_many([row])[0] for row in rows]
    assert crc32c_many([b"\0" * 32])[0] == 0x8A9136AA  # RFC 3720, B.4


def test_tfrecord_as_an_independent_writer_writes_it(tmp_path):
    writer = pytest.importorskip("tensorboardX.record_writer").RecordWriter(str(tmp_path / "events"))
    rows = [b"first", b"", b"x" * 1000]
    for row in rows:
        writer.write(row)
    writer.close()
    assert read_records(tmp_path / "events") == rows
    write_records(tmp_path / "ours", rows)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "events").read_bytes()


def test_tfrecord_damage_at_every_byte(tmp_path):
    path = tmp_path / "r"
    write_records(path, [b"0123456789", b"abc"])
    data = path.read_bytes()
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 0x10]) + data[i + 1 :])
        with pytest.raises(DataError):
            read_records(path)
    for i in range(1, len(data)):
        path.write_bytes(data[:i])
        if i != 26:  # a cut between two records shows in the count alone
            with pytest.raises(DataError):
                read_records(path)
