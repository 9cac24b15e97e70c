"""Directories as tensorflow-datasets (or `python -m sem_jax prepare`) writes them, read without TensorFlow.

    directory = find(Path("~/tensorflow_datasets").expanduser(), "cifar10", "3.0.2")
    split, class_names = read_split(directory, "train", (32, 32, 3))

Both file formats are read: array_record and TFRecord. tensorflow-datasets gives names, shards and label names; the
records are then counted and checked one by one, since its own reader believes dataset_info.json. Records that carry an
`id` are put in its order, which is the order of the official files: data_source shuffles, and two layouts of one data
set should give the same arrays.
"""

import contextlib
import functools
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sem_jax.data.images import decode_all
from sem_jax.data.tfrecord import read_records
from sem_jax.errors import DataError, one_line
from sem_jax.interfaces import Split

INFO, FEATURES = "dataset_info.json", "features.json"
JSON_LIMIT = 64 << 20  # bytes of either; the official ones have some kilobytes
REMEDY = "Prepare the data again: python -m sem_jax prepare {} --force"
_FORMATS = ("array_record", "tfrecord")
_CHUNK = 512  # records read at a time


class Description(NamedTuple):
    """What dataset_info.json and features.json say of one split."""

    name: str  # of the data set
    class_names: tuple[str, ...]
    files: list[Path]
    lengths: list[int]  # records in each file
    file_format: str
    remedy: str  # for messages


class Example(NamedTuple):
    """One record."""

    image: bytes  # encoded
    label: int
    id: bytes  # b"" if it has none
    where: str  # file and number, for messages


def find(place: Path, name: str, version: str) -> Path | None:
    """Prepared directory of a set: `place` itself, or below it <name>/<version>, else the newest version there.

    Raises:
      DataError: the directory is there, but without its dataset_info.json; or `place` is another prepared set.
    """
    if (place / INFO).is_file():
        if (found := _name(place)) != name:
            message = f"{place} holds the data set {found!r}, expected {name!r}"
            raise DataError(message, "Correct data.dir or data.name.")
        return place
    for parent in [place / name] + ([place] if place.name == name else []):
        exact = parent / version
        if exact.is_dir() and any(exact.iterdir()):
            if not (exact / INFO).is_file():
                raise DataError(f"{exact} has no {INFO}", REMEDY.format(name))
            return exact
        versions = [p for p in parent.glob("*.*.*") if (p / INFO).is_file() and p.name.replace(".", "").isdigit()]
        if versions:
            return max(versions, key=lambda p: [int(part or 0) for part in p.name.split(".")])
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
    about = describe(directory, split)
    rows = list(examples(about))
    rows = [rows[i] for i in official_order([row.id for row in rows])]
    labels = check_labels([row.label for row in rows], lambda i: rows[i].where, about)
    with _remedy(about.remedy):
        images = decode_all(
            len(rows),
            lambda i: rows[i].image,
            lambda i: rows[i].where,
            image_size=image_size,
            shape=shape,
            progress=f"decoding {about.name} {split}",
        )
    return Split(images, labels), about.class_names


def describe(directory: Path, split: str) -> Description:
    """Where the records of one split are, and what they should be.

    Raises:
      DataError: no such split, another file format, or damaged metadata.
    """
    info = _info(directory)
    remedy = REMEDY.format(info.name)
    if split not in info.splits:
        has = ", ".join(info.splits) or "none"
        raise DataError(f"{directory} has no {split!r} split (it has: {has})", remedy)
    try:
        class_names = tuple(info.features["label"].names)
        files = [Path(p) for p in info.splits[split].filepaths]
        lengths = [int(n) for n in info.splits[split].shard_lengths]
        about = Description(info.name, class_names, files, lengths, info.file_format.value, remedy)
    except Exception as error:  # whatever tensorflow-datasets makes of damaged json
        raise DataError(f"{directory}/{INFO} or features.json is damaged: {one_line(error)}", remedy) from error
    if about.file_format not in _FORMATS:
        message = f"{directory} is in the format {about.file_format!r}, expected {' or '.join(_FORMATS)}"
        raise DataError(message, remedy)
    if not sum(lengths):
        raise DataError(f"{directory}: split {split!r} has no records", remedy)
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is missing", remedy)
    return about


