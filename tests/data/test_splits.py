"""Parts of a split, balanced and the same for every run; statistics and fingerprint."""

import numpy as np
import pytest

from sem_jax import data
from sem_jax.data.splits import channel_stats, fingerprint, hold_out, take_balanced
from sem_jax.errors import DataError
from sem_jax.interfaces import Split


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


def split_of(counts):
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Split(images, labels)


@pytest.mark.parametrize("size", [3, 10, 11, 30, 60])
def test_balanced_nested_and_in_order(size):
    split = split_of([20, 20, 20])
    part = take_balanced(split, size=size)
    counts = np.bincount(part.labels, minlength=3)
    assert counts.sum() == size and counts.max() - counts.min() <= 1
    rows = part.images.ravel()
    assert (np.diff(rows.astype(int)) > 0).all(), "the order of the split"
    np.testing.assert_array_equal(split.labels[rows], part.labels)
    larger = take_balanced(split, size=min(60, size + 7)).images.ravel()
    assert set(rows) <= set(larger)


def test_a_class_that_runs_out_is_made_up_for_by_the_others():
    part = take_balanced(split_of([2, 20, 20]), size=30)
    np.testing.assert_array_equal(np.bincount(part.labels), [2, 14, 14])


def test_not_the_first_ones_of_the_file():
    part = take_balanced(split_of([50, 50]), size=20)
    assert part.images.max() > 40


@pytest.mark.parametrize("size", [2, 61])
def test_a_size_that_cannot_be_is_refused(size):
    with pytest.raises(DataError, match=f"data.train_size={size} of 60 training images with 3 classes"):
        take_balanced(split_of([20, 20, 20]), size=size)


def test_loaded_with_val_held_out_first():
    whole = data.load("digits", val_size=100, val_seed=1)
    part = data.load("digits", val_size=100, val_seed=1, train_size=200)
    np.testing.assert_array_equal(part.splits["val"].images, whole.splits["val"].images)
    np.testing.assert_array_equal(part.splits["test"].images, whole.splits["test"].images)
    train, _ = hold_out(data.load("digits").splits["train"], val_size=100, seed=1)
    np.testing.assert_array_equal(part.splits["train"].images, take_balanced(train, size=200).images)
    assert part.fingerprint != whole.fingerprint and part.mean == whole.mean
