"""What the files of a checkpoint unpack to, checked before orbax reads them; they may be a stranger's.

    check_size(manifest, like)              # the files have as many bytes as arrays of these shapes need
    check_array_files(path, items)          # what is unpacked on the way to the arrays is small; no jax

The digests of a manifest say that files are as they were written, not by whom. A small file may unpack to any size.
The arrays are in zarr's format, https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html. tensorstore unpacks
them piece by piece, up to the size that zarr.json says, so that zarr.json is what has to be bounded. It is a value of a
database, https://google.github.io/tensorstore/kvstore/ocdbt/index.html#storage-format. The nodes of its tree are
compressed, and share the beginnings of their keys: both may unpack to any size, and are bounded first.
"""

import io
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import tensorstore
import zstandard

from sem_jax.runs.manifest import Damaged
from sem_jax.runs.reading import parse_json, read_bytes

MAX_COPIES, MAX_REST = 8, 64 << 20  # of the arrays in the files, optimizer and teacher included; bytes beside them
MAX_PACKED, MAX_SMALL = 100, 1 << 30  # times that a checkpoint may be smaller than its arrays, if these have more bytes
ROOM, ROOM_OF_ARRAY = 1 << 16, MAX_COPIES << 11  # bytes of a file or node beside the arrays, and more for each array
MAX_CHUNKS = 4096  # of one array
_VERSIONS = 4096  # bytes of what names the versions of the tree
_MAGIC = b"\x0c\xdb"
_KINDS = {b"\x0c\xdb\x3a\x2a": "manifest", b"\x0c\xdb\x12\x34": "versions", b"\x0c\xdb\x20\xde": "tree"}


def check_size(manifest: Mapping, like: Any) -> None:
    """Compares the bytes of a checkpoint's files with those of the arrays that are expected in it.

    Args:
      manifest: from `read_manifest`.
      like: a tree of arrays or ShapeDtypeStructs, all of the checkpoint's or a part of them.

    Raises:
      Damaged: it has more than these arrays need, or so few that they would be made of almost nothing.
    """
    size = sum(file["bytes"] for file in manifest["files"].values())
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))
    if size > MAX_COPIES * needed + MAX_REST or needed > max(MAX_SMALL, MAX_PACKED * size):
        raise Damaged(f"its files have {size} bytes, its arrays need {needed}")


def check_array_files(path: Path, items: Mapping[str, Any]) -> None:
    """Checks what is unpacked when the arrays of a checkpoint are read. Costs one reading of its files.

    Args:
      path: folder of the checkpoint, whose files are plain files (`manifest.read_verified`).
      items: tree of arrays or ShapeDtypeStructs, by the name of the subfolder they are in.

    Raises:
      Damaged: names what is larger than a run writes it, or is of another form.
    """
    room = ROOM + ROOM_OF_ARRAY * len(jax.tree.leaves(items))
    for file in sorted(path.rglob("*")):
        found = file.lstat()
        if stat.S_ISREG(found.st_mode):
            name = file.relative_to(path)
            if file.parent.name != "d" and name.name != "manifest.json" and found.st_size > room:
                raise Damaged(f"{name}: {found.st_size} bytes, expected at most {room}")
            for node in _nodes(file):
                _check_node(node, room, str(name))
    for item, tree in items.items():
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        if leaves:
            _check_arrays(path / item, {jax.tree_util.keystr(key, simple=True, separator="."): x for key, x in leaves})


def _nodes(path: Path) -> Iterator[bytes]:
    """Whatever looks like a node in a file: they begin with two bytes of their own, and with their length."""
    with open(path, "rb") as file:
        size, begin, carried = os.fstat(file.fileno()).st_size, 0, b""
        while piece := file.read(1 << 20):
            piece, at = carried + piece, -1
            while (at := piece.find(_MAGIC, at + 1)) >= 0:
                file.seek(begin + at)
                head = file.read(12)
                length = int.from_bytes(head[4:], "little")
                if head[:4] in _KINDS and len(head) == 12 and 16 <= length <= size - begin - at:
                    file.seek(begin + at)
                    yield file.read(length)
            begin, carried = begin + len(piece) - 1, piece[-1:]
            file.seek(begin + 1)


def _check_node(node: bytes, room: int, name: str) -> None:
    """Unpacks a node within bounds, and adds up the lengths of the keys and paths in it."""
    kind = _KINDS[node[:4]]
    limit = room if kind == "tree" else _VERSIONS
    try:
        numbers = Varints(node[12:-4])
        _, packing = numbers.take(2)
        content = node[12 + numbers.at : -4]
        if packing == 1:
            content = _unpacked(content, limit)
        if packing > 1 or len(content) > limit:
            raise ValueError(f"unpacks to more than {limit} bytes")
        if kind == "tree" and (longest := _length_of_names(content)) > room:
            raise ValueError(f"has names of {longest} bytes")
    except (ValueError, IndexError, zstandard.ZstdError) as error:
        raise Damaged(f"{name}: a node of its tree {error or 'cannot be read'}, which no run writes") from None


