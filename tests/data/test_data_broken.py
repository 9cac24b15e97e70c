"""Broken data directories: each ends in a message of three lines or fewer that names the file and what to do."""

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_helpers import (
    CIFAR10,
    assert_equal,
    check_message,
    cifar10_archive,
    images,
    small_cifar10,
    to_tfrecord,
    write_arrays,
    write_cifar10,
    write_tiny_imagenet,
    write_tree,
)
from PIL import Image

from sem_jax.data import load
from sem_jax.data.prepared import read_split
from sem_jax.data.public import load_public
from sem_jax.data.tfrecord import read_records, write_records
from sem_jax.errors import DataError

SHARD = "cifar10/3.0.2/cifar10-train.array_record-00000-of-00001"


def edit_info(root, change):
    path = root / "cifar10/3.0.2/dataset_info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def flip(path: Path, at: float):
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def rewrite(root, change):
    """TFRecord version of the set in which `change` was applied to the parsed examples of the first shard."""
    from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

    shard = to_tfrecord(root) / "cifar10-train.tfrecord-00000-of-00002"
    examples = [Example.FromString(record) for record in read_records(shard)]
    change([example.features.feature for example in examples])
    write_records(shard, [example.SerializeToString() for example in examples])
    return shard.name


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def flipped_array_record(root):
    flip(root / SHARD, 0.5)
    return Path(SHARD).name


def truncated_array_record(root):
    (root / SHARD).write_bytes((root / SHARD).read_bytes()[:5000])
    return Path(SHARD).name


def empty_array_record(root):
    (root / SHARD).write_bytes(b"")
    return Path(SHARD).name


def missing_array_record(root):
    (root / SHARD).unlink()
    return Path(SHARD).name


def flipped_tfrecord(root):
    flip(to_tfrecord(root) / "cifar10-train.tfrecord-00001-of-00002", 0.7)
    return "cifar10-train.tfrecord-00001-of-00002"


def truncated_tfrecord(root):
    path = to_tfrecord(root) / "cifar10-train.tfrecord-00001-of-00002"
    path.write_bytes(path.read_bytes()[:-5])
    return path.name


def missing_tfrecord(root):
    (to_tfrecord(root) / "cifar10-train.tfrecord-00001-of-00002").unlink()
    return "cifar10-train.tfrecord-00001-of-00002"


def wrong_count(root):
    edit_info(root, lambda info: info["splits"][0].update(shardLengths=["41"]))
    return Path(SHARD).name


def missing_test_split(root):
    edit_info(root, lambda info: info["splits"].pop(1))
    return "'test'"


def cut_info(root):
    path = root / "cifar10/3.0.2/dataset_info.json"
    path.write_text(path.read_text()[:200])
    return "dataset_info.json"


def no_info(root):
    (root / "cifar10/3.0.2/dataset_info.json").unlink()
    return "dataset_info.json"


def unknown_format(root):
    edit_info(root, lambda info: info.update(fileFormat="riegeli"))
    return "riegeli"


def wrong_shape(root):
    return rewrite(root, lambda rows: rows[3]["image"].bytes_list.value.__setitem__(0, png(images(1, 31)[0])))


def label_out_of_range(root):
    return rewrite(root, lambda rows: rows[3]["label"].int64_list.value.__setitem__(0, 10))


def no_label(root):
    return rewrite(root, lambda rows: rows[3].pop("label"))


def image_no_image(root):
    return rewrite(root, lambda rows: rows[3]["image"].bytes_list.value.__setitem__(0, b"\x89PNG, not"))


PREPARED_FAULTS = [
    flipped_array_record,
    truncated_array_record,
    empty_array_record,
    missing_array_record,
    flipped_tfrecord,
    truncated_tfrecord,
    missing_tfrecord,
    wrong_count,
    missing_test_split,
    cut_info,
    no_info,
    unknown_format,
    wrong_shape,
    label_out_of_range,
    no_label,
    image_no_image,
]


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


def empty_class(root):
    write_tree(root)
    (root / "train" / "emu").mkdir()
    return "image_folder", "'emu'"


def zero_byte_image(root):
    (write_tree(root) / "train" / "cat" / "1.png").write_bytes(b"")
    return "image_folder", "1.png"


def cut_image(root):
    path = write_tree(root, size=32) / "train" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:900])
    return "image_folder", "1.png"


def no_test_folder(root):
    write_tree(root, splits=("train",))
    return "image_folder", "test"


def other_classes(root):
    write_tree(root)
    (root / "test" / "dog").rename(root / "test" / "wolf")
    return "image_folder", "'dog'"


def no_class_folders(root):
    write_tree(root)
    for split in ("train", "test"):
        for file in list((root / split).rglob("*.png")):
            file.rename(root / split / f"{file.parent.name}{file.name}")
        for folder in ("cat", "dog"):
            (root / split / folder).rmdir()
    return "image_folder", "class folders"


