"""The run as a whole, on the digits: resume bit for bit, devices, early stop, refusals, what is written."""

import json
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from sem_jax import config as config_lib
from sem_jax.errors import ConfigError, RunError
from sem_jax.runs.records import read_metrics
from sem_jax.training import loop
from tests.helpers.training import (  # noqa: F401
    DRAW_CURVES,
    ROOT,
    assert_equal,
    configure,
    records,
    run,
    tiny_backbone,
)


def test_a_run_and_what_it_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop.curves, "draw_curves", DRAW_CURVES)
    state = run(tmp_path, data__val_size=100, data__std=(0.5,))
    folder = tmp_path / "run"
    assert {"config.json", "data.json", "metrics.jsonl", "result.json", "curves.png", "checkpoints", "tensorboard"} <= {
        p.name for p in folder.iterdir()
    }
    result = json.loads((folder / "result.json").read_text())
    assert int(state.step) == result["steps"] == 2 * (1337 // 256)
    assert 0.1 < result["test_accuracy"] <= 1.0 and result["method"] == "mixup+sem" and result["seed"] == 0
    assert {"versions", "commit", "wall_time_s", "best_val"} <= set(result) and len(result["data"]["fingerprint"]) == 64
    log = read_metrics(folder)
    assert [r["epoch"] for r in log] == [1, 2]
    wanted = "loss label_loss penalty penalty_relative learning_rate train_accuracy train_clean_accuracy images_per_s"
    assert set(wanted.split()) | {"val_accuracy", "val_nll"} <= set(log[0])
    assert not any("test" in name for r in log for name in r), "test was scored before the end"
    np.testing.assert_allclose(log[0]["loss"], log[0]["label_loss"] + 0.3 * log[0]["penalty"], rtol=1e-5)
    assert json.loads((folder / "config.json").read_text())["objective"]["gamma"] == 0.3
    assert json.loads((folder / "data.json").read_text())["std"] == [0.5], "what evaluation divides by"
    assert "Final test accuracy" in capsys.readouterr().out
    from PIL import Image

    with Image.open(folder / "curves.png") as picture:
        assert picture.size[0] > 1000

    run(tmp_path, data__val_size=100, data__std=(0.5,))  # finished: nothing is trained again
    assert "is finished" in capsys.readouterr().out
    assert read_metrics(folder) == log


def test_killed_after_a_checkpoint_and_continued_is_bit_for_bit(tmp_path, monkeypatch):
    """As kill -9 between a checkpoint and the end: nothing after the checkpoint is known to the second run."""
    whole = run(tmp_path, "whole", train__epochs=3)

    class Killed(BaseException):
        pass

    append = loop.records.RunFolder.append

    def die_in_the_third_epoch(self, record):
        append(self, record)
        if record["epoch"] == 3:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.records.RunFolder, "append", die_in_the_third_epoch)
        run(tmp_path, "parts", train__epochs=3)
    assert len(read_metrics(tmp_path / "parts")) == 3
    assert_equal(run(tmp_path, "parts", train__epochs=3), whole)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")


def test_settings_of_the_runtime_change_no_number(tmp_path):
    base = run(tmp_path, "base")
    first = records(tmp_path / "base")[0]
    for name, changes in {
        "host": {"runtime__residency": "host", "runtime__steps_per_call": 2},
        "calls": {"runtime__steps_per_call": 3},
    }.items():
        assert_equal(run(tmp_path, name, **changes), base)
    for name, changes in {
        "stacked": {"runtime__passes": "stacked"},
        "loop": {"runtime__loop": "device"},
        "devices": {"runtime__devices": jax.device_count()},
    }.items():
        run(tmp_path, name, **changes)
        for field, value in records(tmp_path / name)[0].items():
            np.testing.assert_allclose(value, first[field], rtol=2e-3, err_msg=f"{name} {field}")


def test_es_is_the_plain_run_up_to_the_switch_and_without_penalty_after(tmp_path):
    run(tmp_path, "es", method="cutmix+es+sem")
    run(tmp_path, "full", method="cutmix+sem")
    es, full = records(tmp_path / "es"), records(tmp_path / "full")
    assert es[0] == full[0] and es[0]["mixing"] and not es[1]["mixing"]
    assert "penalty" not in es[1] and "lam" not in es[1] and es[1]["loss"] == es[1]["label_loss"]


