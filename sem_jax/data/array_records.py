"""Images of a prepared directory that stay encoded in its array_record files, which can be read by number.

split, class_names = read_encoded_split(directory, "train", image_size=224, eval_crop=0.875)
split.images[[5, 0]]      # u8[2 224 224 3], decoded now
"""

import functools
import json
from pathlib import Path

import numpy as np

from sem_jax.data.decoded_cache import kept, place_of
from sem_jax.data.encoded import RecordImages
from sem_jax.data.tfds_folder import check_labels, describe, examples, official_order, parse
from sem_jax.errors import DataError, one_line
from sem_jax.interfaces import Split


def read_encoded_split(
    directory: Path, split: str, *, image_size: int = 0, eval_crop: float = 1.0
) -> tuple[Split, tuple[str, ...]]:
    """One split whose images stay in their files; the same items in the same order as `tfds_folder.read_split`.

    All records are read once for their labels; the result is remembered.

    Raises:
      DataError: as `read_split`; and for TFRecord, which has no access by number.
    """
    about = describe(directory, split)
    if about.file_format != "array_record":
        raise DataError(
            f"{directory} is in the format {about.file_format!r}; images that stay encoded need array_record",
            "Prepare it as array_record, or set runtime.residency=host.",
        )
    stats = [(file.name, file.stat()) for file in about.files]
    identity = [str(directory.resolve()), split, [(name, s.st_size, s.st_mtime_ns) for name, s in stats]]

    def index() -> dict[str, np.ndarray]:
        found = [(example.label, example.id) for example in examples(about)]
        order = np.array(official_order([name for _, name in found]), np.int64)
        return {"order": order, "labels": np.array([label for label, _ in found], np.int64)[order]}

    found = kept(place_of("encoded", ["index", identity]), ["order", "labels"], index)
    records = ArrayRecords(about.files, about.lengths, found["order"], json.dumps(identity), about.remedy)
    labels = check_labels(found["labels"].tolist(), records.where, about)
    return Split(RecordImages(records, image_size, identity, eval_crop=eval_crop), labels), about.class_names


class ArrayRecords:
    """`encoded.Records` of array_record files; picklable, since files are opened when first read from.

    Args:
      files: paths.
      lengths: records in each.
      order: which record, counted through all files, an image is.
      identity: of the files, so that one that was replaced is opened anew.
      remedy: for messages.
    """

    def __init__(self, files: list[Path], lengths: list[int], order: np.ndarray, identity: str, remedy: str):
        self._files, self._order, self._identity, self._remedy = list(map(str, files)), order, identity, remedy
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return len(self._order)

    def where(self, index: int) -> str:
        file, record = self._place(index)
        return f"{self._files[file]}: record {record}"

    def read(self, index: int) -> bytes:
        file, record = self._place(index)
        try:
            data = _open(self._files[file], self._identity).read([record])[0]
        except Exception as error:  # a missing or a damaged file
            raise DataError(f"{self.where(index)} is damaged: {one_line(error)}", self._remedy) from error
        return parse(data, self.where(index), self._remedy).image

    def _place(self, index: int) -> tuple[int, int]:
        number = int(self._order[index])
        file = int(np.searchsorted(self._ends, number, side="right"))
        return file, number - (int(self._ends[file - 1]) if file else 0)


@functools.lru_cache(maxsize=256)  # of the process; systems allow about 1,000 open files
def _open(file: str, identity: str):
    del identity  # a part of the key
    from array_record.python.array_record_module import ArrayRecordReader

    return ArrayRecordReader(file, options="readahead_buffer_size:0,max_parallelism:0")  # for access by number
