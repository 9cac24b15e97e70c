"""Images that stay encoded: the array they stand for, crops, batches by number, shards, damaged files."""

import contextlib
import io
import os
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from sem_jax import data as data_lib
from sem_jax.data import Reading, encoded, splits
from sem_jax.data.array_records import read_encoded_split
from sem_jax.data.decoded_cache import kept, place_of
from sem_jax.data.encoded import RecordImages, draw_crop
from sem_jax.data.encoded_feed import BatchSource, EncodedFeed, open_batches
from sem_jax.data.files import FolderFiles
from sem_jax.data.image_folder import FileRecords
from sem_jax.data.images import decode
from sem_jax.data.pipeline import epoch_order
from sem_jax.errors import DataError
from tests.helpers.data_sets import check_message, to_tfrecord, write_tree


def load_encoded(root, **options):
    return data_lib.load("image_folder", data_dir=str(root), reading=Reading(encoded=True), **options)


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "photos", n=11, size=20)


def test_everything_of_an_encoded_set_is_that_of_the_same_images_in_memory(tree):
    for options in ({}, {"image_size": 12}, {"val_size": 6}):
        whole, parts = data_lib.load("image_folder", data_dir=str(tree), **options), load_encoded(tree, **options)
        assert parts[2:] == whole[2:]  # class names, mean, std, fingerprint
        for name, split in whole.splits.items():
            np.testing.assert_array_equal(parts.splits[name].labels, split.labels)
            images = parts.splits[name].images
            assert images.shape == split.images.shape and images.nbytes == split.images.nbytes
            rows = np.array([2, 0, 1])
            for index in (rows, slice(1, 3), -1, np.arange(len(images)) % 2 == 0):
                np.testing.assert_array_equal(images[index], split.images[index])
            np.testing.assert_array_equal(np.asarray(images), split.images)


def test_array_record_is_read_in_the_official_order(made):
    root, loaded = made
    for name, where in (("cifar10", root), ("tfds", root / "cifar10/3.0.2")):
        dataset = data_lib.load(name, data_dir=str(where), reading=Reading(encoded=True))
        for split, value in loaded.splits.items():
            np.testing.assert_array_equal(dataset.splits[split].images[:], value.images)
            np.testing.assert_array_equal(dataset.splits[split].labels, value.labels)
    in_memory = data_lib.load("tfds", data_dir=str(root / "cifar10/3.0.2"), image_size=16)
    parts = data_lib.load("tfds", data_dir=str(root / "cifar10/3.0.2"), image_size=16, reading=Reading(encoded=True))
    assert in_memory[2:] == parts[2:]  # class names, mean, std, fingerprint


def test_a_set_stays_encoded_by_itself_when_it_would_take_too_much_memory(tree, made, monkeypatch):
    places = {"image_folder": tree, "tfds": made[0] / "cifar10/3.0.2"}
    for share, kind in ((0.4, np.ndarray), (1e-9, RecordImages)):
        monkeypatch.setattr(encoded, "HOST_SHARE", share)
        for name, place in places.items():
            dataset = data_lib.load(name, data_dir=str(place), image_size=16, reading=Reading(encoded=None))
            assert isinstance(dataset.splits["train"].images, kind)


