"""A part of the training split: balanced, the same for every seed, and read without the test split where asked."""

import numpy as np
import pytest

from sem_jax import data
from sem_jax.data.splits import hold_out, take_balanced
from sem_jax.errors import DataError
from sem_jax.interfaces import Split


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
