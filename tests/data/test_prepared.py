"""Prepared directories: what prepare writes, tensorflow-datasets and we read; TFRecord; every layout; broken ones."""

import dataclasses
import functools
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from sem_jax.data import PUBLIC, load
from sem_jax.data.facts import Raw, Reading
from sem_jax.data.prepare import prepare
from sem_jax.data.public import load_public
from sem_jax.data.tfrecord import crc32c_many, read_records
from sem_jax.errors import DataError
from tests.helpers.data_sets import (
    CLASSES,
    assert_equal,
    check_message,
    cifar10_archive,
    images,
    small,
    small_cifar10,
    to_tfrecord,
    write_cifar10,
    write_records,
    write_tiny_imagenet,
)


def test_crc32c(rng):
    assert crc32c_many([b"123456789", b"", b"a"]).tolist() == [0xE3069283, 0, 0xC1D04330]
    rows = [rng.bytes(n) for n in (3, 4, 5, 2500, 17, 17, 4)]
    assert crc32c_many(rows).tolist() == [crc32c_many([row])[0] for row in rows]
    assert crc32c_many([b"\0" * 32])[0] == 0x8A9136AA  # RFC 3720, B.4


def test_tfrecord_as_an_independent_writer_writes_it(tmp_path):
    writer = pytest.importorskip("tensorboardX.record_writer").RecordWriter(str(tmp_path / "events"))
    rows = [b"first", b"", b"x" * 1000]
    for row in rows:
        writer.write(row)
    writer.close()
    assert read_records(tmp_path / "events") == rows
    write_records(tmp_path / "ours", rows)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "events").read_bytes()


def test_tfrecord_damage_at_every_byte(tmp_path):
    path = tmp_path / "r"
    write_records(path, [b"0123456789", b"abc"])
    data = path.read_bytes()
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 0x10]) + data[i + 1 :])
        with pytest.raises(DataError):
            read_records(path)
    for i in range(1, len(data)):
        path.write_bytes(data[:i])
        if i != 26:  # a cut between two records shows in the count alone
            with pytest.raises(DataError):
                read_records(path)


def test_tfds_reads_it_by_name(made):
    import tensorflow_datasets as tfds

    root, loaded = made
    for split, (pictures, labels) in loaded.splits.items():
        source = tfds.data_source("cifar10", split=split, data_dir=root)
        assert len(source) == len(labels)
        for row in source:
            index = int(row["id"].decode().removeprefix(f"{split}_"))
            np.testing.assert_array_equal(row["image"], pictures[index])
            assert row["label"] == labels[index]
    info = tfds.builder_from_directory(root / "cifar10/3.0.2").info
    assert tuple(info.features["label"].names) == CLASSES and str(info.version) == "3.0.2"
    assert "tensorflow" not in sys.modules


def test_both_formats_and_all_places(copy, made, tmp_path, monkeypatch, own_home):
    expected = made[1].splits
    assert_equal(load("cifar10", data_dir=str(copy)).splits, expected)
    assert_equal(load("cifar10", data_dir=str(copy / "cifar10")).splits, expected)
    assert_equal(load("cifar10", data_dir=str(copy / "cifar10/3.0.2")).splits, expected)
    monkeypatch.setenv("TFDS_DATA_DIR", str(copy))
    assert_equal(load("cifar10").splits, expected)
    monkeypatch.delenv("TFDS_DATA_DIR")
    shutil.copytree(copy, own_home / "tensorflow_datasets")
    assert_equal(load("cifar10").splits, expected)
    assert_equal(load("cifar10", splits=("test",)).splits, {"test": expected["test"]})
    (copy / "cifar10/3.0.2").rename(copy / "cifar10/3.1.0")
    to_tfrecord(own_home / "tensorflow_datasets")
    assert_equal(load("cifar10").splits, expected)
    assert_equal(load("cifar10", data_dir=str(copy)).splits, expected)


