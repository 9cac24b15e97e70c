"""Real data in the layouts in which people have it; runs where $SEM_JAX_TEST_DATA names a folder that has it."""

import numpy as np
import pytest

from sem_jax.data import DATASETS, PUBLIC, load, read_array_pair, read_image_tree
from sem_jax.data.prepare import prepare
from sem_jax.data.public import load_public
from sem_jax.data.splits import channel_stats

pytestmark = pytest.mark.slow


def test_cifar10_from_every_layout(real_data, tmp_path):
    import tensorflow_datasets as tfds

    raw = load("cifar10", data_dir=str(real_data / "cifar10"))
    mean, std = channel_stats(raw.splits["train"].images)
    np.testing.assert_allclose(mean, (0.49139968, 0.48215841, 0.44653091), atol=1e-6)
    np.testing.assert_allclose(std, (0.24703223, 0.24348513, 0.26158784), atol=1e-6)
    np.testing.assert_allclose((mean, std), (raw.mean, raw.std), atol=1e-4)
    assert (np.bincount(raw.splits["train"].labels) == 5000).all()
    assert (np.bincount(raw.splits["test"].labels) == 1000).all()

    prepare(PUBLIC["cifar10"], data_dir=tmp_path, source=real_data / "cifar10/cifar-10-batches-bin")
    assert load("cifar10", data_dir=str(tmp_path)).fingerprint == raw.fingerprint
    assert len(tfds.data_source("cifar10", split="train", data_dir=tmp_path)) == 50_000

    tree = load("cifar10", data_dir=str(real_data / "cifar10/folder"))
    for name in ("train", "test"):  # the folder has the same images, class after class
        rows = [s.splits[name].images.reshape(len(s.splits[name].labels), -1) for s in (raw, tree)]
        order = np.argsort(raw.splits[name].labels, kind="stable")
        np.testing.assert_array_equal(rows[0][order], rows[1])
    val = load("cifar10", data_dir=str(tmp_path), val_size=5000)
    assert (np.bincount(val.splits["val"].labels) == 500).all()


def test_cifar10_prepared_from_an_image_folder(real_data, tmp_path):
    directory = prepare(PUBLIC["cifar10"], data_dir=tmp_path, source=real_data / "cifar10/folder")
    loaded = load("cifar10", data_dir=str(directory))
    assert loaded.fingerprint == load("cifar10", data_dir=str(real_data / "cifar10/folder")).fingerprint


def test_svhn_part(real_data, tmp_path):
    directory = prepare(PUBLIC["svhn_cropped"], data_dir=tmp_path, source=real_data / "svhn")
    both = [load("svhn_cropped", data_dir=str(p), splits=("test",)) for p in (real_data / "svhn", directory)]
    assert both[0].fingerprint == both[1].fingerprint
    assert len(both[0].splits["test"].labels) == 7136
    assert np.bincount(both[0].splits["test"].labels).argmax() == 1  # Benford: 1 is the most frequent house digit


def test_tiny_imagenet_part(real_data, tmp_path):
    archive = real_data / "tiny_imagenet/tiny-imagenet-200.zip"
    directory = prepare(PUBLIC["tiny_imagenet"], data_dir=tmp_path, source=archive)
    loaded = [load_public(PUBLIC["tiny_imagenet"], data_dir=str(p)) for p in (archive, directory)]
    for name, size in (("train", 5000), ("test", 1000)):
        for a, b in zip(loaded[0].splits[name], loaded[1].splits[name], strict=True):
            np.testing.assert_array_equal(a, b)
        assert (np.bincount(loaded[0].splits[name].labels) == size // 20).all()
    mean, _ = channel_stats(loaded[0].splits["train"].images)
    np.testing.assert_allclose(mean, DATASETS["tiny_imagenet"].mean, atol=0.05)


def test_evaluation_sets(real_data):
    pair = read_array_pair(real_data / "cinic10/cinic10_imagenet_data.npy")
    assert pair.images.shape == (1532, 32, 32, 3) and pair.labels.max() == 9
    for name, count in (("places_crops", 5040), ("textures_crops", 1200)):
        split, names = read_image_tree(real_data / name)
        assert split.images.shape == (count, 32, 32, 3) and len(names) == split.labels.max() + 1
