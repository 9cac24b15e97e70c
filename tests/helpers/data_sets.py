"""Writers of tiny data sets in the layouts people have."""

import dataclasses
import json
import struct
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sem_jax.data import cifar
from sem_jax.data.cifar import CIFAR10
from sem_jax.data.facts import PublicSet, Reading
from sem_jax.data.prepare import prepare
from sem_jax.data.public import load_public
from sem_jax.data.tfrecord import crc32c_many, masked
from sem_jax.errors import DataError

CLASSES = CIFAR10.class_names


def images(n, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


def small(spec: PublicSet, monkeypatch=None, records=None, *, sizes: dict[str, int]) -> PublicSet:
    """`spec` with smaller official files."""
    if records:
        monkeypatch.setitem(cifar.RECORDS, spec.name, records)
    return dataclasses.replace(spec, train_size=sizes["train"], test_size=sizes["test"])


def small_cifar10(monkeypatch) -> PublicSet:
    """CIFAR-10 of 2 x 20 train and 10 test images."""
    records = {"train": {"data_batch_1.bin": 20, "data_batch_2.bin": 20}, "test": {"test_batch.bin": 10}}
    return small(CIFAR10, monkeypatch, records, sizes={"train": 40, "test": 10})


def write_cifar10(folder: Path) -> Path:
    """The unpacked binary archive of `small_cifar10`."""
    folder.mkdir(parents=True)
    for seed, (name, n) in enumerate({"data_batch_1": 20, "data_batch_2": 20, "test_batch": 10}.items()):
        pixels = images(n, seed=seed).transpose(0, 3, 1, 2).reshape(n, -1)
        labels = (np.arange(n) % 10).astype(np.uint8)
        np.concatenate([labels[:, None], pixels], 1).tofile(folder / f"{name}.bin")
    return folder


_made: list = []


def made_cifar10(folder: Path | None = None):
    """(root, what load_public gave) of a prepared `small_cifar10`, made once, below `folder` where that is given."""
    if not _made:
        root = folder or Path(tempfile.mkdtemp(prefix="sem_jax_made_"))
        with pytest.MonkeyPatch.context() as patch:
            spec = small_cifar10(patch)
            prepare(spec, data_dir=root / "sets", source=write_cifar10(root / "raw"))
            _made.append((root / "sets", load_public(spec, str(root / "raw"), reading=Reading(cache=False))))
    return _made[0]


def cifar10_archive(tmp_path: Path) -> Path:
    folder = write_cifar10(tmp_path / "unpacked" / "cifar-10-batches-bin")
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-bin")
    return tmp_path / "cifar-10-binary.tar.gz"


def write_tree(root: Path, classes=("cat", "dog"), n=3, size=8, splits=("train", "test")) -> Path:
    """An image folder: n images of each class in each split."""
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i, image in enumerate(images(n, size, seed=10 * s + c)):
                Image.fromarray(image).save(root / split / name / f"{i}.png")
    return root


def write_arrays(root: Path, n=12, classes=3) -> Path:
    """The layout of the data set `arrays`."""
    root.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        np.save(root / f"{split}_data.npy", images(n, 8))
        np.save(root / f"{split}_labels.npy", np.arange(n) % classes)
    return root


def write_tiny_imagenet(root: Path, classes=("n02", "n01"), n=4, size=64) -> Path:
    """tiny-imagenet-200/ with some classes; one training image is grey."""
    top = root / "tiny-imagenet-200"
    (top / "val" / "images").mkdir(parents=True)
    lines = []
    for c, wnid in enumerate(classes):
        (top / "train" / wnid / "images").mkdir(parents=True)
        for i, image in enumerate(images(n, size, seed=c)):
            picture = Image.fromarray(image)
            picture = picture.convert("L") if (c, i) == (0, 0) else picture
            picture.save(top / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
        name = f"val_{c}.JPEG"
        Image.fromarray(images(1, size, seed=50 + c)[0]).save(top / "val" / "images" / name)
        lines.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
    (top / "val" / "val_annotations.txt").write_text("".join(lines))
    (top / "wnids.txt").write_text("\n".join(classes) + "\n")
    return top


def check_message(error: DataError, *words: str) -> None:
    """At most three lines, and each of `words` in them."""
    text = str(error)
    assert len(text.splitlines()) <= 3, text
    for word in words:
        assert word in text, f"{word!r} not in: {text}"


def write_records(path: Path, rows: list[bytes]) -> None:
    """Writes `rows` as one TFRecord file."""
    lengths = [struct.pack("<Q", len(row)) for row in rows]
    with path.open("wb") as file:
        crcs = zip(masked(crc32c_many(lengths)), masked(crc32c_many(rows)), strict=True)
        for row, length, (length_crc, row_crc) in zip(rows, lengths, crcs, strict=True):
            file.write(length + struct.pack("<I", length_crc) + row + struct.pack("<I", row_crc))


def to_tfrecord(root: Path) -> Path:
    """Turns a prepared directory into TFRecord, train in two shards of unequal length."""
    from array_record.python.array_record_module import ArrayRecordReader

    folder = root / "cifar10/3.0.2"
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    for split in info["splits"]:
        shard = folder / f"cifar10-{split['name']}.array_record-00000-of-00001"
        records = ArrayRecordReader(str(shard)).read_all()
        parts = [records[:17], records[17:]] if split["name"] == "train" else [records]
        split["shardLengths"] = [str(len(part)) for part in parts]
        for i, part in enumerate(parts):
            write_records(folder / f"cifar10-{split['name']}.tfrecord-{i:05d}-of-{len(parts):05d}", part)
        shard.unlink()
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def assert_equal(splits, expected):
    assert list(splits) == list(expected)
    for name in expected:
        for got, want in zip(splits[name], expected[name], strict=True):
            np.testing.assert_array_equal(got, want)
