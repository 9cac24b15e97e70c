"""Readers of arrays, image files and trees: round trips, every image mode, and what is refused."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from sem_jax.data import images as images_module
from sem_jax.data import load, read_array_pair, read_image_tree
from sem_jax.data.images import decode
from sem_jax.errors import DataError
from tests.helpers.data_sets import check_message, images, write_arrays, write_tree


def encoded(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def test_arrays(tmp_path):
    dataset = load("arrays", data_dir=str(write_arrays(tmp_path)))
    np.testing.assert_array_equal(dataset.splits["train"].images, images(12, 8))
    assert dataset.class_names == ("0", "1", "2") and len(dataset.mean) == 3
    (tmp_path / "class_names.txt").write_text("a\nb\nc\n")
    assert load("arrays", data_dir=str(tmp_path), splits=("test",)).class_names == ("a", "b", "c")


def test_array_pair_in_every_form(tmp_path):
    grey, labels = images(5, 4)[..., 0], np.arange(5, dtype=np.int64)
    np.save(tmp_path / "v6_data.npy", grey)
    np.save(tmp_path / "v6_labels.npy", labels)
    np.savez(tmp_path / "both.npz", images=grey, labels=labels)
    for path in (tmp_path / "v6_data.npy", tmp_path / "v6", tmp_path, tmp_path / "both.npz"):
        split = read_array_pair(path)
        assert split.images.shape == (5, 4, 4, 1) and split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.images[..., 0], grey)


@pytest.mark.parametrize("fault", ["float", "channels first", "labels float", "missing key", "two pairs", "no zip"])
def test_array_pair_refused(tmp_path, fault):
    data, labels, path = images(4, 8), np.arange(4), tmp_path / "x_data.npy"
    if fault == "float":
        data = data.astype(np.float32)
    elif fault == "channels first":
        data = data.transpose(0, 3, 1, 2)
    elif fault == "labels float":
        labels = labels / 2
    np.save(tmp_path / "x_data.npy", data)
    np.save(tmp_path / "x_labels.npy", labels)
    if fault == "missing key":
        path = tmp_path / "x.npz"
        np.savez(path, pictures=data)
    elif fault == "two pairs":
        path = tmp_path
        np.save(tmp_path / "y_data.npy", data)
    elif fault == "no zip":
        path = tmp_path / "x.npz"
        path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError) as caught:
        read_array_pair(path)
    check_message(caught.value, str(tmp_path))


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


def test_every_mode_becomes_rgb():
    rgb = np.kron(images(1, 4)[0], np.ones((4, 4, 1), np.uint8))
    picture = Image.fromarray(rgb)
    np.testing.assert_array_equal(decode(encoded(picture), "x"), rgb)
    grey = np.asarray(picture.convert("L"))
    for mode in ("L", "P", "RGBA", "LA", "1"):
        out = decode(encoded(picture.convert(mode)), "x")
        assert out.shape == (16, 16, 3) and out.dtype == np.uint8
    np.testing.assert_array_equal(decode(encoded(picture.convert("L")), "x"), np.repeat(grey[..., None], 3, -1))
    assert decode(encoded(picture.convert("CMYK"), "JPEG"), "x").shape == (16, 16, 3)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode(encoded(deep), "x")[..., 0], grey)
    palette = picture.convert("P")
    palette.info["transparency"] = 0
    assert decode(encoded(palette, transparency=0), "x").shape == (16, 16, 3)
    turned = picture.crop((0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    np.testing.assert_array_equal(decode(encoded(turned, exif=exif), "x"), np.rot90(rgb[:8], -1))


def test_fit_is_antialiased_and_centred():
    board = np.indices((64, 64)).sum(0) % 2 * 255
    out = decode(encoded(Image.fromarray(np.repeat(board[..., None], 3, -1).astype(np.uint8))), "x", image_size=8)
    assert np.abs(out.astype(int) - 127).max() < 10  # a plain subsampling would keep 0 or 255
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    assert decode(encoded(Image.fromarray(wide)), "x", image_size=8).min() == 255


def test_bombs_and_garbage_are_refused(monkeypatch):
    good = encoded(Image.fromarray(images(1, 32)[0]))
    monkeypatch.setattr(images_module, "MAX_PIXELS", 1000)
    for data, word in (
        (good, "too large"),
        (b"", "empty"),
        (b"GIF89a nothing", "not a readable"),
        (good[:200], "x.png"),
    ):
        with pytest.raises(DataError) as caught:
            decode(data, "x.png")
        check_message(caught.value, "x.png", word)


def test_large_images_go_through_threads(tmp_path):
    for i, image in enumerate(images(6, 120)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    split, _ = read_image_tree(tmp_path)
    np.testing.assert_array_equal(split.images, images(6, 120))
    (tmp_path / "3.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_image_tree(tmp_path)
    check_message(caught.value, "3.png")


def test_more_than_the_memory_is_refused():
    data = encoded(Image.fromarray(images(1, 100)[0]))
    with pytest.raises(DataError) as caught:
        images_module.decode_all(10**12, lambda i: data, lambda i: f"{i}.png")
    check_message(caught.value, "0.png", "data.image_size", "GB")