def test_evaluation_resizes_and_takes_the_centre(tmp_path):
    """Against Pillow used directly: shorter side 8 / 0.8 = 10, then the middle 8 x 8."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (30, 45, 3), np.uint8))
    file = io.BytesIO()
    image.save(file, "PNG")
    expected = np.asarray(image.resize((15, 10), Image.Resampling.BILINEAR))[1:9, 3:11]
    np.testing.assert_array_equal(decode(file.getvalue(), "x", 8, eval_crop=0.8), expected)


def test_random_resized_crops_follow_their_distribution():
    """Area uniform in [0.08, 1] where boxes fit, log ratio uniform, positions over the whole image."""
    generator = np.random.default_rng(0)
    boxes = np.array([draw_crop(generator, 1000, 1000, scale=0.08) for _ in range(4000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes >= 0).all() and (boxes <= 1000).all() and (widths > 0).all() and (heights > 0).all()
    area, ratio = widths * heights / 1e6, np.log(widths / heights)
    assert 0.08 - 2e-3 < area.min() < 0.09 and area.max() > 0.95
    small = area[area < 0.7]  # a square of 70% always fits with these ratios: no rejection, so uniform
    assert abs(small.mean() - 0.39) < 0.02 and abs(ratio.mean()) < 0.02
    assert abs(ratio).max() <= np.log(4 / 3) + 0.01 and abs(np.std(ratio) - np.log(4 / 3) / np.sqrt(3)) < 0.02
    narrow = [draw_crop(generator, 1000, 20, scale=1.0) for _ in range(20)]  # nothing fits: the centre
    assert set(narrow) == {(486, 0, 513, 20)}


@pytest.fixture
def source(tree):
    split = load_encoded(tree, image_size=12).splits["train"]
    return lambda **options: BatchSource(
        split, **{"seed": 3, "batch_size": 4, "epochs": 2, "crop_scale": 0.08} | options
    )


def assert_batches(a, b):
    for name in ("images", "labels"):
        np.testing.assert_array_equal(a[name], b[name])


def test_a_batch_is_a_function_of_seed_and_number(source):
    whole = source()
    assert len(whole) == 2 * (22 // 4)
    batches = [whole[k] for k in range(len(whole))]
    for k in (7, 2, 9):
        assert_batches(source()[k], batches[k])
    assert not np.array_equal(source(seed=4)[2]["images"], batches[2]["images"])
    first, second = ({int(x) for b in part for x in b["images"].sum((1, 2, 3))} for part in (batches[:5], batches[5:]))
    assert not first & second, "the crops of another epoch are others"
    plain = source(crop_scale=0.0)
    images = np.asarray(plain.split.images)
    rows = epoch_order(jax.random.key(3), 1, num_items=22, batch_size=4)
    np.testing.assert_array_equal(plain[6]["images"], images[np.asarray(rows)[1]])


def test_hosts_read_disjoint_halves_of_every_batch(source):
    whole, halves = source(), [source(shard=(i, 2)) for i in range(2)]
    for k in range(len(whole)):
        parts = [half[k] for half in halves]
        assert all(len(part["labels"]) == 2 for part in parts)
        assert_batches({n: np.concatenate([part[n] for part in parts]) for n in ("images", "labels")}, whole[k])


def test_the_batches_start_at_every_position(source):
    pytest.importorskip("grain")
    batches = [source()[k] for k in range(10)]
    for position in range(10):
        got = list(open_batches(source(), position, 0))
        assert len(got) == 10 - position
        for a, b in zip(got, batches[position:], strict=True):
            assert_batches(a, b)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_worker_processes_make_the_same_batches_and_name_a_damaged_file(tree, source, workers):
    pytest.importorskip("grain")
    batches = [source()[k] for k in range(10)]
    path = next((tree / "train/dog").iterdir())
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:100] + bytes(len(content) - 100))  # as of a disk: neither size nor time tell
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    iterator = open_batches(source(), 0, workers)
    got = []
    with pytest.raises(DataError) as error:
        for batch in iterator:
            got.append(batch)
    iterator.close()
    check_message(error.value, str(path), "not a readable image")
    assert len(got) < 10
    for a, b in zip(got, batches, strict=False):
        assert_batches(a, b)


def test_the_feeder_hands_out_what_is_asked_for_wherever_it_starts(source, tree):
    pytest.importorskip("grain")
    whole, split = source(), load_encoded(tree, image_size=12).splits["train"]
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    options = {"seed": 3, "batch_size": 4, "epochs": 2, "crop_scale": 0.08, "workers": 0, "sharding": sharding}
    feed = EncodedFeed(split, steps=2, **options)
    assert feed.steps == 2
    order = [feed.order(0), feed.order(1)]
    shapes, rows, _ = feed.example(order[0])
    for epoch, first, count in ((0, 0, 2), (0, 2, 2), (0, 4, 1), (1, 0, 2), (1, 3, 2), (0, 1, 1)):
        data, rows, start = feed(order[epoch], first, count)
        assert data.images.shape == shapes.images.shape and data.labels.shape == shapes.labels.shape
        for i in range(count):
            k = 5 * epoch + first + i
            at = rows[start + i]
            assert_batches({"images": data.images[at], "labels": data.labels[at]}, whole[k])
    feed.close()
    assert EncodedFeed(split, steps=0, **options).steps == 5  # 32 MB would be more than an epoch


def test_without_grain_the_extra_is_named(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(DataError) as error:
        open_batches(source(), 0, 0)
    check_message(error.value, "grain", "pip install grain")


def test_what_cannot_stay_encoded_is_refused(tmp_path, copy, tree):
    with pytest.raises(DataError) as error:
        data_lib.load("digits", reading=Reading(encoded=True))
    check_message(error.value, "digits", "image_folder", "runtime.residency=auto")
    with pytest.raises(DataError) as error:
        load_encoded(tree.parent / "none")
    check_message(error.value, "none")
    folder = to_tfrecord(copy)
    with pytest.raises(DataError) as error:
        read_encoded_split(folder, "train")
    check_message(error.value, str(folder), "array_record")
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tree / "train/cat/odd.png")
    with pytest.raises(DataError) as error:
        load_encoded(tree)
    check_message(error.value, "odd.png", "5x5", "data.image_size")
    (tree / "test/dog/1.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        load_encoded(tree, image_size=8)
    check_message(error.value, "test/dog/1.png", "empty")


def test_a_damaged_shard_is_named(copy):
    shard = next((copy / "cifar10/3.0.2").glob("*train.array_record*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    shard.write_bytes(bytes(data))
    with pytest.raises(DataError) as error:
        data_lib.load("cifar10", data_dir=str(copy), reading=Reading(encoded=True))
    check_message(error.value, shard.name, "sem_jax prepare cifar10")


def test_what_is_remembered_of_a_set_survives_a_damaged_file(own_home, tree):
    calls = []

    def make():
        calls.append(1)
        return {"a": np.arange(3)}

    for damage in (None, b"", b"PK\x03\x04 no zip"):
        if damage is not None:
            for path in (own_home / "cache/encoded").rglob("*.*"):
                path.write_bytes(damage)
        for _ in range(2):
            np.testing.assert_array_equal(kept(place_of("encoded", ["x"]), ["a"], make)["a"], np.arange(3))
    assert len(calls) == 3


def test_digest_and_statistics_are_taken_in_one_pass(tree, monkeypatch):
    names = tuple(sorted(p.relative_to(tree).as_posix() for p in tree.rglob("train/*/*.png")))
    images = RecordImages(FileRecords(FolderFiles(tree, ()), names), image_size=0, identity="x")
    decoded = []
    monkeypatch.setattr(encoded, "decode", lambda *args, **named: decoded.append(1) or decode(*args, **named))
    splits.digest(images), splits.channel_stats(images), splits.digest(images)
    assert len(decoded) == len(names)


def test_a_picture_that_is_replaced_during_a_run_is_refused(tree):
    """It would be trained on under the fingerprint of the picture before."""
    dataset = load_encoded(tree, image_size=12)
    images, names = dataset.splits["train"].images, [str(path) for path in sorted((tree / "train").rglob("*.png"))]
    images.batch(np.array([0, 1]))
    Image.new("RGB", (20, 20), (200, 0, 0)).save(names[0])
    row = np.array([0])
    for read in (lambda: images.batch(row), lambda: images.cropped(row, seed=0, epoch=1, scale=0.5)):
        with pytest.raises(DataError) as caught:
            read()
        check_message(caught.value, names[0], "has changed since the data was read first")
    for seconds, words in ((1, ""), (60, "has changed since")):  # a server may round times
        before = os.stat(names[1])
        os.utime(names[1], ns=(before.st_atime_ns, before.st_mtime_ns + seconds * 10**9))
        with pytest.raises(DataError, match=words) if words else contextlib.nullcontext():
            images.batch(np.array([1]))
    again = load_encoded(tree, image_size=12)
    assert again.fingerprint != dataset.fingerprint
