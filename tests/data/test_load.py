"""load(): every row's facts, the held-out part, the fingerprint, the cache, and what importing costs."""

import subprocess
import sys

import numpy as np
import pytest

from sem_jax.data import DATASETS, PUBLIC, Reading, load
from sem_jax.data import decoded_cache as cache
from sem_jax.data.splits import channel_stats, fingerprint, hold_out
from sem_jax.errors import ConfigError, DataError
from sem_jax.interfaces import Split
from tests.helpers.data_sets import check_message, write_arrays, write_tree


def test_import_is_light():
    code = (
        "import sys, sem_jax.data, sem_jax.data.__main__\n"
        "heavy = ['tensorflow', 'torch', 'tensorflow_datasets', 'sklearn', 'scipy', 'PIL', 'tqdm', 'pooch']\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "import jax\n"
        "print(jax.live_arrays())\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["[]", "[]"]


def test_digits_as_the_row_says():
    row, dataset = DATASETS["digits"], load("digits")
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert train.images.shape == (row.train_size, row.image_size, row.image_size, row.channels)
    assert test.images.shape[0] == row.test_size and train.images.dtype == np.uint8 and train.labels.dtype == np.int32
    assert len(dataset.class_names) == row.num_classes and train.images.max() == 255
    assert (np.bincount(test.labels) == 36).all()
    mean, std = channel_stats(train.images)
    np.testing.assert_allclose((mean, std), (row.mean, row.std), atol=1e-4)
    assert load("digits").fingerprint == dataset.fingerprint
    both = {im.tobytes() for im in train.images} & {im.tobytes() for im in test.images}
    assert len(both) < 5  # the set itself has a few equal images


def test_rows_have_facts_without_data():
    for name, spec in PUBLIC.items():
        row = DATASETS[name]
        assert (row.num_classes, row.image_size) == (spec.num_classes, spec.image_size)
        assert len(row.mean) == len(row.std) == row.channels == 3
        assert not spec.class_names or len(spec.class_names) == spec.num_classes
    coarse_names, coarse = PUBLIC["cifar100"].coarse
    assert len(coarse_names) == 20 and (np.bincount(coarse) == 5).all()
    assert DATASETS["image_folder"].num_classes is None and DATASETS["arrays"].mean is None


def test_wrong_arguments(tmp_path):
    with pytest.raises(ConfigError, match="cifar10"):
        load("cifar")
    for wrong in (
        dict(name="digits", image_size=32),
        dict(name="digits", val_size=5),
        dict(name="digits", val_size=1437),
        dict(name="digits", val_size=-1),
        dict(name="digits", splits=("test",), val_size=100),
        dict(name="digits", splits=("valid",)),
        dict(name="image_folder"),
        dict(name="arrays"),
        dict(name="arrays", data_dir=str(tmp_path / "nowhere")),
        dict(name="image_folder", data_dir=str(tmp_path / "nowhere")),
    ):
        with pytest.raises(DataError) as caught:
            load(**wrong)
        check_message(caught.value)


@pytest.mark.parametrize(
    "counts, val_size", [((50, 50, 50), 30), ((50, 50, 50), 31), ((100, 4, 40), 30), ((9, 9, 2), 17)]
)
def test_hold_out(counts, val_size, rng):
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    train, val = hold_out(Split(images, labels), val_size=val_size, seed=3)
    assert len(val.labels) == val_size
    ids = train.images.ravel().tolist(), val.images.ravel().tolist()
    assert sorted(ids[0] + ids[1]) == list(range(len(labels)))  # disjoint, and together all
    assert all(a == sorted(a) for a in ids)  # order kept
    np.testing.assert_array_equal(labels[ids[1]], val.labels)
    taken, room = np.bincount(val.labels, minlength=len(counts)), np.array(counts) - 1
    assert (taken <= room).all() and (taken > 0).all()
    full = taken == room
    assert np.ptp(taken[~full]) <= 1 if (~full).any() else True  # equal, but for classes that have no more
    again = hold_out(Split(images, labels), val_size=val_size, seed=3)[1]
    other = hold_out(Split(images, labels), val_size=val_size, seed=4)[1]
    np.testing.assert_array_equal(again.images, val.images)
    assert not np.array_equal(other.images, val.images)


def test_load_with_val():
    whole, dataset = load("digits"), load("digits", val_size=100, val_seed=1)
    assert list(dataset.splits) == ["train", "val", "test"]
    assert len(dataset.splits["train"].labels) == 1337 and (np.bincount(dataset.splits["val"].labels) == 10).all()
    assert dataset.fingerprint != whole.fingerprint
    np.testing.assert_array_equal(dataset.splits["test"].images, whole.splits["test"].images)


def test_fingerprint_sees_everything(rng):
    split = Split(rng.integers(0, 256, (4, 2, 2, 3), np.uint8), np.arange(4, dtype=np.int32))
    images, labels = split.images.copy(), split.labels.copy()
    images[3, 1, 1, 2] ^= 1
    labels[0] = 1
    variants = [
        fingerprint({"train": split}, "abcd"),
        fingerprint({"test": split}, "abcd"),
        fingerprint({"train": split}, "abdc"),
        fingerprint({"train": Split(images, split.labels)}, "abcd"),
        fingerprint({"train": Split(split.images, labels)}, "abcd"),
        fingerprint({"train": Split(split.images[::-1], split.labels)}, "abcd"),
        fingerprint({"train": Split(split.images.reshape(4, 4, 1, 3), split.labels)}, "abcd"),
    ]
    assert len(set(variants)) == len(variants)
    assert fingerprint({"train": split}, "abcd") == variants[0]


def test_channel_stats_are_exact(rng):
    images = rng.integers(0, 256, (5000, 3, 2, 2), np.uint8)
    mean, std = channel_stats(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)
    assert channel_stats(np.zeros((2, 2, 2, 1), np.uint8))[1] == (1 / 255,)


def test_cache_is_used_and_checked(tmp_path, monkeypatch, caplog):
    root = write_tree(tmp_path / "photos")
    first = load("image_folder", data_dir=str(root))
    entries = sorted((cache.cache_dir() / "decoded").iterdir())
    assert len(entries) == 2

    with monkeypatch.context() as patch:
        patch.setattr("sem_jax.data.image_folder.read_tree", lambda *a, **k: pytest.fail("decoded again"))
        assert load("image_folder", data_dir=str(root)).fingerprint == first.fingerprint

    for damage in ("flip", "truncate", "index", "gone"):
        entry = next(e for e in (cache.cache_dir() / "decoded").iterdir() if "train" in e.name)
        target = entry / ("index.json" if damage == "index" else "images.npy")
        data = bytearray(target.read_bytes())
        data[-1] ^= 1
        if damage == "gone":
            target.unlink()
        else:
            target.write_bytes({"flip": data, "truncate": data[:-7], "index": b"{}"}[damage])
        caplog.clear()
        assert load("image_folder", data_dir=str(root)).fingerprint == first.fingerprint
        assert "damaged" in caplog.text


def test_cache_follows_the_source(tmp_path):
    root = write_tree(tmp_path / "photos")
    first = load("image_folder", data_dir=str(root))
    (root / "train" / "cat" / "1.png").write_bytes((root / "train" / "dog" / "1.png").read_bytes())
    second = load("image_folder", data_dir=str(root))
    assert second.fingerprint != first.fingerprint
    assert len(list((cache.cache_dir() / "decoded").iterdir())) == 2  # the older entries were replaced
    assert load("image_folder", data_dir=str(root), image_size=4).splits["train"].images.shape[1:] == (4, 4, 3)


def test_unwritable_cache_is_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "file"))
    root = write_tree(tmp_path / "photos")
    assert len(load("image_folder", data_dir=str(root)).splits["train"].labels) == 6
    assert "cannot write" in caplog.text


def test_no_cache_writes_nothing(tmp_path):
    load("image_folder", data_dir=str(write_tree(tmp_path / "photos")), reading=Reading(cache=False))
    load("arrays", data_dir=str(write_arrays(tmp_path / "arrays")))
    assert not cache.cache_dir().exists()
