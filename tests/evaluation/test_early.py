"""Sets that do not fit a run are refused from its facts, before anything is opened; own pictures get no CIFAR sets."""

import numpy as np
import pytest

from sem_jax.errors import DataError
from sem_jax.evaluation.early import check_early, check_folder, unsuited
from sem_jax.evaluation.options import Options

RGB, GREY = (32, 32, 3), (8, 8, 1)


@pytest.mark.parametrize(
    ("data", "shape", "reason"),
    [
        ("cifar10", RGB, ""),
        ("tiny_imagenet", (64, 64, 3), ""),
        ("digits", GREY, "they are RGB, digits has 8x8 with 1 channel"),
        ("image_folder", RGB, "pictures of your own may be of the same kind"),
        ("arrays", RGB, "of your own"),
        ("a_set_of_an_extension", RGB, "of your own"),
    ],
)
def test_published_sets_are_for_runs_on_sets_like_cifar(data, shape, reason):
    assert reason in unsuited(data, shape) and bool(reason) == bool(unsuited(data, shape))


def write(path, shape):
    np.save(path, np.zeros(shape, np.uint8))
    return str(path)


def test_what_does_not_fit_is_refused_by_its_header(tmp_path):
    grey, large = write(tmp_path / "grey.npy", (2, 8, 8)), write(tmp_path / "large_data.npy", (2, 40, 40, 3))
    (tmp_path / "photos").mkdir()
    wrong = [
        ("digits", GREY, {}, "no OOD set is known for digits: of the published ones, they are RGB.*\nGive one: --ood"),
        ("image_folder", RGB, {}, "no OOD set is known for image_folder"),
        ("cifar10", RGB, {"ood": {"a": grey}}, "a has 1 channels, the model was trained on 3"),
        ("digits", GREY, {"ood": {"a": str(tmp_path / "photos")}}, "a has 3 channels, the model was trained on 1"),
        (
            "cifar10",
            RGB,
            {"shift": {"a": large}, "suites": ("shift",)},
            "40x40 with 3 channels, those of training 32x32",
        ),
    ]
    for data, shape, given, words in wrong:
        with pytest.raises(DataError, match=words):
            check_early(data, shape, Options(**{"suites": ("ood",), **given}))
    fitting = {"a": str(tmp_path / "large"), "b": str(tmp_path / "photos"), "c": str(tmp_path / "nothing")}
    check_early("cifar10", RGB, Options(suites=("ood",), ood=fitting))  # an OOD set of another size is resized
    check_early("cifar10", RGB, Options(suites=("clean",), shift={"a": large}))  # it is not read
    check_early("digits", GREY, Options())


def test_the_facts_come_from_the_run_folder(tmp_path):
    check_folder(tmp_path, Options(suites=("ood",)))  # opening the run will say what is wrong
    (tmp_path / "data.json").write_text('{"name": "digits", "image_shape": [8, 8, 1]}')
    with pytest.raises(DataError, match="no OOD set is known for digits"):
        check_folder(tmp_path, Options(suites=("ood",)))
