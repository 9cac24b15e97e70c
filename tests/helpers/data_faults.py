"""Broken data directories, as a table: each row damages a good one and says what the refusal must name.

    name, word = fault(folder)       # RAW_FAULTS: writes the data set `name` there; load(name, data_dir=folder) fails
    word = fault(copy)               # PREPARED_FAULTS: damages the copy of a prepared CIFAR-10
    name, options, check = row(folder)   # HANDLED: odd, but documented; check(dataset) says what it becomes

Read by tests/data/test_broken.py and by experiments/drills.
"""

import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from sem_jax.data import load
from sem_jax.data.decoded_cache import cache_dir
from sem_jax.data.tfrecord import read_records
from tests.helpers.data_sets import (
    cifar10_archive,
    images,
    to_tfrecord,
    write_arrays,
    write_cifar10,
    write_records,
    write_tiny_imagenet,
    write_tree,
)

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


def picture(root, save):
    """An image folder of 8x8 pictures in which `save(path of train/cat/1.png)` put another one."""
    path = write_tree(root) / "train" / "cat" / "1.png"
    path.unlink()
    save(path)
    return path.name


def another_size(root):
    return "image_folder", picture(root, lambda path: Image.fromarray(images(1, 9)[0]).save(path))


def floating_point_image(root):
    return "image_folder", picture(root, lambda path: Image.new("F", (8, 8)).save(path, "TIFF"))


def text_as_image(root):
    return "image_folder", picture(root, lambda path: path.write_text("<html>404</html>"))


def half_a_jpeg(root):
    def save(path):
        stream = io.BytesIO()
        Image.fromarray(images(1, 64)[0]).save(stream, "JPEG")
        path.write_bytes(stream.getvalue()[:700])

    return "image_folder", picture(root, save)


def float_pixels(root):
    np.save(write_arrays(root) / "train_data.npy", images(12, 8) / np.float32(255))
    return "arrays", "train_data.npy"


def channels_first(root):
    np.save(write_arrays(root) / "train_data.npy", images(12, 8).transpose(0, 3, 1, 2))
    return "arrays", "train_data.npy"


def test_of_another_shape(root):
    np.save(write_arrays(root) / "test_data.npy", images(12, 9))
    return "arrays", "test_data.npy"


test_of_another_shape.__test__ = False  # a row of the table, whatever pytest makes of its name


def label_above_the_names(root):
    (write_arrays(root) / "class_names.txt").write_text("a\nb\n")
    return "arrays", "class_names.txt"


def names_that_are_no_text(root):
    (write_arrays(root) / "class_names.txt").write_bytes(b"\xff\xfe\x00a")
    return "arrays", "class_names.txt"


def zero_byte_npy(root):
    (write_arrays(root) / "test_labels.npy").write_bytes(b"")
    return "arrays", "test_labels.npy"


def flipped_zip(root):
    write_tree(root / "tree")
    path = root / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((root / "tree").rglob("*.png")):
            archive.write(file, file.relative_to(root / "tree"))
    flip(path, 0.2)
    return "image_folder", "photos.zip"


def cut_zip(root):
    path = root / flipped_zip(root)[1]
    path.write_bytes(path.read_bytes()[:-30])
    return "image_folder", "photos.zip"


def empty_folder(root):
    root.mkdir()
    return "image_folder", "train"


def empty_class_of_test(root):
    (write_tree(root) / "test" / "emu").mkdir()
    return "image_folder", "'emu'"


def tiny_annotation_of_no_class(root):
    path = write_tiny_imagenet(root) / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("n01", "n99"))
    return "tiny_imagenet", "val_annotations.txt"


def cut_mat(root):
    from scipy.io import savemat

    root.mkdir()
    for split in ("train", "test"):
        savemat(root / f"{split}_32x32.mat", {"X": images(10).transpose(1, 2, 3, 0), "y": np.arange(1, 11)[:, None]})
    path = root / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:2000])
    return "svhn_cropped", "train_32x32.mat"


def mat_label(root):
    from scipy.io import savemat

    root.mkdir()
    savemat(root / "train_32x32.mat", {"X": images(10).transpose(1, 2, 3, 0), "y": np.arange(2, 12)[:, None]})
    return "svhn_cropped", "train_32x32.mat"


RAW_FAULTS += [
    another_size,
    floating_point_image,
    text_as_image,
    half_a_jpeg,
    float_pixels,
    channels_first,
    test_of_another_shape,
    label_above_the_names,
    names_that_are_no_text,
    zero_byte_npy,
    flipped_zip,
    cut_zip,
    empty_folder,
    empty_class_of_test,
    tiny_annotation_of_no_class,
    cut_mat,
    mat_label,
]


def _linked(root, name, target="/no/such/place"):
    """An image folder in which `name` was replaced by a link."""
    path = write_tree(root) / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)
    return "image_folder", path.name


def dangling_image(root):
    return _linked(root, "train/cat/1.png")


