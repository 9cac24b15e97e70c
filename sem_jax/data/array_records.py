"""Images of a prepared directory that stay encoded in its array_record files."""

import functools
import json
from pathlib import Path

import numpy as np

from sem_jax.data.decoded_cache import Labelled, kept, place_of, stamp
from sem_jax.data.encoded import RecordImages
from sem_jax.data.refusing import refusing, remedied
from sem_jax.data.tfds_folder import check_labels, describe, examples, official_order, parse
from sem_jax.errors import DataError
from sem_jax.interfaces import Split


def read_encoded_split(directory: Path, split: str, *, image_size: int = 0, eval_crop: float = 1.0) -> Labelled:
    """`tfds_folder.read_split` with images that stay in their files. The first call reads all records for their labels.

    Raises:
      DataError: as `read_split`; and for TFRecord, whose records cannot be read by number.
    """
    about = describe(directory, split)
    if about.file_format != "array_record":
        raise DataError(
            f"{directory} is in the format {about.file_format!r}; images that stay encoded need array_record",
            "Prepare it as array_record, or set runtime.residency=host.",
        )
    identity = [str(directory.resolve()), split, [(file.name, *stamp(file)) for file in about.files]]

    def index() -> dict[str, np.ndarray]:
        found = [(example.label, example.id) for example in examples(about)]
        order = np.array(official_order([name for _, name in found]), np.int64)
        return {"order": order, "labels": np.array([label for label, _ in found], np.int64)[order]}

    with remedied(about.remedy):
        found = kept(place_of("encoded", ["index", identity]), ["order", "labels"], index)
        records = ArrayRecords(about.files, about.lengths, found["order"], json.dumps(identity), about.remedy)
        labels = check_labels(found["labels"].tolist(), records.where, about.class_names)
    return Split(RecordImages(records, image_size, identity, eval_crop=eval_crop), labels), about.class_names


class ArrayRecords:
    """`encoded.Records` of array_record files. It can be pickled, since a file is opened when it is first read.

    Args:
      lengths: records in each file.
      order: number of each image's record, counted through all files.
      identity: text that changes with the files, so that a replaced file is opened again.
    """

    def __init__(self, files: list[Path], lengths: list[int], order: np.ndarray, identity: str, remedy: str):
        self._files, self._order, self._identity, self._remedy = list(map(str, files)), order, identity, remedy
        self._starts = np.cumsum([0, *lengths[:-1]])

    def __len__(self) -> int:
        return len(self._order)

    def where(self, index: int) -> str:
        return "{}: record {}".format(*self._place(index))

    def read(self, index: int) -> bytes:
        file, record = self._place(index)
        with remedied(self._remedy):
            with refusing(f"{self.where(index)} is damaged"):
                data = _open(file, self._identity).read([record])[0]
            return parse(data, self.where(index)).image

    def _place(self, index: int) -> tuple[str, int]:
        number = int(self._order[index])
        file = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._files[file], number - int(self._starts[file])


@functools.lru_cache(maxsize=256)  # for the whole process, which may open about 1,000 files
def _open(file: str, identity: str):  # the identity is part of the cache's key
    from array_record.python.array_record_module import ArrayRecordReader

    return ArrayRecordReader(file, options="readahead_buffer_size:0,max_parallelism:0")  # for access by number
