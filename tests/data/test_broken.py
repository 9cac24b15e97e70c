"""Broken data directories: each ends in a message of three lines or fewer that names the file and what to do."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from sem_jax.data import Reading, load
from sem_jax.data.public import load_public
from sem_jax.data.tfds_folder import read_split
from sem_jax.errors import DataError
from tests.helpers.data_faults import HANDLED, PREPARED_FAULTS, RAW_FAULTS, SHARD, flip
from tests.helpers.data_sets import CIFAR10, assert_equal, check_message, small_cifar10


@pytest.mark.parametrize("fault", PREPARED_FAULTS, ids=lambda f: f.__name__)
def test_broken_prepared_directory(copy, fault):
    word = fault(copy)
    with pytest.raises(DataError) as caught:
        load("cifar10", data_dir=str(copy))
    check_message(caught.value, word, "prepare")


def test_a_flip_anywhere_is_noticed_or_harmless(copy, made):
    """array_record has paddings in which a flipped bit means nothing; everywhere else it is an error."""
    shard, noticed = copy / SHARD, 0
    good = shard.read_bytes()
    for at in np.linspace(0, 0.999, 60):
        shard.write_bytes(good)
        flip(shard, at)
        try:
            split, _ = read_split(copy / "cifar10/3.0.2", "train", (32, 32, 3))
        except DataError as error:
            check_message(error, shard.name)
            noticed += 1
        else:
            assert_equal({"train": split}, {"train": made[1].splits["train"]})
    assert noticed > 20


@pytest.mark.parametrize("fault", RAW_FAULTS, ids=lambda f: f.__name__)
def test_broken_raw_directory(tmp_path, monkeypatch, fault):
    small_cifar10(monkeypatch)
    name, word = fault(tmp_path / "d")
    there = tmp_path / "d" / "photos.zip"
    with pytest.raises(DataError) as caught:
        load(name, data_dir=str(there if there.is_file() else tmp_path / "d"), reading=Reading(download=False))
    check_message(caught.value, word)


@pytest.mark.parametrize("row", HANDLED, ids=lambda f: f.__name__)
def test_odd_but_documented(tmp_path, row):
    name, options, check = row(tmp_path / "d")
    check(load(name, data_dir=str(tmp_path / "d"), **options))


def test_the_remedy_of_a_prepared_set_is_one_that_helps(copy):
    """Images of several sizes are resized; only the public sets can be prepared by our command."""
    word = PREPARED_FAULTS[[fault.__name__ for fault in PREPARED_FAULTS].index("wrong_shape")](copy)
    folder = copy / "cifar10/3.0.2"
    for encoded in (False, None):
        with pytest.raises(DataError) as caught:
            load("tfds", data_dir=str(folder), reading=Reading(encoded=encoded))
        check_message(caught.value, word, "Set data.image_size")
    assert load("tfds", data_dir=str(folder), image_size=8).splits["train"].images.shape == (40, 8, 8, 3)
    (copy / "cifar10").rename(copy / "flowers")
    info = copy / "flowers/3.0.2/dataset_info.json"
    info.write_text(info.read_text().replace('"cifar10"', '"flowers"'))
    with pytest.raises(DataError) as caught:
        load("tfds", data_dir=str(info.parent))
    check_message(caught.value, "Prepare the data again with tensorflow-datasets")


def test_zip_member_that_unpacks_to_too_much(tmp_path, monkeypatch):
    from sem_jax.data import files

    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a/1.png", bytes(2_000_000))
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("data_batch_1.bin")
        info.size = 2_000_000
        tar.addfile(info, io.BytesIO(bytes(2_000_000)))
    monkeypatch.setattr(files, "MEMBER_LIMIT", 1_000_000)
    with pytest.raises(DataError) as caught:
        load("image_folder", data_dir=str(tmp_path / "b.zip"))
    check_message(caught.value, "1.png")
    with pytest.raises(DataError) as caught:
        load_public(CIFAR10, data_dir=str(tmp_path / "b.tar.gz"))
    check_message(caught.value, "data_batch_1.bin")