def dangling_class(root):
    return _linked(root, "train/cat")


def dangling_split(root):
    _linked(root, "test")
    return "image_folder", "test is a link to /no/such/place"


def image_linked_to_itself(root):
    return _linked(root, "train/cat/1.png", "1.png")


def class_that_is_not_utf8(root):
    for split in ("train", "test"):
        (write_tree(root, splits=(split,)) / split / "cat").rename(root / split / "c\udce4t")  # latin-1
    return "image_folder", "'c\\udce4t'"


def class_that_colours_the_terminal(root):
    for split in ("train", "test"):
        (write_tree(root, splits=(split,)) / split / "cat").rename(root / split / "c\x1b[31mt")
    return "image_folder", "control characters"


def file_of_a_class_that_is_no_image(root):
    (write_tree(root) / "train/cat/weights").write_bytes(b"\1" * 900)
    return "image_folder", "weights"


def file_beside_classes(root):
    write_tree(root)
    shutil.copy(root / "train/cat/1.png", root / "train/cover")
    return "image_folder", "cover"


def one_class(root):
    write_tree(root, classes=("cat",))
    return "image_folder", "'cat'"


def one_class_of_arrays(root):
    write_arrays(root, classes=1)
    return "arrays", "'0'"


def fewer_rows_than_the_file(root):
    path = write_arrays(root) / "train_data.npy"
    path.write_bytes(path.read_bytes().replace(b"(12, 8, 8, 3)", b"(11, 8, 8, 3)"))
    return "arrays", "too many"


def arrays_of_arrays(root):
    path = write_arrays(root) / "train_data.npy"
    content = path.read_bytes().replace(b"'|u1'", b"('|u1',(8,8,3))").replace(b"(12, 8, 8, 3)", b"(12,)        ")
    path.write_bytes(content.replace(b" " * 10, b"", 1))  # the header keeps its length
    return "arrays", "train_data.npy holds"


def doubled_class_names(root):
    (write_arrays(root) / "class_names.txt").write_text("a\nb\na\n")
    return "arrays", "'a'"


def dangling_class_names(root):
    (write_arrays(root) / "class_names.txt").symlink_to("/no/such/place")
    return "arrays", "class_names.txt"


def zip_with_doubles(root):
    path = root / flipped_zip(root)[1]
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train/cat/1.png", "train/./cat/1.png"):
            archive.writestr(name, b"x")
    return "image_folder", "photos.zip has two members"


