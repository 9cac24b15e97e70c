"""Public sets in every layout people have: prepared in both formats, official files, archives, image folders."""

import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from sem_jax.data import PUBLIC, load
from sem_jax.data.prepare import prepare
from sem_jax.data.public import load_public
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
    write_tiny_imagenet,
)


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
