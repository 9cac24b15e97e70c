"""Directories prepared by tensorflow-datasets (or sem_jax.prepare), read without TensorFlow.

    directory = find(Path("~/tensorflow_datasets").expanduser(), "cifar10", "3.0.2")
    split, class_names = read_split(directory, "train", (32, 32, 3))

Both file formats are read: array_record and TFRecord. tensorflow-datasets gives names, shards and label names; the
records are then counted and checked one by one, since its own reader believes dataset_info.json. Records that carry an
`id` are put in its order, which is the order of the official files: data_source shuffles, and two layouts of one data
set should give the same arrays.
"""

import contextlib
import json
from pathlib import Path

import numpy as np

from sem_jax.data.images import decode_all
from sem_jax.data.tfrecord import read_records
from sem_jax.errors import DataError
from sem_jax.types import Split

INFO, FEATURES = "dataset_info.json", "features.json"
JSON_LIMIT = 64 << 20  # bytes of either; the official ones have some kilobytes
REMEDY = "Prepare the data again: python -m sem_jax.prepare {} --force"


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


def read_split(directory: Path, split: str, shape: tuple[int, int, int]) -> tuple[Split, tuple[str, ...]]:
    """One split, decoded.

    Args:
      directory: with dataset_info.json, features.json and the shards.
      split: its name.
      shape: (h, w, 3) that every image must have.

    Returns:
      (Split(u8[n h w 3], i32[n]), class names).

    Raises:
      DataError: no such split; a shard is missing, damaged or has another number of records than dataset_info.json
        says; a label or image that isn't as described. Names the file.
    """
    info, name = _info(directory)
    remedy = REMEDY.format(name)
    if split not in info.splits:
        has = ", ".join(info.splits) or "none"
        raise DataError(f"{directory} has no {split!r} split (it has: {has})", remedy)
    try:
        label = info.features["label"]
        class_names = tuple(label.names)
        files = [Path(p) for p in info.splits[split].filepaths]
        lengths = [int(n) for n in info.splits[split].shard_lengths]
        file_format = info.file_format.value
    except Exception as error:  # whatever tensorflow-datasets makes of damaged json
        raise DataError(f"{directory}/{INFO} or features.json is damaged: {_line(error)}", remedy) from error
    readers = {"array_record": _read_array_record, "tfrecord": read_records}
    if file_format not in readers:
        raise DataError(f"{directory} is in the format {file_format!r}, expected {' or '.join(readers)}", remedy)
    rows, origins = [], []
    for file, length in zip(files, lengths, strict=True):
        if not file.is_file():
            raise DataError(f"{file} is missing", remedy)
        with _naming(remedy):
            records = readers[file_format](file)
        if len(records) != length:
            raise DataError(f"{file} has {len(records)} records, {INFO} says {length}", remedy)
        rows += [_parse(record, f"{file}: record {i}", remedy) for i, record in enumerate(records)]
        origins += [f"{file}: record {i}" for i in range(length)]
    if not rows:
        raise DataError(f"{directory}: split {split!r} has no records", remedy)
    order = range(len(rows))
    if all(row[2] for row in rows):
        order = sorted(order, key=lambda i: (len(rows[i][2]), rows[i][2]))
    rows, origins = [rows[i] for i in order], [origins[i] for i in order]
    for (_, number, _), origin in zip(rows, origins, strict=True):
        if not 0 <= number < len(class_names):
            message = f"{origin} has label {number}, out of range: there are {len(class_names)} classes"
            raise DataError(message, remedy)
    with _naming(remedy):
        images = decode_all(
            len(rows), lambda i: rows[i][0], origins.__getitem__, shape=shape, progress=f"decoding {name} {split}"
        )
    return Split(images, np.array([row[1] for row in rows], np.int32)), class_names


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
