"""Directories prepared by tensorflow-datasets (or `python -m sem_jax prepare`), read without TensorFlow.

    directory = find(Path("~/tensorflow_datasets").expanduser(), "cifar10", "3.0.2")
    split, class_names = read_split(directory, "train", (32, 32, 3))

Both file formats are read: array_record and TFRecord. tensorflow-datasets gives names, shards and label names; the
records are then counted and checked one by one, since its own reader believes dataset_info.json. Records that carry an
`id` are put in its order, which is the order of the official files: data_source shuffles, and two layouts of one data
set should give the same arrays.
"""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sem_jax.data.encoded import StreamedImages, remember
from sem_jax.data.images import decode_all
from sem_jax.data.tfrecord import read_records
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

INFO, FEATURES = "dataset_info.json", "features.json"
JSON_LIMIT = 64 << 20  # bytes of either; the official ones have some kilobytes
_CHUNK = 512  # records read at a time
_OPEN = 256  # shards open at a time in one process; systems allow about 1,000 open files
REMEDY = "Prepare the data again: python -m sem_jax prepare {} --force"


def find(place: Path, name: str, version: str) -> Path | None:
    """Prepared directory of a set: `place` itself, or below it <name>/<version>, else the newest version there.

    Raises:
      DataError: the directory is there, but without its dataset_info.json; or `place` is another prepared set.
    """
    if (place / INFO).is_file():
        if (found := _name(place)) != name:
            raise DataError(
                f"{place} holds the data set {found!r}, expected {name!r}", "Correct data.dir or data.name."
            )
        return place
    parents = [place / name] + ([place] if place.name == name else [])
    for parent in parents:
        exact = parent / version
        if exact.is_dir() and any(exact.iterdir()):
            if not (exact / INFO).is_file():
                raise DataError(f"{exact} has no {INFO}", REMEDY.format(name))
            return exact
        versions = [p for p in parent.glob("*.*.*") if (p / INFO).is_file() and _numbers(p.name)]
        if versions:
            return max(versions, key=lambda p: _numbers(p.name))
    return None


def read_split(
    directory: Path, split: str, shape: tuple[int, int, int] | None, *, image_size: int = 0
) -> tuple[Split, tuple[str, ...]]:
    """One split, decoded.

    Args:
      directory: with dataset_info.json, features.json and the shards.
      split: its name.
      shape: (h, w, 3) that every image must have; None: the first one's.
      image_size: see `images.decode`.

    Returns:
      (Split(u8[n h w 3], i32[n]), class names).

    Raises:
      DataError: no such split; a shard is missing, damaged or has another number of records than dataset_info.json
        says; a label or image that isn't as described. Names the file.
    """
    about = _describe(directory, split)
    readers = {"array_record": _read_array_record, "tfrecord": read_records}
    if about.file_format not in readers:
        raise DataError(
            f"{directory} is in the format {about.file_format!r}, expected {' or '.join(readers)}", about.remedy
        )
    rows, origins = [], []
    for file, length in zip(about.files, about.lengths, strict=True):
        with _naming(about.remedy):
            records = readers[about.file_format](_present(file, about.remedy))
        _check_count(file, len(records), length, about.remedy)
        rows += [_parse(record, f"{file}: record {i}", about.remedy) for i, record in enumerate(records)]
        origins += [f"{file}: record {i}" for i in range(length)]
    if not rows:
        raise DataError(f"{directory}: split {split!r} has no records", about.remedy)
    order = _official_order([row[2] for row in rows])
    rows, origins = [rows[i] for i in order], [origins[i] for i in order]
    _check_labels([row[1] for row in rows], origins.__getitem__, about)
    with _naming(about.remedy):
        images = decode_all(
            len(rows),
            lambda i: rows[i][0],
            origins.__getitem__,
            image_size=image_size,
            shape=shape,
            progress=f"decoding {about.name} {split}",
        )
    return Split(images, np.array([row[1] for row in rows], np.int32)), about.class_names