def test_every_layout_of_cifar10(made, tmp_path, monkeypatch):
    spec, expected = small_cifar10(monkeypatch), made[1].splits
    archive = cifar10_archive(tmp_path)
    tree = tmp_path / "tree"
    for split, (pictures, labels) in expected.items():
        for i, (image, label) in enumerate(zip(pictures, labels, strict=True)):
            (tree / split / CLASSES[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tree / split / CLASSES[label] / f"{i:03d}.png")
    for path in (archive, tmp_path, tmp_path / "unpacked", tmp_path / "unpacked/cifar-10-batches-bin"):
        assert_equal(load_public(spec, data_dir=str(path)).splits, expected)
    by_class = load_public(spec, data_dir=str(tree)).splits
    for split, (pictures, labels) in expected.items():
        order = np.argsort(labels, kind="stable")
        assert_equal({split: by_class[split]}, {split: (pictures[order], labels[order])})
    lines = []
    directory = prepare(spec, data_dir=tmp_path / "sets", source=tree, say=lines.append)
    assert_equal(load_public(spec, data_dir=str(directory)).splits, by_class)
    assert any("40 images of 10 classes" in line for line in lines)
    prepare(spec, data_dir=tmp_path / "sets", source=archive, force=True, say=lines.append)
    assert_equal(load_public(spec, data_dir=str(directory)).splits, expected)
    assert any("official checksum" in line for line in lines)


def test_cifar100(tmp_path, monkeypatch):
    records = {"train": {"train.bin": 100}, "test": {"test.bin": 100}}
    spec = small(PUBLIC["cifar100"], monkeypatch, records, sizes={"train": 100, "test": 100})
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    fine, coarse = np.arange(100), np.array(spec.coarse[1])
    for seed, name in enumerate(("train", "test")):
        pixels = images(100, seed=seed).transpose(0, 3, 1, 2).reshape(100, -1)
        rows = np.concatenate([coarse[:, None], fine[:, None], pixels], 1).astype(np.uint8)
        rows.tofile(folder / f"{name}.bin")
    directory = prepare(spec, data_dir=tmp_path / "sets", source=folder)
    loaded = load_public(spec, data_dir=str(directory))
    np.testing.assert_array_equal(loaded.splits["test"].images, images(100, seed=1))
    assert loaded.splits["test"].labels.tolist() == fine.tolist() and loaded.class_names[99] == "worm"

    import tensorflow_datasets as tfds

    row = tfds.data_source("cifar100", split="train", data_dir=tmp_path / "sets")[0]
    assert row["coarse_label"] == spec.coarse[1][row["label"]]


def test_svhn(tmp_path):
    from scipy.io import savemat

    pictures, labels = images(12), np.arange(12) % 10
    spec = small(PUBLIC["svhn_cropped"], sizes={"train": 12, "test": 12})
    mat = {"X": pictures.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]}
    savemat(tmp_path / "test_32x32.mat", mat, do_compression=True)
    loaded = load_public(spec, data_dir=str(tmp_path), splits=("test",))
    assert_equal(loaded.splits, {"test": (pictures, labels)})
    directory = prepare(spec, data_dir=tmp_path / "sets", source=tmp_path)
    assert_equal(load_public(spec, data_dir=str(directory), splits=("test",)).splits, loaded.splits)
    for path in (directory, tmp_path):
        with pytest.raises(DataError) as caught:
            load_public(spec, data_dir=str(path))
        check_message(caught.value, "'train'", str(path))
    for bad in (b"", b"no mat", (tmp_path / "test_32x32.mat").read_bytes()[:-300]):
        (tmp_path / "test_32x32.mat").write_bytes(bad)
        with pytest.raises(DataError) as caught:
            load_public(spec, data_dir=str(tmp_path), splits=("test",))
        check_message(caught.value, "test_32x32.mat")


def test_tiny_imagenet(tmp_path, caplog):
    spec = PUBLIC["tiny_imagenet"]
    top = write_tiny_imagenet(tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w") as archive:
        for file in sorted(top.rglob("*")):
            archive.write(file, file.relative_to(tmp_path / "a"))
    loaded = load_public(spec, data_dir=str(tmp_path / "tiny-imagenet-200.zip"))
    assert "officially" in caplog.text
    assert loaded.class_names == ("n01", "n02") and loaded.splits["train"].labels.tolist() == [0] * 4 + [1] * 4
    assert loaded.splits["test"].labels.tolist() == [1, 0]  # in the order of val_annotations.txt
    for path in (tmp_path, tmp_path / "a", top):
        assert_equal(load_public(spec, data_dir=str(path)).splits, loaded.splits)
    lines = []
    directory = prepare(spec, data_dir=tmp_path / "sets", source=tmp_path / "tiny-imagenet-200.zip", say=lines.append)
    assert_equal(load_public(spec, data_dir=str(directory)).splits, loaded.splits)
    assert any("8 images of 2 classes (the official set: 100000 of 200)" in line for line in lines)

    import tensorflow_datasets as tfds

    source = tfds.data_source("tiny_imagenet", split="train", data_dir=tmp_path / "sets")
    assert {row["image"].shape for row in source} == {(64, 64, 3)}


def test_interrupted_prepare_leaves_nothing_believed(tmp_path, monkeypatch):
    spec, raw = small_cifar10(monkeypatch), write_cifar10(tmp_path / "raw")
    stale = tmp_path / "sets/cifar10/incomplete.ABC"
    stale.mkdir(parents=True)
    # An interrupt in the middle of writing: the reader of the second split never returns.
    opened = spec.open_raw(spec, raw)

    def broken(spec, path):
        pictures = opened["train"]()
        half = Raw(pictures.images[:20], pictures.labels, pictures.class_names)
        return {"train": lambda: half}

    with pytest.raises(IndexError):
        prepare(dataclasses.replace(spec, open_raw=broken), data_dir=tmp_path / "sets", source=raw)
    assert [p.name for p in (tmp_path / "sets/cifar10").iterdir()] == [".prepare.lock"]
    with pytest.raises(DataError):
        load_public(spec, data_dir=str(tmp_path / "sets"), reading=Reading(download=False))
    directory = prepare(spec, data_dir=tmp_path / "sets", source=raw)
    before = directory.stat().st_mtime_ns
    lines = []
    assert prepare(spec, data_dir=tmp_path / "sets", source=raw, say=lines.append) == directory
    assert directory.stat().st_mtime_ns == before and "already" in lines[0]


def test_command_line(tmp_path, own_home):
    run = functools.partial(subprocess.run, capture_output=True, text=True)
    command = [sys.executable, "-m", "sem_jax", "prepare"]
    mirror = {
        "SEM_JAX_MIRROR": "http://127.0.0.1:9",
        "HOME": str(own_home),
        "PATH": "",
        "PYTHONPATH": ":".join(sys.path),
    }
    top = write_tiny_imagenet(tmp_path / "a")
    done = run([*command, "tiny_imagenet", "--folder", str(top), "--data-dir", str(tmp_path / "sets")], env=mirror)
    assert done.returncode == 0, done.stderr
    assert "train: 8 images of 2 classes" in done.stdout and "tiny_imagenet/1.0.0" in done.stdout
    for arguments, word in ((["cifar1"], "cifar10"), (["cifar10"], "refused")):
        failed = run([*command, *arguments], env=mirror)
        assert failed.returncode == 2 and "Traceback" not in failed.stderr
        assert word in failed.stderr and len(failed.stderr.strip().splitlines()) <= 3, failed.stderr
