"""Decoding: every image mode, resizing, bombs and garbage, more than the memory."""

import io
import resource
import time

import numpy as np
import pytest
from PIL import Image

from sem_jax.data import images as images_module
from sem_jax.data.images import decode
from sem_jax.errors import DataError
from tests.helpers.data_sets import check_message, images


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


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


def test_more_than_the_memory_is_refused():
    data = encoded(Image.fromarray(images(1, 100)[0]))
    with pytest.raises(DataError) as caught:
        images_module.decode_all(10**12, lambda i: data, lambda i: f"{i}.png")
    check_message(caught.value, "0.png", "data.image_size", "GB")


@pytest.mark.parametrize("size, share", [((60, 45), 0.8), ((7, 300), 1.0), ((300, 7), 0.875)])
def test_the_centre_is_the_same_whether_cut_before_or_after_resizing(monkeypatch, size, share):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    after = np.asarray(images_module._fit(image, 16, share)).astype(int)
    monkeypatch.setattr(images_module, "RESIZED_PIXELS", 0)
    assert np.abs(np.asarray(images_module._fit(image, 16, share)) - after).max() <= 1


def test_a_long_line_of_pixels_takes_little_memory_and_time():
    file = io.BytesIO()
    Image.new("L", (1, 60_000), 7).save(file, "PNG")
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert (decode(file.getvalue(), "x", 224) == 7).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 << 10  # KiB; it was 12 GB
    assert time.process_time() - start < 1