def stream_split(
    directory: Path, split: str, *, image_size: int = 0, eval_crop: float = 1.0
) -> tuple[Split, tuple[str, ...]]:
    """One split whose images stay in their array_record files; the same items in the same order as `read_split`.

    All records are read once for their labels; the result is remembered.

    Raises:
      DataError: as `read_split`; and for TFRecord, which has no access by number.
    """
    about = _describe(directory, split)
    if about.file_format != "array_record":
        raise DataError(
            f"{directory} is in the format {about.file_format!r}; streaming needs array_record",
            "Prepare it as array_record, or set runtime.residency=host.",
        )
    sizes = [(f.name, (status := _present(f, about.remedy).stat()).st_size, status.st_mtime_ns) for f in about.files]
    identity = [str(directory.resolve()), split, sizes]

    def index() -> dict[str, np.ndarray]:
        labels, identities = [], []
        for file, length in zip(about.files, about.lengths, strict=True):
            for i, record in enumerate(_each_array_record(file, length, about.remedy)):
                _, label, name = _parse(record, f"{file}: record {i}", about.remedy)
                labels.append(label)
                identities.append(name)
        order = np.array(_official_order(identities), np.int64)
        return {"order": order, "labels": np.array(labels, np.int64)[order]}

    found = remember(["index", identity], index)
    if not len(found["labels"]):
        raise DataError(f"{directory}: split {split!r} has no records", about.remedy)
    records = ArrayRecords(tuple(map(str, about.files)), tuple(about.lengths), found["order"], about.remedy)
    _check_labels(found["labels"], records.where, about)
    images = StreamedImages(records, image_size=image_size, eval_crop=eval_crop, identity=identity)
    return Split(images, found["labels"].astype(np.int32)), about.class_names


class ArrayRecords:
    """`stream.Records` of array_record files, opened when first read from, in every process for itself.

    Args:
      files: paths.
      lengths: records in each.
      order: which record, counted through all files, an image is.
      remedy: for messages.
    """

    def __init__(self, files: tuple[str, ...], lengths: tuple[int, ...], order: np.ndarray, remedy: str):
        self._files, self._order, self._remedy = files, order, remedy
        self._ends = np.cumsum(lengths)
        self._open()

    def _open(self) -> None:
        self._readers, self._lock = {}, threading.Lock()

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name not in ("_readers", "_lock")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._order)

    def where(self, index: int) -> str:
        file, record = self._place(index)
        return f"{self._files[file]}: record {record}"

    def read(self, index: int) -> bytes:
        file, record = self._place(index)
        try:
            data = self._reader(file).read([record])[0]
        except Exception as error:  # a missing or a damaged file
            raise DataError(f"{self.where(index)} is damaged: {_line(error)}", self._remedy) from error
        return _parse(data, self.where(index), self._remedy)[0]

    def _reader(self, file: int):
        from array_record.python.array_record_module import ArrayRecordReader

        with self._lock:
            reader = self._readers.pop(file, None)
            if reader is None:
                options = "readahead_buffer_size:0,max_parallelism:0"  # those for access by number
                reader = ArrayRecordReader(self._files[file], options=options)
            self._readers[file] = reader  # last = latest used
            if len(self._readers) > _OPEN:
                del self._readers[next(iter(self._readers))]
            return reader

    def _place(self, index: int) -> tuple[int, int]:
        number = int(self._order[index])
        file = int(np.searchsorted(self._ends, number, side="right"))
        return file, number - (int(self._ends[file - 1]) if file else 0)


class _About(NamedTuple):
    """What dataset_info.json and features.json say of one split."""

    name: str
    class_names: tuple[str, ...]
    files: list[Path]
    lengths: list[int]
    file_format: str
    remedy: str


def _describe(directory: Path, split: str) -> _About:
    info, name = _info(directory)
    remedy = REMEDY.format(name)
    if split not in info.splits:
        has = ", ".join(info.splits) or "none"
        raise DataError(f"{directory} has no {split!r} split (it has: {has})", remedy)
    try:
        class_names = tuple(info.features["label"].names)
        files = [Path(p) for p in info.splits[split].filepaths]
        lengths = [int(n) for n in info.splits[split].shard_lengths]
        return _About(name, class_names, files, lengths, info.file_format.value, remedy)
    except Exception as error:  # whatever tensorflow-datasets makes of damaged json
        raise DataError(f"{directory}/{INFO} or features.json is damaged: {_line(error)}", remedy) from error


