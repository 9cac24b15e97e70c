"""`hf`: a set of labelled images in the tables of the `datasets` library, on a hub or on disk.

    --config.data.name=hf --config.data.dir=hf://owner/name[@revision][/folder] [--config.data.image_size=64]
    --config.data.name=hf --config.data.dir=~/photos                 # of `save_to_disk`, or with parquet files

A folder holds parquet files, or Arrow files as `datasets.Dataset.save_to_disk` writes them. A file belongs to the split
that its path names: train; test, or validation where there is no labelled test. The column of images is the one of type
Image, data.image_column where there are several; the labels are those of type ClassLabel, else the only column of whole
numbers or the one called `label`, or data.label_column. A column of texts is numbered in their order. The package
pyarrow is needed (`pip install -e .[datasets]`).

The files are read with pyarrow and not with the `datasets` library, which takes seconds to import, copies every set
into a cache of its own and has more ways to read a folder than could be checked. A stranger's file is data: an image
must be in it, and a path to one is refused; so are compressed Arrow batches, row groups that inflate beyond GROUP
bytes, and a small file whose rows share a large image.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sem_jax.data.arrow_files import REMEDY, ArrowRecords, content_of, open_batches
from sem_jax.data.decoded_cache import Labelled, read_splits, stamp
from sem_jax.data.encoded import RecordImages, too_large
from sem_jax.data.facts import Loaded, Reading, Source
from sem_jax.data.files import RATIO_LIMIT
from sem_jax.data.images import decode_all
from sem_jax.data.refusing import refusing, regular
from sem_jax.errors import DataError
from sem_jax.interfaces import Split
from sem_jax.system import hub

SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
SUFFIXES = (".parquet", ".arrow")
FILE, GROUP, ROWS = 1 << 36, 1 << 32, 1 << 27  # bytes of a file; bytes that a row group inflates to; rows of a file
UNPACKED = 1 << 27  # bytes of all images of a file, if RATIO_LIMIT times its own are not more
BATCH, NAME = 4096, 200  # rows of whole numbers that are read at a time; letters of a label that is a text


class Table(NamedTuple):
    """One file."""

    path: Path
    fields: dict[str, Any]  # column -> its type in Arrow
    features: dict[str, Any]  # column -> its type in the `datasets` library, where the file says


def load_hf(source: Source, data_dir: str, splits: Sequence[str], image_size: int, reading: Reading) -> Loaded:
    """Loader of the data set `hf`; `image_size` as `images.decode` takes it.

    Raises:
      DataError: what cannot be fetched; no such split or column; a file that is damaged or too large; an image that is
        not in the file or cannot be used; labels that are missing; pyarrow is not installed.
    """
    _arrow()
    folder = _folder(data_dir, reading)
    listed = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES and path.is_file()]
    there = {name: _of_split(folder, listed, name) for names in SPLITS.values() for name in names}
    columns = reading.image_column, reading.label_column
    used = {
        split: next((n for n in names if there[n] and _labelled(there[n], columns)), "")
        for split, names in SPLITS.items()
    }
    for split in splits:
        if not used[split]:
            has = ", ".join(name for name, files in there.items() if files) or "none"
            raise DataError(f"{data_dir} has no labelled split {' or '.join(SPLITS[split])} (it has: {has})", REMEDY)
    names = _class_names([path for name in used.values() if name for path in there[name]], columns)

    encoded = reading.encoded
    if encoded is None:
        files = [path for split in splits for path in there[used[split]]]
        encoded = all(map(_by_row, files)) and too_large(sum(map(_count, files)), image_size or 64)

    def read(split: str) -> Labelled:
        files = there[used[split]]
        if encoded or all(map(_by_row, files)):
            records, found = _records(files, columns)
        else:
            rows = [row for path in files for row in _rows(path, columns, images=True)]
            records, found = RowRecords(rows), [label for _, label, _ in rows]
        if not found:
            raise DataError(f"{files[0]} has no rows", REMEDY)
        index = {name: label for label, name in enumerate(names)}
        numbers = (index.get(it, -1) if isinstance(it, str) else it for it in found)
        labels = np.array([min(max(it, -1), len(names)) for it in numbers], np.int32)  # `check_split` names others
        if encoded:
            about = [str(folder.resolve()), split, [[path.name, *stamp(path)] for path in files]]
            return Split(RecordImages(records, image_size, about, eval_crop=reading.eval_crop), labels), names
        bar = f"decoding {used[split]} of {data_dir}"
        images = decode_all(len(records), records.read, records.where, image_size=image_size, progress=bar)
        return Split(images, labels), names

    cache = reading.cache and not encoded
    return Loaded(*read_splits("hf", folder, [image_size, *columns], splits, read, cache=cache))


class RowRecords:
    """`encoded.Records` of rows in memory, as `_rows` reads them."""

    def __init__(self, rows: Sequence[tuple[bytes, Any, str]]):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        """The encoded image."""
        return self._rows[index][0]

    def where(self, index: int) -> str:
        """File and row."""
        return self._rows[index][2]


def _by_row(path: Path) -> bool:
    """Whether any row of a file can be read without the others."""
    return path.suffix == ".arrow"


def _count(path: Path) -> int:
    with _reading(path):
        return sum(batch.num_rows for batch in open_batches(path))


def _records(files: Sequence[Path], columns: tuple[str, str]) -> tuple[ArrowRecords, list[Any]]:
    """(images that stay in their files, labels).

    Raises:
      DataError: parquet, whose rows are packed together.
    """
    if packed := [path for path in files if not _by_row(path)]:
        message = f"{packed[0]} is parquet; images that stay encoded need Arrow files"
        remedy = "Write them: datasets.load_dataset(...).save_to_disk(FOLDER); or set runtime.residency=host."
        raise DataError(message, remedy)
    images = {_columns(_table(path), columns)[0] for path in files}
    if len(images) > 1:
        raise DataError(f"{files[0]} and others name the column of images differently: {', '.join(sorted(images))}")
    labels = [label for path in files for _, label, _ in _rows(path, columns, images=False)]
    return ArrowRecords(files, images.pop(), json.dumps([[str(path), *stamp(path)] for path in files])), labels


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise DataError("data.name=hf needs pyarrow, which is not installed", 'pip install "pyarrow>=18"') from None
    return pyarrow


def _folder(data_dir: str, reading: Reading) -> Path:
    """The folder of the files. Those on a hub are fetched, or with `reading.download` off found in its cache."""
    if not hub.is_hub(data_dir):
        folder = Path(data_dir).expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder", REMEDY)
        return folder
    place = hub.parse(data_dir, "dataset")
    inside, whole = place.file.rstrip("/"), str(place._replace(file=""))
    patterns = [f"{inside}/*{suffix}" if inside else f"*{suffix}" for suffix in SUFFIXES]
    return hub.fetch(whole, files=patterns, kind="dataset", offline=not reading.download).path / inside


def _of_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    """The files whose path below the folder names a split; they must be of one set."""
    found = [p for p in files if re.search(rf"(^|[/_.-]){split}([/_.-]|$)", p.relative_to(folder).as_posix())]
    found = [path for path in found if not path.name.startswith("cache-")]  # of the library's own transformations
    tops = {p.parent if p.parent.name != split else p.parent.parent for p in found}
    if len(tops) > 1:
        names = ", ".join(sorted(str(top.relative_to(folder)) for top in tops))
        raise DataError(f"{folder} holds several sets: {names:.200}", "Name one of these folders with data.dir.")
    return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    regular(path, FILE)
    with refusing(f"{path} is damaged", "Fetch or save it once more."):
        yield


def _table(path: Path) -> Table:
    """The columns of a file, by its schema."""
    import pyarrow.parquet as parquet

    with _reading(path):
        if path.suffix == ".arrow":
            with _arrow().memory_map(str(path)) as file:
                schema = _arrow().ipc.open_stream(file).schema
        else:
            schema = parquet.read_schema(path)
        features = {}
        if text := (schema.metadata or {}).get(b"huggingface"):
            features = json.loads(text)["info"]["features"]
        return Table(path, {field.name: field.type for field in schema}, features if isinstance(features, dict) else {})


def _columns(table: Table, asked: tuple[str, str]) -> tuple[str, str]:
    """(column of images, column of labels)."""
    types = _arrow().types
    kind = {name: it.get("_type") if isinstance(it, dict) else None for name, it in table.features.items()}

    def holds_image(it: Any) -> bool:
        return types.is_binary(it) or types.is_large_binary(it)

    def image(name: str, it: Any) -> bool:
        inner = it.field("bytes").type if types.is_struct(it) and it.get_field_index("bytes") >= 0 else it
        return holds_image(inner)

    def label(it: Any) -> bool:
        return types.is_integer(it) or types.is_string(it) or types.is_large_string(it)

    images = [name for name, it in table.fields.items() if image(name, it)]
    labels = [name for name, it in table.fields.items() if label(it)]
    typed = [name for name in labels if kind.get(name) == "ClassLabel"]
    numbers = [name for name in labels if types.is_integer(table.fields[name])]
    named = [name for name in labels if name in ("label", "labels")]
    labels_found = typed or (numbers if len(numbers) == 1 else named) or labels
    found = []
    for field, wanted, some, allowed in zip(
        ("image_column", "label_column"), asked, (images, labels_found), (images, labels), strict=True
    ):
        if (wanted and wanted not in allowed) or (not wanted and len(some) != 1):
            has = ", ".join(f"{name} ({it})" for name, it in table.fields.items())
            what = f"no column {wanted!r} that" if wanted else f"{len(some)} columns that"
            message = f"{table.path} has {what} may be data.{field}; it has: {has:.200}"
            raise DataError(message, f"Give --config.data.{field}=NAME.")
        found.append(wanted or some[0])
    return found[0], found[1]


def _rows(path: Path, asked: tuple[str, str], *, images: bool) -> Iterator[tuple[bytes, Any, str]]:
    """(bytes of the image, label, name for messages) of each row; without `images` the bytes are empty."""
    table = _table(path)
    image, label = _columns(table, asked)
    with _reading(path):
        number, total, limit = 0, 0, max(UNPACKED, RATIO_LIMIT * path.stat().st_size)
        for batch in _batches(table, [image, label] if images else [label]):
            batch.validate(full=True)
            labels = batch.column(label).to_pylist()
            cells = batch.column(image).to_pylist() if images else [b""] * len(labels)
            for cell, it in zip(cells, labels, strict=True):
                where = f"{path}: row {number}"
                number += 1
                content = content_of(cell, where)
                if (total := total + len(content)) > limit:
                    raise DataError(f"{where}: the images so far have more than {limit:,} bytes", REMEDY)
                if it is None or (isinstance(it, str) and len(it) > NAME):
                    raise DataError(f"{where} has no label, or a text of more than {NAME} letters", REMEDY)
                yield content, it, where


def _batches(table: Table, columns: list[str]) -> Iterator[Any]:
    """Record batches of some columns, of files that do not inflate beyond the bounds."""
    import pyarrow.parquet as parquet

    path = table.path
    if _by_row(path):
        for batch in open_batches(path):
            yield batch.select(columns)
        return
    with parquet.ParquetFile(path) as file:
        about = file.metadata
        sizes = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
        if about.num_rows > ROWS or max(sizes, default=0) > GROUP:
            found = f"{about.num_rows:,} rows, row groups of up to {max(sizes, default=0):,} bytes"
            raise DataError(f"{path} has {found}; at most {ROWS:,} and {GROUP:,} are read", REMEDY)
        # A text or image of all rows is in the file once, and in each row of a batch.
        whole = all(_arrow().types.is_integer(table.fields[name]) for name in columns)
        yield from file.iter_batches(batch_size=BATCH if whole else 1, columns=columns)


def _labelled(files: list[Path], columns: tuple[str, str]) -> bool:
    """Whether a split has labels: a test split that keeps its own secret has -1 everywhere."""
    return any(label != -1 for path in files[:1] for _, label, _ in _rows(path, columns, images=False))


def _class_names(files: list[Path], columns: tuple[str, str]) -> tuple[str, ...]:
    """Names of the classes in label order: the file's own, else texts in their order, else numbers."""
    table = _table(files[0])
    feature = table.features.get(_columns(table, columns)[1])
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, list) and all(isinstance(name, str) for name in names) and names:
        return tuple(names)
    labels = {label for path in files for _, label, _ in _rows(path, columns, images=False)}
    if all(isinstance(label, str) for label in labels):
        return tuple(sorted(labels))
    numbers = [label for label in labels if isinstance(label, int)]
    return tuple(str(number) for number in range(min(max(numbers, default=-1), len(labels)) + 1))


HF = Source(load_hf, channels=3, encodes=True, own=True)
