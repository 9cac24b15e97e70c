"""Selection: every pair once, the worse half stopped, continued where it was cut off; no test item is ever read."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.paper import select
from sem_jax.errors import ConfigError, RunError
from sem_jax.runs.records import read_metrics

EPOCHS = 8
PAIRS = [(a, g) for a in (0.2, 1.0) for g in (0.1, 0.5, 1.0)]
optuna_missing = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


def accuracy(alpha, gamma, epoch):
    """A curve that is best at alpha 1, gamma 0.5 from the beginning."""
    return 0.5 - abs(gamma - 0.5) / 4 - abs(alpha - 1.0) / 10 + 0.02 * epoch


def run(calls, stop_after=99):
    def one(alpha, gamma, report):
        calls.append((alpha, gamma))
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        return not any(report(epoch, accuracy(alpha, gamma, epoch)) for epoch in range(1, EPOCHS + 1))

    return one


@optuna_missing
def test_every_pair_once_the_worse_stopped_early_and_the_best_chosen(tmp_path):
    study, optuna = select.open_study(tmp_path / "study.db", EPOCHS)
    calls = []
    select.search(study, optuna, PAIRS, run(calls), say=lambda line: None)
    assert sorted(calls) == sorted(PAIRS)
    rows = select.results(study, optuna)
    assert len(rows) == 6 and (rows[0]["alpha"], rows[0]["gamma"], rows[0]["complete"]) == (1.0, 0.5, True)
    early = [r for r in rows if not r["complete"]]
    assert (
        early and all(r["epochs"] < EPOCHS for r in early) and all(r["epochs"] == EPOCHS for r in rows if r["complete"])
    )
    select.search(study, optuna, PAIRS, run(calls), say=lambda line: None)
    assert len(calls) == 6, "nothing is run twice"
    about = {"size": "cpu", "mixer": "mixup", "backbone": "preact", "dataset": "cifar10", "val_size": 20}
    chosen = select.write(rows, about, tmp_path)
    assert json.loads((tmp_path / "selected.json").read_text()) == chosen and chosen["gamma"] == 0.5
    with open(tmp_path / "curve.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(float(r["alpha"]), float(r["gamma"])) for r in lines] == PAIRS
    np.testing.assert_allclose(float(lines[4]["val_accuracy"]), accuracy(1.0, 0.5, EPOCHS))
    with Image.open(tmp_path / "gamma.png") as picture:
        assert picture.size[0] > 800


@optuna_missing
@pytest.mark.parametrize("stop_after", [0, 2, 5])
def test_a_search_that_was_killed_continues(tmp_path, stop_after):
    calls = []
    study, optuna = select.open_study(tmp_path / "study.db", EPOCHS)
    with pytest.raises(KeyboardInterrupt):
        select.search(study, optuna, PAIRS, run(calls, stop_after), say=lambda line: None)
    study, optuna = select.open_study(tmp_path / "study.db", EPOCHS)
    again = []
    select.search(study, optuna, PAIRS, run(again), say=lambda line: None)
    assert sorted([*calls[:stop_after], *again]) == sorted(PAIRS), "the pair that was cut off is run again"
    assert len(select.results(study, optuna)) == 6


@optuna_missing
def test_a_failed_run_does_not_end_the_search(tmp_path):
    study, optuna = select.open_study(tmp_path / "study.db", EPOCHS)
    good, said = run([]), []

    def one(alpha, gamma, report):
        if gamma == 0.5:
            raise RunError("it broke")
        return good(alpha, gamma, report)

    select.search(study, optuna, PAIRS, one, say=said.append)
    assert len(select.results(study, optuna)) == 4 and sum("failed: it broke" in line for line in said) == 2
    with pytest.raises(RunError, match="nothing is chosen"):
        select.write([], {"mixer": "mixup", "dataset": "d", "size": "s", "backbone": "b", "val_size": 20}, tmp_path)


def test_a_run_is_followed_and_stopped_by_sigterm(tmp_path):
    """A process that logs an epoch now and then and says on SIGTERM that it has been told."""
    code = (
        "import json, signal, sys, time\n"
        "def end(*_):\n    open(sys.argv[1] + '/told', 'w').close(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "for e in range(1, 200):\n"
        "    line = json.dumps({'step': e, 'epoch': e, 'val_accuracy': e / 200})\n"
        "    open(sys.argv[1] + '/metrics.jsonl', 'a').write(line + '\\n')\n"
        "    time.sleep(0.05 if int(sys.argv[2]) else 0)\n"
    )
    seen = []
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "1"])
    assert not select.follow(process, tmp_path, lambda epoch, value: seen.append((epoch, value)) or epoch >= 3)
    assert (tmp_path / "told").exists() and seen == [(1, 0.005), (2, 0.01), (3, 0.015)]
    (tmp_path / "metrics.jsonl").unlink()
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "0"])
    assert select.follow(process, tmp_path, lambda *_: False) and len(read_metrics(tmp_path)) == 199
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(2)"])
    with pytest.raises(RunError, match="failed with exit status 2"):
        select.follow(process, tmp_path, lambda *_: False)


def test_every_run_holds_out_val_and_reads_no_test(tmp_path):
    cell = select.trial_cell("cpu", "preact", "cifar10", "cutmix", 2.0, 0.7, 0)
    flags = select.trial_flags(cell, tmp_path, "/data", 5000)
    assert {"--config.data.val_size=5000", "--config.data.use_test=False", "--config.mixer.alpha=2.0"} <= set(flags)
    assert {"--config.objective.gamma=0.7", "--config.data.dir=/data", "--config.train.eval_every=1"} <= set(flags)
    assert flags[0] == "--config=configs/preact_c10.py:cutmix+sem"
    assert len({flag.partition("=")[0] for flag in flags}) == len(flags), "no option twice"


def test_folders_may_have_spaces_in_their_names():
    cell = select.trial_cell("cpu", "preact", "cifar10", "mixup", 1.0, 0.3, 0)
    flags = select.trial_flags(cell, Path("/my runs/alpha1"), "/my data", 5000)
    assert {"--workdir=/my runs/alpha1", "--config.data.dir=/my data"} <= set(flags)
    assert all(flag.startswith("--") for flag in flags)


def test_a_folder_of_another_search_is_refused(tmp_path, capsys):
    (tmp_path / "about.json").write_text("{}")
    with pytest.raises(SystemExit):
        select.main([f"--out={tmp_path}"])
    assert "holds another search" in capsys.readouterr().err


def test_without_optuna_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"needs Optuna.*\npip install optuna"):
        select.open_study(tmp_path / "study.db", 4)


@pytest.mark.slow
@optuna_missing
def test_with_an_unreadable_test_split_the_choice_is_the_same(tmp_path, monkeypatch):
    """For real, in processes: image folders of CIFAR-10's classes, the second one with garbage in place of test."""
    from tests.helpers.runs import CLASSES, pictures, write_tree

    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device: the runs are processes of their own
    monkeypatch.setitem(
        select.grid.SIZES,
        "cpu",
        select.grid.Size(
            "tiny",
            {
                "train.epochs": 2,
                "train.batch_size": 20,
                "model.name": "wide_resnet",
                "model.depth": 10,
                "model.width": 1,
            },
        ),
    )
    chosen = []
    for name in ("whole", "broken"):
        place = tmp_path / name
        for split, seed in (("train", 0), ("test", 1)):
            write_tree(place / "cifar10" / split, pictures(60, seed), [c for c in CLASSES for _ in range(6)])
        if name == "broken":
            for path in (place / "cifar10/test").rglob("*.png"):
                path.write_bytes(b"not an image")
        arguments = ["--size=cpu", "--alphas=1", "--gammas=0.1,0.5", "--val-size=20", f"--data-dir={place}"]
        assert select.main([*arguments, f"--out={tmp_path / name / 'out'}"]) == 0
        chosen.append(json.loads((tmp_path / name / "out/selected.json").read_text()))
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert chosen[0] == chosen[1] and chosen[0]["complete"] >= 1
    log = (next((tmp_path / "broken/out/trials").glob("*.log"))).read_text()
    assert "Final val accuracy" in log and "test" not in log