def tar_with_doubles(root):
    root.mkdir()
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in ("test_batch.bin", "./test_batch.bin"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return "cifar10", "cifar-10-binary.tar.gz has two members"


RAW_FAULTS += [
    dangling_image,
    dangling_class,
    dangling_split,
    image_linked_to_itself,
    class_that_is_not_utf8,
    class_that_colours_the_terminal,
    file_of_a_class_that_is_no_image,
    file_beside_classes,
    one_class,
    one_class_of_arrays,
    fewer_rows_than_the_file,
    arrays_of_arrays,
    doubled_class_names,
    dangling_class_names,
    zip_with_doubles,
    tar_with_doubles,
]


RAMP = (np.arange(64, dtype=np.uint8).reshape(8, 8) * 3).astype(np.uint8)  # no symmetry: a turn is seen


def handled(root, save, expected, tolerance=0):
    """The row of a picture that is read, as `expected` u8[8 8 3]."""
    picture(root, save)

    def check(dataset):
        found = dataset.splits["train"].images[1]
        assert found.shape == expected.shape, found.shape
        assert np.abs(found.astype(int) - expected).max() <= tolerance

    return "image_folder", {}, check


def rgb(grey):
    return np.repeat(grey[..., None], 3, -1)


def grey_image(root):
    return handled(root, lambda path: Image.fromarray(RAMP).save(path), rgb(RAMP))


def sixteen_bit_image(root):
    return handled(root, lambda path: Image.fromarray(RAMP.astype(np.uint16) * 257).save(path), rgb(RAMP))


def cmyk_image(root):
    cmyk = np.stack([255 - RAMP] * 3 + [np.zeros_like(RAMP)], -1)
    return handled(root, lambda path: Image.fromarray(cmyk, "CMYK").save(path, "TIFF"), rgb(RAMP), tolerance=1)


def palette_image(root):
    return handled(root, lambda path: Image.fromarray(RAMP).convert("P").save(path), rgb(RAMP))


def alpha_image(root):
    rgba = np.concatenate([rgb(RAMP), RAMP[..., None]], -1)
    return handled(root, lambda path: Image.fromarray(rgba).save(path), rgb(RAMP))


def animated_image(root):
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    return handled(root, lambda path: frames[0].save(path, "GIF", save_all=True, append_images=frames[1:]), rgb(RAMP))


def animated_png(root):
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    return handled(root, lambda path: frames[0].save(path, save_all=True, append_images=frames[1:]), rgb(RAMP))


def exif_rotated_image(root):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    return handled(root, lambda path: Image.fromarray(RAMP).save(path, exif=exif), rgb(np.rot90(RAMP, -1)))


def wrong_extension(root):
    return handled(root, lambda path: Image.fromarray(RAMP).save(path, "BMP"), rgb(RAMP))


def hidden_files(root):
    def save(path):
        Image.fromarray(RAMP).save(path)
        for name in (".DS_Store", "._1.png", "Thumbs.db", "notes.txt"):
            (path.parent / name).write_bytes(b"\0")

    return handled(root, save, rgb(RAMP))


def grey_arrays(root):
    np.save(write_arrays(root) / "train_data.npy", images(12, 8)[..., 0])
    np.save(root / "test_data.npy", images(12, 8)[..., 0])

    def check(dataset):
        np.testing.assert_array_equal(dataset.splits["train"].images, images(12, 8)[..., :1])

    return "arrays", {}, check


def several_sizes(root):
    def check(dataset):
        assert dataset.splits["train"].images.shape == (6, 8, 8, 3)

    another_size(root)
    return "image_folder", {"image_size": 8}, check


def images_of_any_name(root):
    """The suffixes .jfif and .jpe are those of JPEG; the third name has none."""

    def save(path):
        for name in ("0.jfif", "1.jpe", "2"):
            Image.fromarray(RAMP).save(path.with_name(name), "PNG")
        for name in ("0.png", "2.png"):
            path.with_name(name).unlink()

    return handled(root, save, rgb(RAMP))


def line_of_pixels(root):
    """Resized before it is cropped, it would take 12 GB."""
    picture(root, lambda path: Image.new("RGB", (60_000, 1), (7, 7, 7)).save(path))

    def check(dataset):
        assert (dataset.splits["train"].images[1] == 7).all()

    return "image_folder", {"image_size": 64}, check


def test_linked_to_train(root):
    write_tree(root, splits=("train",))
    (root / "test").symlink_to("train")

    def check(dataset):
        np.testing.assert_array_equal(*(dataset.splits[name].images for name in ("train", "test")))

    return "image_folder", {}, check


test_linked_to_train.__test__ = False


def notes_beside_classes(root):
    """Of any name; such a file in a class folder is refused."""
    for name in ("CHANGELOG", "train/_SUCCESS", "test/list.lst"):
        (write_tree(root) if name == "CHANGELOG" else root).joinpath(name).write_text("")

    def check(dataset):
        assert len(dataset.splits["train"].labels) == 6

    return "image_folder", {}, check


def link_to_a_folder_above(root):
    (write_tree(root) / "train/cat/again").symlink_to("..")

    def check(dataset):
        assert len(dataset.splits["train"].labels) == 6

    return "image_folder", {}, check


def _cached(root, damage):
    """The row of an image folder that was read before, after which `damage` met the entry of train in the cache."""
    place = cache_dir() / "decoded"
    before = set(place.glob("*"))
    expected = load("image_folder", data_dir=str(write_tree(root)))
    damage(next(path for path in place.glob("image_folder-train-*") if path not in before))

    def check(dataset):
        assert dataset.fingerprint == expected.fingerprint and dataset.class_names == ("cat", "dog")
        assert not list(place.glob(".incomplete-*"))

    return "image_folder", {}, check


def cache_that_claims_a_terabyte(root):
    def damage(entry):
        path = entry / "images.npy"
        content = path.read_bytes().replace(b"(6, 8, 8, 3), }      ", b"(6000000000, 8, 8, 3)}")
        path.write_bytes(content.replace(b"3)}  ", b"3)} ", 1))

    return _cached(root, damage)


def cache_with_edited_class_names(root):
    def damage(entry):
        index = json.loads((entry / "index.json").read_text())
        (entry / "index.json").write_text(json.dumps(index | {"class_names": ["dog", "cat"]}))

    return _cached(root, damage)


def cache_with_a_pipe(root):
    def damage(entry):
        (entry / "index.json").unlink()
        os.mkfifo(entry / "index.json")

    return _cached(root, damage)


def cache_that_is_a_link(root):
    def damage(entry):
        entry.rename(root / "elsewhere")
        entry.symlink_to(root / "elsewhere")

    return _cached(root, damage)


def cache_that_was_half_written(root):
    def damage(entry):
        entry.rename(entry.with_name(".incomplete-abc"))

    return _cached(root, damage)


HANDLED = [
    grey_image,
    sixteen_bit_image,
    cmyk_image,
    palette_image,
    alpha_image,
    animated_image,
    animated_png,
    exif_rotated_image,
    wrong_extension,
    hidden_files,
    grey_arrays,
    several_sizes,
    images_of_any_name,
    line_of_pixels,
    test_linked_to_train,
    notes_beside_classes,
    link_to_a_folder_above,
    cache_that_claims_a_terabyte,
    cache_with_edited_class_names,
    cache_with_a_pipe,
    cache_that_is_a_link,
    cache_that_was_half_written,
]