@pytest.mark.parametrize("method", config_lib.METHODS)
def test_each_of_the_nine_methods_runs(tmp_path, method):
    run(tmp_path, method=method, train__batch_size=1024, train__epochs=4, train__eval_every=4)
    log = read_metrics(tmp_path / "run")
    assert [r["mixing"] for r in log] == [method != "erm"] * 3 + [method != "erm" and "es" not in method]
    assert ("penalty" in log[0]) == ("sem" in method)
    assert json.loads((tmp_path / "run/result.json").read_text())["method"] == method


def test_a_url_of_another_kind_is_refused_instead_of_a_local_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="'s3://bucket/run' is neither a local path nor gs://BUCKET/FOLDER"):
        loop.train_and_evaluate(configure(), "s3://bucket/run")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_run_is_refused_with_the_fields(tmp_path):
    run(tmp_path, train__epochs=1)
    with pytest.raises(
        RunError, match=r"objective.gamma: 0.3 there, 0.5 now; optim.learning_rate: 0.5 there"
    ) as caught:
        run(tmp_path, train__epochs=1, objective__gamma=0.5, optim__learning_rate=0.1)
    assert len(str(caught.value).splitlines()) <= 3
    run(tmp_path, train__epochs=1, runtime__steps_per_call=2)  # a setting of speed is none of the identity
    data = json.loads((tmp_path / "run/data.json").read_text())
    (tmp_path / "run/data.json").write_text(json.dumps(data | {"fingerprint": "0" * 64}))
    with pytest.raises(RunError, match="other data"):
        run(tmp_path, train__epochs=1)


def test_divergence_stops_the_run_and_names_the_step(tmp_path):
    with pytest.raises(RunError, match=r"^Not finite at step \d+ \(epoch \d\): .*gradient"):
        run(tmp_path, optim__learning_rate=1e30, train__epochs=3)


def test_the_best_on_val_is_kept_beside_the_latest(tmp_path):
    run(tmp_path, data__val_size=200, train__epochs=4, train__keep=1, optim__learning_rate=0.3)
    log = read_metrics(tmp_path / "run")
    best = max(log, key=lambda r: (r["val_accuracy"], r["step"]))  # epochs 3 and 4 are equals here
    kept = {int(p.name) for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {best["step"], log[-1]["step"]}
    assert json.loads((tmp_path / "run/result.json").read_text())["best_val"]["step"] == best["step"]


def test_sigterm_saves_and_the_same_command_continues(tmp_path):
    """For real: a process, a signal, exit status 143, and the second start goes on from a later step."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(ROOT)!r})
            import tests.conftest
            from sem_jax.models import MODELS
            from tests.helpers import training
            MODELS["tiny"] = training.make_tiny
            training.loop.train_and_evaluate(training.configure(train__epochs=int(sys.argv[1])), sys.argv[2])
            """
        )
    )
    command = [sys.executable, str(script), "3000", str(tmp_path / "run")]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("epoch") and " 3/3000" in line:
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 143, "".join(lines)
    assert any("the same command continues" in line for line in lines)
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as again:
        for line in again.stdout:
            lines.append(line)
            if line.startswith("epoch"):
                again.kill()
    assert any(line.startswith("Continuing from step") for line in lines), "".join(lines)


def test_part_of_train_and_no_test_at_all(tmp_path, monkeypatch, capsys):
    """Selection: the test split reaches neither the trainer nor its records."""
    from sem_jax.evaluation import Options, evaluate

    load = loop.data_lib.load

    def load_and_look(*args, **options):
        dataset = load(*args, **options)
        assert "test" not in dataset.splits
        return dataset

    monkeypatch.setattr(loop.data_lib, "load", load_and_look)
    changes = {"data__use_test": False, "data__val_size": 100, "data__train_size": 600}
    run(tmp_path, **changes)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["steps"] == 2 * (600 // 256) and 0.05 < result["val_accuracy"] <= 1.0
    assert not any("test" in name for name in result)
    assert set(json.loads((tmp_path / "run/data.json").read_text())["sizes"]) == {"train", "val"}
    run(tmp_path, **changes)
    said = capsys.readouterr().out
    assert "Final val accuracy" in said and "is finished: val accuracy" in said
    with pytest.raises(RunError, match="without looking at test data"):
        evaluate(tmp_path / "run", Options(suites=("clean",)))