def splits_of(directory: Path) -> dict[str, int]:
    """Names of a prepared directory's splits and their numbers of items."""
    return {name: info.num_examples for name, info in _info(directory)[0].splits.items()}


def _present(file: Path, remedy: str) -> Path:
    if not file.is_file():
        raise DataError(f"{file} is missing", remedy)
    return file


def _check_count(file: Path, found: int, expected: int, remedy: str) -> None:
    if found != expected:
        raise DataError(f"{file} has {found} records, {INFO} says {expected}", remedy)


def _official_order(identities: list[bytes]) -> Sequence[int]:
    order = range(len(identities))
    if all(identities):
        order = sorted(order, key=lambda i: (len(identities[i]), identities[i]))
    return order


def _check_labels(labels: Sequence[int], where, about: _About) -> None:
    for i, number in enumerate(labels):
        if not 0 <= number < len(about.class_names):
            message = f"{where(i)} has label {number}, out of range: there are {len(about.class_names)} classes"
            raise DataError(message, about.remedy)


def _name(directory: Path) -> str:
    try:
        return json.loads((directory / INFO).read_text())["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{directory / INFO} cannot be read: {_line(error)}", "Prepare the data again.") from error


def _info(directory: Path):
    try:
        check_metadata(directory)
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(str(directory))
        return builder.info, builder.info.name
    except Exception as error:  # many kinds: json, protobuf, KeyError, its own
        name = directory.parent.name
        message = f"{directory}/{INFO} or features.json cannot be read: {_line(error)}"
        raise DataError(message, REMEDY.format(name)) from error


def check_metadata(directory: Path) -> None:
    """Raises ValueError for metadata that is not to be given to tensorflow-datasets.

    It imports whatever module features.json names, so a class that isn't one of its own features is refused.
    """
    for name in (INFO, FEATURES):
        if (size := (directory / name).stat().st_size) > JSON_LIMIT:
            raise ValueError(f"{name} has {size} bytes")
    waiting = [json.loads((directory / FEATURES).read_text())]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in ("pythonClassName", "python_class_name", "type"):
                name = value.get(key)
                if isinstance(name, str) and not name.startswith("tensorflow_datasets.core.features."):
                    raise ValueError(f"{FEATURES} names the class {name[:60]!r}, not one of tensorflow-datasets")
            if isinstance(value.get("json"), str):  # features of an older kind, as text
                waiting.append(json.loads(value["json"] or "{}"))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _read_array_record(path: Path) -> list[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(path))
        try:
            return reader.read_all() if reader.num_records() else []
        finally:
            with contextlib.suppress(Exception):  # closing a damaged file raises the same error again
                reader.close()
    except Exception as error:
        raise DataError(f"{path} is damaged: {_line(error)}") from error


def _each_array_record(path: Path, expected: int, remedy: str) -> Iterator[bytes]:
    """The records of a file that may not fit the memory, one after the other."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
    except Exception as error:
        raise DataError(f"{path} is damaged: {_line(error)}", remedy) from error
    _check_count(path, count, expected, remedy)
    for first in range(0, count, _CHUNK):
        try:
            records = reader.read(first, min(first + _CHUNK, count))
        except Exception as error:
            raise DataError(f"{path} is damaged: {_line(error)}", remedy) from error
        yield from records
    reader.close()


def _parse(record: bytes, where: str, remedy: str) -> tuple[bytes, int, bytes]:
    """(encoded image, label, id or b'') of one serialised tf.train.Example."""
    from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

    try:
        features = Example.FromString(record).features.feature
        image = features["image"].bytes_list.value[0]
        label = features["label"].int64_list.value[0]
        identity = features["id"].bytes_list.value
        return image, label, identity[0] if identity else b""
    except Exception as error:  # protobuf's DecodeError, or a feature that is not there
        raise DataError(f"{where} is no example with image and label: {_line(error)}", remedy) from error


@contextlib.contextmanager
def _naming(remedy: str):
    """Replaces the remedy of a reader that knows only the file by the command for this data set."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).split("\n")[0], remedy) from error


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else ()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