def pickled_arrays(root):
    write_arrays(root)
    np.save(root / "train_data.npy", np.array([{"a": 1}], object), allow_pickle=True)
    return "arrays", "train_data.npy"


def unequal_lengths(root):
    np.save(write_arrays(root) / "test_labels.npy", np.arange(11) % 3)
    return "arrays", "test_labels.npy"


def gap_in_labels(root):
    np.save(write_arrays(root) / "train_labels.npy", np.arange(12) % 3 * 2)
    return "arrays", "train_data.npy"


def negative_label(root):
    np.save(write_arrays(root) / "train_labels.npy", np.arange(12) % 3 - 1)
    return "arrays", "train_data.npy"


def cut_npy(root):
    path = write_arrays(root) / "train_data.npy"
    path.write_bytes(path.read_bytes()[:-10])
    return "arrays", "train_data.npy"


def empty_arrays(root):
    np.save(write_arrays(root) / "train_data.npy", np.zeros((0, 8, 8, 3), np.uint8))
    np.save(root / "train_labels.npy", np.zeros(0, np.int32))
    return "arrays", "train_data.npy"


def missing_labels(root):
    (write_arrays(root) / "train_labels.npy").unlink()
    return "arrays", "train_labels.npy"


def short_bin(root):
    path = write_cifar10(root) / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-3073])
    return "cifar10", "data_batch_2.bin"


def missing_bin(root):
    (write_cifar10(root) / "data_batch_2.bin").unlink()
    return "cifar10", "data_batch_2.bin"


def bin_label(root):
    path = write_cifar10(root) / "data_batch_2.bin"
    data = bytearray(path.read_bytes())
    data[3073 * 4] = 77
    path.write_bytes(data)
    return "cifar10", "data_batch_2.bin"


def pickled_cifar(root):
    (root / "cifar-10-batches-py").mkdir(parents=True)
    (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"\x80\x02}q\x00.")
    return "cifar10", "pickle"


def pickled_cifar_archive(root):
    root.mkdir()
    (root / "data_batch_1").write_bytes(b"\x80\x02}q\x00.")
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(root / "data_batch_1", "cifar-10-batches-py/data_batch_1")
    return "cifar10", "pickle"


def tar_that_climbs(root):
    root.mkdir()
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../evil.bin"), io.BytesIO())
    return "cifar10", "../evil.bin"


def tar_with_link(root):
    root.mkdir()
    link = tarfile.TarInfo("data_batch_1.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.addfile(link)
    return "cifar10", "cifar-10-binary.tar.gz"


def no_tar(root):
    root.mkdir()
    (root / "cifar-10-binary.tar.gz").write_bytes(bytes(range(256)) * 40)
    return "cifar10", "cifar-10-binary.tar.gz is not a readable tar archive"


def cut_tar(root):
    path = cifar10_archive(root.parent).rename(root.parent / "cut.tar.gz")
    root.mkdir()
    (root / "cifar-10-binary.tar.gz").write_bytes(path.read_bytes()[:20_000])
    return "cifar10", "cifar-10-binary.tar.gz"


def zip_that_climbs(root):
    (root / "tiny_imagenet").mkdir(parents=True)
    with zipfile.ZipFile(root / "tiny-imagenet-200.zip", "w") as archive:
        archive.writestr("tiny-imagenet-200/../../evil", "x")
    return "tiny_imagenet", "evil"


def tiny_without_image(root):
    (write_tiny_imagenet(root) / "val" / "images" / "val_1.JPEG").unlink()
    return "tiny_imagenet", "val_1.JPEG"


def tiny_empty_class(root):
    shutil.rmtree(write_tiny_imagenet(root) / "train" / "n01")
    return "tiny_imagenet", "n01"


RAW_FAULTS = [
    empty_class,
    zero_byte_image,
    cut_image,
    no_test_folder,
    other_classes,
    no_class_folders,
    pickled_arrays,
    unequal_lengths,
    gap_in_labels,
    negative_label,
    cut_npy,
    empty_arrays,
    missing_labels,
    short_bin,
    missing_bin,
    bin_label,
    pickled_cifar,
    pickled_cifar_archive,
    tar_that_climbs,
    tar_with_link,
    no_tar,
    cut_tar,
    zip_that_climbs,
    tiny_without_image,
    tiny_empty_class,
]


@pytest.mark.parametrize("fault", RAW_FAULTS, ids=lambda f: f.__name__)
def test_broken_raw_directory(tmp_path, monkeypatch, fault):
    small_cifar10(monkeypatch)
    name, word = fault(tmp_path / "d")
    with pytest.raises(DataError) as caught:
        load(name, data_dir=str(tmp_path / "d"), prepare=False)
    check_message(caught.value, word)


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