def _unpacked(content: bytes, limit: int) -> bytes:
    """At least `limit` + 1 bytes, if there are so many."""
    found = b""
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True) as reader:
        while len(found) <= limit and (piece := reader.read(limit + 1)):
            found += piece
    return found


class Varints:
    """Reads numbers of seven bits a byte, the last byte below 128, one after the other."""

    def __init__(self, content: bytes, at: int = 0):
        self.content, self.at = content, at

    def take(self, count: int) -> list[int]:
        """The next `count` numbers. IndexError: there are fewer."""
        if count > len(self.content) - self.at:
            raise IndexError
        found = []
        for _ in range(count):
            value = shift = 0
            while True:
                byte = self.content[self.at]
                self.at += 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128 or shift > 63:
                    break
            found.append(value)
        return found


def _length_of_names(content: bytes) -> int:
    """Bytes of all paths and all keys of a node in memory, where each has the part that it shares with the one before.

    A node is its height, a table of files and the entries. Table: number; for each file the length that it shares
    (not the first), the other length, the length of the folder's path; the texts. Entries: number; the lengths of
    their keys in the same way; and more.
    """
    numbers = Varints(content, 1)
    (files,) = numbers.take(1)
    shared, others = numbers.take(max(files - 1, 0)), numbers.take(files)
    numbers.take(files)
    numbers.at += sum(others)
    (entries,) = numbers.take(1)
    return sum(shared) + sum(others) + sum(numbers.take(max(entries - 1, 0))) + sum(numbers.take(entries))


def _check_arrays(folder: Path, expected: Mapping[str, Any]) -> None:
    """Compares zarr.json of every array with the array that is expected."""
    about = _read_json(folder / "_METADATA")
    for name in ("use_ocdbt", "use_zarr3"):
        if not isinstance(about, dict) or about.get(name) is not True:
            raise Damaged(f"{folder.name}/_METADATA: {name} is not true, as in every run")
    try:
        base = {"driver": "file", "path": f"{folder}/"}
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
        values = {name: store.read(f"{name}/zarr.json") for name in expected}
        found = {name: value.result().value for name, value in values.items()}
    except Exception as error:  # tensorstore raises ValueError, NotImplementedError and others
        raise Damaged(f"{folder.name}: {str(error).splitlines()[0]:.200}") from None
    for name, like in expected.items():
        try:
            if not 0 < len(found[name]) <= ROOM:
                raise ValueError(f"has {len(found[name])} bytes")
            _check_format(parse_json(found[name]), tuple(like.shape), str(like.dtype))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            reason = str(error) if type(error) is ValueError else "is of another form"
            raise Damaged(f"{folder.name}: zarr.json of {name} {reason}, which no run writes") from None


def _read_json(path: Path) -> Any:
    try:
        return parse_json(read_bytes(path))
    except (OSError, ValueError) as error:
        raise Damaged(f"{path.parent.name}/{path.name}: {str(error).splitlines()[0]}") from None


def _check_format(about: dict, shape: tuple[int, ...], dtype: str) -> None:
    """Shape, dtype and codecs are as orbax writes them; the chunks are no larger than the array, and not many."""
    (codec,) = about["codecs"]
    shards = {"index_location": "end"} | codec["configuration"]
    outer, inner = about["chunk_grid"]["configuration"]["chunk_shape"], shards["chunk_shape"]
    level = shards["codecs"][1]["configuration"]["level"]
    plain = {"name": "bytes", "configuration": {"endian": "little"}}
    packing = {"name": "zstd", "configuration": {"checksum": False, "level": level}}
    index = {"index_codecs": [plain, {"name": "crc32c"}], "index_location": "end"}
    found = {name: about[name] for name in ("zarr_format", "shape", "data_type", "chunk_grid", "chunk_key_encoding")}
    expected = {
        "zarr_format": 3,
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": outer}},
        "chunk_key_encoding": {"name": "default"},
        "codecs": {"chunk_shape": inner, "codecs": [plain, packing]} | index,
    }
    for name, value in (found | {"codecs": shards if codec["name"] == "sharding_indexed" else codec}).items():
        if value != expected[name]:
            raise ValueError(f"has {name} {json.dumps(value):.60}")
    full = [max(n, 1) for n in shape]
    if len(outer) != len(shape) or len(inner) != len(shape):
        raise ValueError("has chunks of another number of axes")
    if not all(type(a) is type(b) is int and 0 < a <= b <= n for a, b, n in zip(inner, outer, full, strict=True)):
        raise ValueError(f"has chunks of {inner} in {outer}")
    if math.prod(-(-n // a) for n, a in zip(full, inner, strict=True)) > MAX_CHUNKS:
        raise ValueError(f"has more than {MAX_CHUNKS} chunks")
