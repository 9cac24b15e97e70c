"""Reads directories that tensorflow-datasets or `python -m sem_jax prepare` wrote, without TensorFlow.

The files are array_record or TFRecord. tensorflow-datasets gives names, shards and class names; its reader believes
dataset_info.json, so records are counted and checked here. Records with an `id` are sorted by it: that is the order of
the official files, and all layouts of a data set give the same arrays.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sem_jax.data.decoded_cache import Labelled
from sem_jax.data.facts import PUBLIC
from sem_jax.data.images import decode_all
from sem_jax.data.refusing import parse_json, read_file, refusing, regular, remedied
from sem_jax.data.tfrecord import read_records
from sem_jax.errors import DataError
from sem_jax.interfaces import Split
from sem_jax.registry import resolve

INFO, FEATURES = "dataset_info.json", "features.json"
JSON_LIMIT = 8 << 20  # bytes of each; the official ones have some kilobytes
_FORMATS = ("array_record", "tfrecord")
_CHUNK = 512  # records read at a time


class Description(NamedTuple):
    """One split, as dataset_info.json and features.json describe it."""

    name: str  # name of the data set
    class_names: tuple[str, ...]
    files: list[Path]
    lengths: list[int]  # records in each file
    file_format: str
    remedy: str  # second line of error messages


class Example(NamedTuple):
    """One record."""

    image: bytes  # encoded
    label: int
    id: bytes  # b"" if it has none
    where: str  # file and number, for messages


def find(place: Path, name: str, version: str) -> Path | None:
    """Prepared directory of a set: `place` itself, <name>/<version> below it, or the newest version there.

    Raises:
      DataError: the directory lacks its dataset_info.json, or `place` is another prepared set.
    """
    if (place / INFO).is_file():
        if (found := _name(place)) != name:
            raise DataError(f"{place} holds the data set {found!r}, expected {name!r}", "Fix data.dir or data.name.")
        return place
    for parent in [place / name] + ([place] if place.name == name else []):
        exact = parent / version
        if exact.is_dir() and any(exact.iterdir()):
            if not (exact / INFO).is_file():
                raise DataError(f"{exact} has no {INFO}", _remedy(name))
            return exact
        if versions := [p for p in parent.glob("*.*.*") if (p / INFO).is_file() and p.name.replace(".", "").isdigit()]:
            return max(versions, key=lambda p: [int(part or 0) for part in p.name.split(".")])
    return None


def read_split(directory: Path, split: str, shape: tuple[int, int, int] | None, *, image_size: int = 0) -> Labelled:
    """One split, decoded: (Split(u8[n h w 3], i32[n]), class names).

    Args:
      directory: with dataset_info.json, features.json and the shards.
      shape: (h, w, 3) that every image must have; None takes the first image's.
      image_size: see `images.decode`.

    Raises:
      DataError: the split does not exist; a shard is missing, damaged or has another number of records than
        dataset_info.json says; or a label or image is not as described. Names the file.
    """
    about = describe(directory, split)
    with remedied(about.remedy):
        rows = list(examples(about))
        rows = [rows[i] for i in official_order([row.id for row in rows])]
        labels = check_labels([row.label for row in rows], lambda i: rows[i].where, about.class_names)
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
    """The metadata of one split. DataError if it is damaged, the split does not exist or the file format is another."""
    info = _info(directory)
    remedy = _remedy(info.name)
    if split not in info.splits:
        has = ", ".join(info.splits) or "none"
        raise DataError(f"{directory} has no {split!r} split (it has: {has})", remedy)
    with refusing(f"{directory}/{INFO} or features.json is damaged", remedy):
        class_names = tuple(info.features["label"].names)
        files = [Path(p) for p in info.splits[split].filepaths]
        lengths = [int(n) for n in info.splits[split].shard_lengths]
        about = Description(info.name, class_names, files, lengths, info.file_format.value, remedy)
    if about.file_format not in _FORMATS:
        raise DataError(f"{directory} is in the format {about.file_format!r}, expected {' or '.join(_FORMATS)}", remedy)
    if not sum(lengths):
        raise DataError(f"{directory}: split {split!r} has no records", remedy)
    if absent := [file for file in files if not file.is_file()]:
        raise DataError(f"{absent[0]} is missing", remedy)
    return about


def splits_of(directory: Path) -> dict[str, int]:
    """Names of a prepared directory's splits and their numbers of items."""
    return {name: info.num_examples for name, info in _info(directory).splits.items()}


