"""A run that starts from weights: read before the first step alone, normalised as the source, recorded."""

import json
import shutil

import jax
import numpy as np
import pytest

from sem_jax import data as data_lib
from sem_jax.convert.export import flat_arrays
from sem_jax.convert.files import write_safetensors
from sem_jax.errors import ConfigError, RunError
from sem_jax.interfaces import Split
from sem_jax.models import MODELS
from sem_jax.runs.opening import open_run
from sem_jax.training import assemble, loop
from sem_jax.training.start import begin
from tests.helpers.training import assert_equal, configure, records, run, use_tiny
from tests.runs.conftest import own_home, place, run_dir  # noqa: F401  a run folder without training
from tests.training.test_freeze import Net, changed

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_net(monkeypatch):
    use_tiny(monkeypatch)
    monkeypatch.setitem(MODELS, "tiny", lambda *, num_classes, width, dtype: Net())


class Killed(BaseException):
    pass


def test_a_linear_probe_is_killed_and_continued_without_its_source_bit_for_bit(tmp_path, monkeypatch, capsys):
    source = run(tmp_path, "source", method="erm", data__mean=(0.2,), data__std=(0.4,))
    fields = {"method": "mixup", "model__init_from": str(tmp_path / "source"), "optim__freeze": "features"}
    whole = run(tmp_path, "whole", **fields)
    assert "Start: 8 arrays with 106 numbers of source (sem_jax, SHA-256 " in capsys.readouterr().out
    assert changed(source.params, whole.params) == {"classifier/bias", "classifier/kernel"}
    assert not changed(source.batch_stats, whole.batch_stats)
    probe = open_run(tmp_path / "whole")
    assert probe.data.mean == (0.2,) and probe.data.std == (0.4,)
    found = json.loads((tmp_path / "whole" / "result.json").read_text())["init_from"]
    assert found["sha256"] == open_run(tmp_path / "source").fingerprint and found["drawn_anew"] == []

    append = loop.records.RunFolder.append

    def die_in_the_second_epoch(self, record):
        append(self, record)
        if record["epoch"] == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.records.RunFolder, "append", die_in_the_second_epoch)
        run(tmp_path, "parts", **fields)
    shutil.rmtree(tmp_path / "source")
    assert_equal(run(tmp_path, "parts", **fields), whole)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert json.loads((tmp_path / "parts" / "result.json").read_text())["init_from"] == found
    with pytest.raises(RunError, match="there is no such file or folder"):  # a new run needs it; nothing is left of it
        run(tmp_path, "new", **fields)
    assert not (tmp_path / "new").exists()


def test_averages_of_the_weights_start_at_the_loaded_ones(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    variables = Net().init(jax.random.key(7), np.zeros((1, 8, 8, 1)), train=False)
    write_safetensors(tmp_path / "w.safetensors", flat_arrays(variables), {})
    path = str(tmp_path / "w.safetensors")
    cfg = configure("mixup+sem", objective__clean_features="ema_teacher", model__init_from=path)
    cfg.optim.ema_decay = 0.9
    monkeypatch.setattr(assemble, "check", lambda *_, **__: None)  # traces a step, which is not run here
    dataset, start = begin(cfg, lambda: data_lib.load("digits"), tmp_path / "new")
    state = loop.Programs(cfg, dataset, start=start).initial_state()
    assert_equal(state.params, variables["params"])
    assert_equal(state.averages["teacher"], state.params)
    assert_equal(state.averages["ema"]["params"], state.params)


def test_mean_and_std_are_the_settings_then_the_sources_then_the_datas(run_dir, tmp_path):  # noqa: F811
    digits = data_lib.load("digits")
    cfg = configure("mixup", data__mean=(0.1,))
    dataset, start = begin(cfg, lambda: digits, tmp_path)
    assert start is None and dataset.mean == (0.1,) and dataset.std == digits.std
    cfg = configure("mixup")
    cfg.model.update({"name": "wide_resnet", "depth": 10, "width": 1, "init_from": str(run_dir)})
    with pytest.raises(RunError, match=r"1 of another shape: params/stem/kernel \[3, 3, 3, 16\]"):
        begin(cfg, lambda: digits, tmp_path)
    images = np.repeat(np.repeat(digits.splits["train"].images, 3, axis=3), 4, axis=1).repeat(4, axis=2)
    colour = digits._replace(splits={"train": Split(images, digits.splits["train"].labels)})
    colour = colour._replace(mean=(0.0,) * 3, std=(1.0,) * 3)
    facts = open_run(run_dir).data
    for mean in ((), (0.1, 0.2, 0.3)):
        cfg.data.mean = mean
        dataset, start = begin(cfg, lambda: colour, tmp_path)
        assert dataset.mean == (mean or facts.mean) and dataset.std == facts.std
        assert start.record["drawn_anew"] == ["classifier/bias", "classifier/kernel"]  # ten classes, but others
    cfg.data.mean = (0.1,)
    with pytest.raises(ConfigError, match="data.mean must be"):
        begin(cfg, lambda: colour, tmp_path)
