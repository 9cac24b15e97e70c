"""What cannot work with its data is refused before anything is compiled or written."""

import numpy as np
import pytest

from configs.digits import get_config
from sem_jax import config as config_lib
from sem_jax import data as data_lib
from sem_jax.errors import ConfigError, SemError
from sem_jax.interfaces import Dataset, Split
from sem_jax.training import assemble
from sem_jax.training.loop import train_and_evaluate
from tests.helpers.wrong_configs import TOGETHER, WITH_DATA, WRONG, set_field


def digits_with(values):
    """The configuration of the digits with other values; another model has its own depth and width."""
    cfg = get_config()
    cfg.mixer.stop_epoch = cfg.train.epochs
    defaults = {"model.depth": 0, "model.width": 0} if "model.name" in values else {}
    return config_lib.override(cfg, defaults | values)


def check(cfg, dataset):
    """What a run does before it makes its folder."""
    config_lib.validate(cfg, num_devices=1)
    assemble.check(cfg, dataset, on=assemble.Platform("cpu", 1))


@pytest.mark.parametrize(
    ("values", "message"), WITH_DATA, ids=[" ".join(map(str, row.values())) for row, _ in WITH_DATA]
)
def test_what_does_not_work_with_the_digits_is_refused_by_name(values, message, no_compilation):
    cfg = digits_with(values)
    with pytest.raises(ConfigError, match=message) as caught:
        check(cfg, data_lib.load("digits"))
    assert len(str(caught.value).splitlines()) <= 3


EVERY_REFUSAL = (
    [(config_lib.get_default, {field: value}) for field, value, _ in WRONG]
    + [(config_lib.get_default, values) for values, _ in TOGETHER]
    + [(get_config, values) for values, _ in WITH_DATA]
)


def test_a_refused_start_leaves_no_folder(tmp_path, no_compilation):
    """Every row of the tables, at the start of a run; the corrected command then has nothing in its way."""
    for base, values in EVERY_REFUSAL:
        cfg = base()
        if "model.name" in values:
            cfg.model.depth = cfg.model.width = 0
        for field, value in values.items():
            set_field(cfg, field, value)
        with pytest.raises(SemError) as caught:
            train_and_evaluate(cfg, str(tmp_path / "run"))
        assert len(str(caught.value).splitlines()) <= 3, values
        assert not any(tmp_path.iterdir()), values


@pytest.mark.parametrize(
    "values",
    [
        {"model.name": "tests.helpers.wrong_nets:NoStages"},
        {"model.name": "vit", "model.patch_size": 4, "model.depth": 1, "model.width": 16},
        {"objective.penalty_every": 440, "data.crop_padding": 8},
        {"objective.clean_features": "ema_teacher"},
        {"train.batch_size": 1437, "objective.penalty_fraction": 0.01},
        {"mixer.name": "none", "objective.gamma": 0.0, "train.batch_size": 1},
    ],
    ids=str,
)
def test_what_works_is_let_through_without_compiling(values, no_compilation):
    check(digits_with(values), data_lib.load("digits"))


@pytest.fixture
def no_compilation(monkeypatch):
    """Compiling raises, from the moment on when the data are read."""
    from jax._src import compiler

    data_lib.load("digits")

    def refuse(*_, **__):
        raise AssertionError("something was compiled")

    monkeypatch.setattr(compiler, "backend_compile_and_load", refuse)


def test_the_steps_of_a_run_fit_an_int32():
    images = np.broadcast_to(np.zeros((), np.uint8), (10**6, 8, 8, 1))
    splits = {"train": Split(images, np.zeros(10**6, np.int32))}
    dataset = Dataset("many", splits, ("a", "b"), (0.5,), (0.5,), "fingerprint")
    cfg = digits_with({"train.epochs": 500_000, "train.batch_size": 128})
    with pytest.raises(
        ConfigError, match="train.epochs must be at most 274895: an int32 counts the 7812 steps of each"
    ):
        check(cfg, dataset)
