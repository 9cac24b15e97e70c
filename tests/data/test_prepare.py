"""What `prepare` writes: tensorflow-datasets reads it, an interruption leaves nothing that is believed, the command."""

import dataclasses
import functools
import subprocess
import sys

import numpy as np
import pytest

from sem_jax.data.facts import Raw, Reading
from sem_jax.data.prepare import prepare
from sem_jax.data.public import load_public
from sem_jax.errors import DataError
from tests.helpers.data_sets import (
    CLASSES,
    small_cifar10,
    write_cifar10,
    write_tiny_imagenet,
)


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


def test_the_lock_is_no_way_to_another_file(tmp_path, monkeypatch):
    """A link is refused, and what is in the file stays."""
    spec, raw = small_cifar10(monkeypatch), write_cifar10(tmp_path / "raw")
    lock, other = tmp_path / "sets/cifar10/.prepare.lock", tmp_path / "precious"
    lock.parent.mkdir(parents=True)
    other.write_text("precious")
    lock.symlink_to(other)
    with pytest.raises(DataError, match="cannot write .*prepare.lock"):
        prepare(spec, data_dir=tmp_path / "sets", source=raw)
    lock.unlink()
    lock.write_text("mine")
    prepare(spec, data_dir=tmp_path / "sets", source=raw)
    assert other.read_text() == "precious" and lock.read_text() == "mine"
