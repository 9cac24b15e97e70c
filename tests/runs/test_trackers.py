"""Trackers get a copy of the metrics log, each step once, and never end a run."""

import contextlib
import json
import sqlite3
import struct

import pytest

from sem_jax import config as config_lib
from sem_jax.errors import ConfigError
from sem_jax.runs import trackers
from sem_jax.runs.records import RunFolder
from sem_jax.runs.trackers import Row, Sink, Tracker, check_tracker

CONFIG = {"seed": 0, "data": {"name": "image_folder", "dir": "/home/me/photos"}, "model": {"init_from": "hf://a/b"}}


@pytest.fixture
def sent(monkeypatch):
    """What the tracker "trackio" is sent: [step, numbers]; the starts of its runs."""
    steps, starts = [], []

    def start(it):
        starts.append(it)
        return Sink(lambda step, numbers: steps.append((step, numbers)), lambda: None)

    monkeypatch.setitem(trackers.TRACKERS, "trackio", Row("json", start))
    return steps, starts


def lines(*steps):
    return [{"step": step, "epoch": step // 10, "loss": 1.0 / step, "nll": None, "mixing": True} for step in steps]


def test_a_resumed_run_sends_nothing_twice_and_what_is_missing(tmp_path, sent):
    steps, starts = sent
    tracker = Tracker("trackio", tmp_path, step=0, log=[], config=CONFIG)
    for line in lines(10, 20, 30):
        tracker.write(line)
    tracker.close()
    # Killed after step 30, of which no checkpoint was left: the steps 20 to 40 are trained again.
    tracker = Tracker("trackio", tmp_path, step=10, log=lines(10), config=CONFIG)
    for line in lines(20, 30, 40):
        tracker.write(line)
    # What an earlier process wrote to metrics.jsonl alone is sent by the next.
    Tracker("trackio", tmp_path, step=60, log=lines(10, 20, 30, 40, 50, 60), config=CONFIG).close()
    assert [step for step, _ in steps] == [10, 20, 30, 40, 50, 60]
    assert steps[0][1] == {"epoch": 1, "loss": 0.1, "mixing": True}
    assert len({it.id for it in starts}) == 1 and starts[0].step == 0


def test_another_tracker_gets_all_from_the_start(tmp_path, sent, monkeypatch):
    steps, _ = sent
    for line in lines(10, 20):
        Tracker("trackio", tmp_path, step=0, log=[], config=CONFIG).write(line)
    monkeypatch.setitem(trackers.TRACKERS, "wandb", trackers.TRACKERS["trackio"])
    Tracker("wandb", tmp_path, step=20, log=lines(10, 20), config=CONFIG)
    assert [step for step, _ in steps] == [10, 20, 10, 20]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"tracker": "trackio", "id": "../../x", "step": 9}', '{"tracker": "trackio", "step": "9"}']
)
def test_a_strangers_tracker_json_is_not_believed(tmp_path, sent, content):
    (tmp_path / "tracker.json").write_text(content)
    Tracker("trackio", tmp_path, step=0, log=[], config=CONFIG).write(lines(10)[0])
    assert sent[0][0][0] == 10 and len(sent[1][0].id) == 12
    assert json.loads((tmp_path / "tracker.json").read_text())["step"] == 10


def test_a_tracker_that_fails_is_left_out_with_one_line(tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("no route\n to host")

    for row in (fails, lambda start: Sink(fails, fails), lambda start: Sink(lambda *_: None, fails)):
        monkeypatch.setitem(trackers.TRACKERS, "wandb", Row("json", row))
        tracker = Tracker("wandb", tmp_path, step=0, log=[], config=CONFIG)
        for line in lines(10, 20):
            tracker.write(line)
        tracker.close()
        text = "runtime.tracker=wandb is left out from here on: no route to host. metrics.jsonl has all.\n"
        assert capsys.readouterr().out == text


def test_paths_of_this_machine_are_not_sent(tmp_path, sent):
    Tracker("trackio", tmp_path, step=0, log=[], config=CONFIG)
    assert sent[1][0].config["data"] == {"name": "image_folder", "dir": ""}
    assert sent[1][0].config["model"] == {"init_from": "hf://a/b"}
    cfg = config_lib.get_default()
    cfg.data.dir, cfg.mixer.scorer = "photos", "runs/teacher"
    plain = config_lib.without_places(cfg)
    assert (plain["data"]["dir"], plain["mixer"]["scorer"]) == ("", "elsewhere")
    cfg.mixer.name, cfg.model.init_from = "attentive_cutmix", "/home/me/net.safetensors"
    shown = config_lib.from_dict(config_lib.without_places(cfg))  # what others get can be opened
    assert (shown.mixer.scorer, shown.model.init_from) == ("elsewhere", "elsewhere")
    cfg.mixer.name, cfg.model.init_from = "mixup", ""
    cfg.data.dir = cfg.mixer.scorer = ""
    plain["mixer"]["scorer"] = ""
    assert plain == config_lib.to_dict(cfg)  # and nothing else has gone


def test_what_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Row("no_such_package", trackers.TRACKERS["none"].open))
    with pytest.raises(ConfigError, match=r"is not installed\npip install no_such_package"):
        check_tracker("wandb")
    with pytest.raises(ConfigError, match="Unknown tracker 'wandbb'. Did you mean 'wandb'"):
        check_tracker("wandbb")


def test_the_run_folder_sends_what_it_appends(tmp_path, sent):
    folder = RunFolder(tmp_path / "run")
    folder.claim({"seed": 0}, {"fingerprint": "f", "name": "n"})
    folder.tracker = Tracker("trackio", folder.path, step=0, log=folder.rewind(0), config=CONFIG)
    folder.append({"step": 10, "epoch": 1, "loss": float("nan")})
    folder.close()
    assert sent[0] == [(10, {"epoch": 1})]


def resumed(name: str, folder) -> None:
    """Three steps in two processes' worth of trackers; step 20 is trained twice."""
    folder.mkdir()
    for step, log, new in ((0, (), (10, 20)), (10, (10,), (20, 30))):
        tracker = Tracker(name, folder, step=step, log=lines(*log), config=CONFIG)
        for line in lines(*new):
            tracker.write(line)
        tracker.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path, monkeypatch, capsys):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    resumed("wandb", tmp_path / "run")
    assert "left out" not in capsys.readouterr().out
    from wandb.proto.wandb_internal_pb2 import Record

    found = [
        Record.FromString(it)
        for path in (tmp_path / "run/wandb").glob("offline-run-*/*.wandb")
        for it in leveldb_log(path)
    ]
    steps = sorted(it.history.step.num for it in found if it.WhichOneof("record_type") == "history")
    ids = {it.run.run_id for it in found if it.WhichOneof("record_type") == "run"}
    assert steps == [10, 20, 30] and len(ids) == 1 and wandb.run is None


def leveldb_log(path):
    """The records of a file of wandb: blocks of 32 kB with parts of records, after a header of 7 bytes."""
    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        size, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trackio_on_this_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("trackio")
    resumed("trackio", tmp_path / "run")
    assert "left out" not in capsys.readouterr().out
    with contextlib.closing(sqlite3.connect(tmp_path / "home" / "sem_jax.db")) as database:
        found = database.execute("SELECT step, run_id FROM metrics ORDER BY id").fetchall()
    assert [step for step, _ in found] == [10, 20, 30] and len({run for _, run in found}) == 1
