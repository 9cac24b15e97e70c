"""Checkpoints of a few bytes that unpack to gigabytes, as changes of one that was written by a run.

change_array(checkpoint, lambda about: about | {"shape": [1 << 40]})    # the first kernel's zarr.json
change_chunk(checkpoint, zeros(4 << 30))
"""

import functools
import json
import struct

import tensorstore

MANIFEST, TREE = b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde"
ARRAY = "params.classifier.kernel"


def zeros(count: int, begin: bytes = b"") -> bytes:
    """A zstd frame of `begin` and so many zeros: four bytes for each 128 KiB of them."""
    blocks = [(len(begin) << 3).to_bytes(3, "little") + begin] if begin else []
    while count > 0:
        run = min(count, 1 << 17)
        count -= run
        blocks.append((run << 3 | 2 | (count == 0)).to_bytes(3, "little") + b"\0")
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(blocks)


@functools.cache
def _table() -> list[int]:
    values = list(range(256))
    for _ in range(8):
        values = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in values]
    return values


def crc32c(content: bytes) -> int:
    """The checksum of a node and of the index of a shard."""
    value, table = 0xFFFFFFFF, _table()
    for byte in content:
        value = value >> 8 ^ table[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def node(kind: bytes, content: bytes, packing: int) -> bytes:
    """A node of the database that holds the arrays."""
    body = kind + struct.pack("<Q", len(content) + 18) + bytes([0, packing]) + content
    return body + struct.pack("<I", crc32c(body))


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def store(checkpoint) -> tensorstore.KvStore:
    base = {"driver": "file", "path": f"{checkpoint}/model/"}
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()


def change_array(checkpoint, change, name=ARRAY) -> None:
    """Replaces zarr.json of an array."""
    database = store(checkpoint)
    about = json.loads(database.read(f"{name}/zarr.json").result().value)
    database.write(f"{name}/zarr.json", json.dumps(change(about))).result()


def change_chunk(checkpoint, content: bytes, name=ARRAY) -> None:
    """Replaces the one shard of a matrix by one whose chunk is `content`."""
    index = struct.pack("<QQ", 0, len(content))
    value = content + index + struct.pack("<I", crc32c(index))
    store(checkpoint).write(f"{name}/c/0/0", value).result()


def replace_tree(checkpoint, content_of) -> None:
    """Replaces the root of the tree by `content_of(length)`, (content, packing) of a node of the same length."""
    (path,) = (checkpoint / "model/d").iterdir()
    length = path.stat().st_size
    content, packing = content_of(length - 18)
    path.write_bytes(node(TREE, content[: length - 18].ljust(length - 18, b"\0"), packing))
