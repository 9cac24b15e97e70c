"""load(): every row's facts, the held-out part, wrong arguments, and what importing costs."""

import subprocess
import sys

import numpy as np
import pytest

from sem_jax.data import DATASETS, PUBLIC, Reading, load, normalised_with
from sem_jax.data.splits import channel_stats
from sem_jax.errors import ConfigError, DataError
from tests.helpers.data_sets import check_message


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


OFFLINE = Reading(download=False)
ODD = ("~nobody/x", "a\0b", "x" * 300, "/dev/zero", "\udcff")


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
        *(dict(name=name, data_dir=d, reading=OFFLINE) for name in ("image_folder", "arrays", "cifar10") for d in ODD),
        dict(name="digits", val_seed=-1, val_size=10),
        dict(name="digits", train_size=2.5),
        dict(name="image_folder", data_dir=str(tmp_path), image_size=10**8),
        dict(name="image_folder", data_dir=str(tmp_path), reading=Reading(eval_crop=float("nan"))),
    ):
        with pytest.raises(DataError) as caught:
            load(**wrong)
        check_message(caught.value)


def test_load_with_val():
    whole, dataset = load("digits"), load("digits", val_size=100, val_seed=1)
    assert list(dataset.splits) == ["train", "val", "test"]
    assert len(dataset.splits["train"].labels) == 1337 and (np.bincount(dataset.splits["val"].labels) == 10).all()
    assert dataset.fingerprint != whole.fingerprint
    np.testing.assert_array_equal(dataset.splits["test"].images, whole.splits["test"].images)


def test_another_mean_and_deviation_are_one_number_a_channel():
    dataset = load("digits")
    assert normalised_with(dataset) == dataset
    assert normalised_with(dataset, mean=[0.5], std=(1,))[3:5] == ((0.5,), (1.0,))
    with pytest.raises(ConfigError, match="data.std must be .* 1 numbers, one a channel, got .0.2, 0.2."):
        normalised_with(dataset, std=(0.2, 0.2))