def splits_of(directory: Path) -> dict[str, int]:
    """Names of a prepared directory's splits and their numbers of items."""
    return {name: info.num_examples for name, info in _info(directory).splits.items()}


def examples(about: Description) -> Iterator[Example]:
    """The records of a split, which may not fit the memory, one after the other.

    Raises:
      DataError: a file is damaged, or has another number of records than it should.
    """
    for file, length in zip(about.files, about.lengths, strict=True):
        for i, record in enumerate(_records(file, length, about)):
            yield parse(record, f"{file}: record {i}", about.remedy)


def parse(record: bytes, where: str, remedy: str) -> Example:
    """A serialised tf.train.Example."""
    try:
        features = _message_type().FromString(record).features.feature
        image = features["image"].bytes_list.value[0]
        label = features["label"].int64_list.value[0]
        identity = features["id"].bytes_list.value
        return Example(image, label, identity[0] if identity else b"", where)
    except Exception as error:  # protobuf's DecodeError, or a feature that is not there
        raise DataError(f"{where} is no example with image and label: {one_line(error)}", remedy) from error


@functools.cache
def _message_type() -> Any:
    """tf.train.Example; its module makes the class when it is imported."""
    return importlib.import_module("tensorflow_datasets.proto.tf_example_generated_pb2").Example


def official_order(identities: Sequence[bytes]) -> Sequence[int]:
    """Numbers of the records by their ids; as they are where one has none."""
    order = range(len(identities))
    if all(identities):
        return sorted(order, key=lambda i: (len(identities[i]), identities[i]))
    return order


def check_labels(labels: Sequence[int], where: Callable[[int], str], about: Description) -> np.ndarray:
    """The labels as i32[n]; DataError, with `where(i)`, if one is no class."""
    for i, number in enumerate(labels):
        if not 0 <= number < len(about.class_names):
            message = f"{where(i)} has label {number}, out of range: there are {len(about.class_names)} classes"
            raise DataError(message, about.remedy)
    return np.array(labels, np.int32)


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


def _records(file: Path, expected: int, about: Description) -> Iterator[bytes]:
    if about.file_format == "tfrecord":
        with _remedy(about.remedy):
            records = read_records(file)
        _check_count(file, len(records), expected, about)
        yield from records
        return
    from array_record.python.array_record_module import ArrayRecordReader

    def read(call: Callable, *arguments):
        try:
            return call(*arguments)
        except Exception as error:  # of a kind of its own
            raise DataError(f"{file} is damaged: {one_line(error)}", about.remedy) from error

    reader = read(ArrayRecordReader, str(file))
    try:
        count = read(reader.num_records)
        _check_count(file, count, expected, about)
        for first in range(0, count, _CHUNK):
            yield from read(reader.read, first, min(first + _CHUNK, count))
    finally:
        with contextlib.suppress(Exception):  # closing a damaged file raises the same error again
            reader.close()


def _check_count(file: Path, found: int, expected: int, about: Description) -> None:
    if found != expected:
        raise DataError(f"{file} has {found} records, {INFO} says {expected}", about.remedy)


def _name(directory: Path) -> str:
    try:
        return json.loads((directory / INFO).read_text())["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{directory / INFO} cannot be read: {one_line(error)}", "Prepare the data again.") from error


def _info(directory: Path) -> Any:
    try:
        check_metadata(directory)
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(str(directory)).info
    except Exception as error:  # many kinds: json, protobuf, KeyError, its own
        message = f"{directory}/{INFO} or features.json cannot be read: {one_line(error)}"
        raise DataError(message, REMEDY.format(directory.parent.name)) from error


@contextlib.contextmanager
def _remedy(remedy: str):
    """Replaces the remedy of a reader that knows only the file by the command for this data set."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).split("\n")[0], remedy) from error
