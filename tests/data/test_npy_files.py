"""Arrays in .npy and .npz: every form in which a pair is given, the data set `arrays`, and what is refused."""

import numpy as np
import pytest

from sem_jax.data import load, read_array_pair
from sem_jax.errors import DataError
from tests.helpers.data_sets import check_message, images, write_arrays


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