def examples(about: Description) -> Iterator[Example]:
    """The records of a split, one at a time. DataError if a file is damaged or has another number of records."""
    for file, length in zip(about.files, about.lengths, strict=True):
        for i, record in enumerate(_records(file, length, about.file_format)):
            yield parse(record, f"{file}: record {i}")


def parse(record: bytes, where: str) -> Example:
    """Parses a serialised tf.train.Example."""
    with refusing(f"{where} is no example with image and label"):
        message = resolve("tensorflow_datasets.proto.tf_example_generated_pb2:Example")
        features = message.FromString(record).features.feature
        image = features["image"].bytes_list.value[0]
        label = features["label"].int64_list.value[0]
        identity = features["id"].bytes_list.value
        return Example(image, label, identity[0] if identity else b"", where)


def official_order(identities: Sequence[bytes]) -> Sequence[int]:
    """Numbers of the records, sorted by their ids if all have one."""
    order = range(len(identities))
    return sorted(order, key=lambda i: (len(identities[i]), identities[i])) if all(identities) else order


def check_labels(labels: Sequence[int], where: Callable[[int], str], class_names: Sequence[str]) -> np.ndarray:
    """The labels as i32[n]; a DataError with `where(i)` names one that is no class."""
    for i, number in enumerate(labels):
        if not 0 <= number < len(class_names):
            raise DataError(f"{where(i)} has label {number}, out of range: there are {len(class_names)} classes")
    return np.array(labels, np.int32)


def check_metadata(directory: Path) -> None:
    """Raises ValueError for metadata that tensorflow-datasets must not see.

    It imports any module that features.json names, so a class that is not one of its own features is refused.
    """
    for path in (directory / INFO, directory / FEATURES, *directory.glob("*.json"), *directory.glob("*.txt")):
        regular(path, JSON_LIMIT)  # the other ones are names of labels and options of features
    waiting = [parse_json(read_file(directory / FEATURES, JSON_LIMIT))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in ("pythonClassName", "python_class_name", "type"):
                name = value.get(key)
                if isinstance(name, str) and not name.startswith("tensorflow_datasets.core.features."):
                    raise ValueError(f"{FEATURES} names the class {name[:60]!r}, not one of tensorflow-datasets")
            if isinstance(value.get("json"), str):  # features of an older kind, as text
                waiting.append(parse_json(value["json"].encode() or b"{}"))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _records(file: Path, expected: int, file_format: str) -> Iterator[bytes]:
    if file_format == "tfrecord":
        records = read_records(file)
        _check_count(file, len(records), expected)
        yield from records
        return
    from array_record.python.array_record_module import ArrayRecordReader

    with refusing(f"{file} is damaged"):
        reader = ArrayRecordReader(str(file))
        try:
            _check_count(file, reader.num_records(), expected)
            for first in range(0, expected, _CHUNK):
                yield from reader.read(first, min(first + _CHUNK, expected))
        finally:
            with contextlib.suppress(Exception):  # closing a damaged file raises the same error again
                reader.close()


def _check_count(file: Path, found: int, expected: int) -> None:
    if found != expected:
        raise DataError(f"{file} has {found} records, {INFO} says {expected}")


def _name(directory: Path) -> str:
    with refusing(f"{directory / INFO} cannot be read", "Prepare the data again."):
        check_metadata(directory)
        return parse_json(read_file(directory / INFO, JSON_LIMIT))["name"]


def _info(directory: Path) -> Any:
    remedy = _remedy(directory.parent.name)
    with remedied(remedy), refusing(f"{directory}/{INFO} or features.json cannot be read", remedy):
        check_metadata(directory)
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(str(directory)).info


def _remedy(name: str) -> str:
    command = f": python -m sem_jax prepare {name} --force" if name in PUBLIC else " with tensorflow-datasets."
    return f"Prepare the data again{command}"
