"""Keys by name, names by table, files that are whole: the small modules everything stands on."""

import json

import jax
import pytest

from sem_jax.errors import ConfigError, RunError, SemError, exit_on_error
from sem_jax.registry import lookup
from sem_jax.rngs import key_for
from sem_jax.runs import records
from sem_jax.runs.trackers import Tracker


def bits(key):
    return tuple(jax.random.key_data(key).tolist())


def test_keys_differ_by_name_and_step_and_are_always_the_same():
    key = jax.random.key(0)
    keys = {bits(key_for(key, name, step)) for name in ("mixer", "augment", "order") for step in (0, 1)}
    assert len(keys) == 6
    assert bits(key_for(key, "mixer", 1)) == bits(jax.jit(lambda k, s: key_for(k, "mixer", s))(key, 1))
    assert bits(key_for(key, "mixer", 0)) == (4009058415, 4155218473), "every run of the past would change"


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(
        ConfigError, match="^Unknown mixer 'cutmx'. Did you mean 'cutmix'. Known mixers: cutmix, mixup.$"
    ):
        lookup({"mixup": 1, "cutmix": 2}, "mixer", "cutmx")
    with pytest.raises(ConfigError, match="^Unknown mixer 'zzz'. Known"):
        lookup({"mixup": 1}, "mixer", "zzz")


def test_an_error_of_the_users_ends_in_status_2_and_others_are_not_touched(capsys):
    with pytest.raises(SystemExit) as ended, exit_on_error():
        raise SemError("the field is wrong", "Mend it.")
    assert ended.value.code == 2 and capsys.readouterr().err == "SemError: the field is wrong\nMend it.\n"
    with pytest.raises(ZeroDivisionError), exit_on_error():
        1 / 0  # noqa: B018


def test_metrics_survive_a_torn_line_and_are_rewound(tmp_path):
    folder = records.RunFolder(tmp_path / "run")
    folder.claim({"seed": 0}, {"fingerprint": "f", "name": "n"})
    folder.rewind(0)
    for step in (10, 20, 30):
        folder.append({"step": step, "epoch": step // 10, "loss": float("nan") if step == 20 else 1.0})
    with open(tmp_path / "run/metrics.jsonl", "a") as file:
        file.write('{"step": 40, "lo')
    log = records.read_metrics(tmp_path / "run")
    assert [r["step"] for r in log] == [10, 20, 30] and log[1]["loss"] is None
    assert [r["step"] for r in folder.rewind(20)] == [10, 20]
    folder.close()
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2


def test_tensorboard_reads_what_is_written(tmp_path):
    folder = records.RunFolder(tmp_path)
    folder.claim({"seed": 0}, {"fingerprint": "f", "name": "n"})
    folder.tracker = Tracker("tensorboard", folder.path, step=0, log=folder.rewind(0), config={})
    folder.append({"step": 10, "epoch": 1, "loss": 0.5})
    folder.close()
    (events,) = (tmp_path / "tensorboard").glob("events*")
    assert b"loss" in events.read_bytes()


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    records.write_json(path, {"x": 1})
    with pytest.raises(ValueError):
        records.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}
    path.write_text("{")
    with pytest.raises(RunError, match="a.json is not valid JSON"):
        records.read_json(path)
