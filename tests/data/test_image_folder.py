"""Trees of image files: folders and zips, with and without labels, resized, with damaged files."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from sem_jax.data import load, read_image_tree
from sem_jax.errors import DataError
from tests.helpers.data_sets import check_message, images, write_tree


def test_image_folder_and_zip_agree(tmp_path):
    root = write_tree(tmp_path / "photos")
    (root / "train" / ".hidden").write_text("x")
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted(root.rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path))
    dataset = load("image_folder", data_dir=str(root))
    assert dataset.class_names == ("cat", "dog") and dataset.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(dataset.splits["train"].images[:3], images(3, 8, seed=0))
    assert load("image_folder", data_dir=str(tmp_path / "photos.zip")).fingerprint == dataset.fingerprint
    (root / "test").rename(root / "val")
    assert load("image_folder", data_dir=str(root)).fingerprint == dataset.fingerprint


def test_image_folder_resizes(tmp_path):
    root = write_tree(tmp_path / "photos")
    Image.new("RGB", (40, 20), "red").save(root / "train" / "cat" / "wide.jpg")
    with pytest.raises(DataError) as caught:
        load("image_folder", data_dir=str(root))
    check_message(caught.value, "wide.jpg", "data.image_size")
    assert load("image_folder", data_dir=str(root), image_size=16).splits["train"].images.shape == (7, 16, 16, 3)


def test_tree_without_labels_and_with_given_classes(tmp_path):
    (tmp_path / "flat").mkdir()
    for i, image in enumerate(images(3, 8)):
        Image.fromarray(image).save(tmp_path / "flat" / f"{i}.PNG")
    split, names = read_image_tree(tmp_path / "flat")
    assert split.labels.tolist() == [-1, -1, -1] and names == ()
    np.testing.assert_array_equal(split.images, images(3, 8))
    root = write_tree(tmp_path / "photos") / "test"
    split, names = read_image_tree(root, classes=("bird", "dog", "cat"))
    assert split.labels.tolist() == [2, 2, 2, 1, 1, 1] and names == ("bird", "dog", "cat")
    with pytest.raises(DataError) as caught:
        read_image_tree(root, classes=("bird", "dog"))
    check_message(caught.value, "'cat'")
    Image.fromarray(images(1, 8)[0]).save(root / "loose.png")
    with pytest.raises(DataError) as caught:
        read_image_tree(root)
    check_message(caught.value, "loose.png")


def test_large_images_go_through_threads(tmp_path):
    for i, image in enumerate(images(6, 120)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    split, _ = read_image_tree(tmp_path)
    np.testing.assert_array_equal(split.images, images(6, 120))
    (tmp_path / "3.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_image_tree(tmp_path)
    check_message(caught.value, "3.png")
