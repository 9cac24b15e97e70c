"""The command: its plan, chains, what is started again and what not; with a job that does nothing in a run's place."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from experiments.paper import cell as cells
from experiments.paper import grid, launchers
from experiments.paper import sweep as paper
from experiments.paper.ledger import Ledger
from sem_jax.errors import ConfigError
from sem_jax.runs.records import write_json
from tests.helpers.ledgers import entry

ROOT = Path(__file__).parent.parent.parent
# In place of a run: writes a done entry; fails, hangs or says no where the environment tells it to.
JOB = textwrap.dedent(
    f"""
    import os, sys, time, signal
    sys.path.insert(0, {str(ROOT)!r})
    from experiments.paper.cell import Job, facts
    job = Job.from_json(open(sys.argv[1]).read())
    with open(job.out + "/started", "a") as file:
        print(job.cell.method, job.cell.seed, os.environ.get("CUDA_VISIBLE_DEVICES", ""), file=file)
    if job.cell.method == os.environ.get("FAIL"):
        raise RuntimeError("out of " + "memory")
    if job.cell.method == os.environ.get("HANG"):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        time.sleep(60)
    scored = dict(suites=dict.fromkeys(job.suites, dict(status="done")), sets=dict.fromkeys(n for n, _ in job.shift))
    job.ledger.append(facts(job) | scored | dict(status="done"))
    """
)


@pytest.fixture
def dummy(monkeypatch, tmp_path):
    script = tmp_path / "job.py"
    script.write_text(JOB)
    popen = subprocess.Popen

    def start(command, **options):
        assert command[1:3] == ["-m", "experiments.paper.cell"]
        return popen([sys.executable, str(script), command[3]], **options)

    monkeypatch.setattr(cells.subprocess, "Popen", start)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(cells, "environment", lambda: {"commit": "c0ffee"})
    return tmp_path / "out"


def call(out, *more, methods="mixup,mixup+es,erm", seeds="0"):
    return paper.main(["--size=smoke", f"--out={out}", f"--methods={methods}", f"--seeds={seeds}", *more])


def started(out):
    path = out / "started"
    return [tuple(line.split()[:2]) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_is_there_is_not_started_again_and_what_failed_is(dummy, capsys, monkeypatch):
    monkeypatch.setenv("FAIL", "mixup")
    assert call(dummy) == 1
    said = capsys.readouterr().out
    assert said.startswith("3 runs expected: 0 done, 0 unscored, 3 missing, 0 failed")
    assert "RuntimeError: out of memory" in said and "2 done, 0 unscored, 0 missing, 1 failed" in said
    assert sorted(started(dummy)) == [("erm", "0"), ("mixup", "0"), ("mixup+es", "0")], "a failure stops no other"
    failed = Ledger(dummy / "ledger").read().failed
    (only,) = failed.values()
    assert only["exit_status"] == 1 and only["error"] == "RuntimeError: out of memory" and only["seed"] == 0
    monkeypatch.delenv("FAIL")
    assert call(dummy) == 0
    assert started(dummy)[3:] == [("mixup", "0")]
    assert call(dummy) == 0 and len(started(dummy)) == 4, "all there: nothing is started"


def test_the_plan_alone_starts_nothing(dummy, capsys):
    assert call(dummy, "--plan", seeds="0,1") == 0
    assert "6 runs expected" in capsys.readouterr().out and not started(dummy)


def test_a_run_that_was_not_scored_on_what_is_asked_for_is_scored(dummy, tmp_path):
    assert call(dummy, methods="erm") == 0
    assert call(dummy, "--table=2", methods="erm") == 0
    assert len(started(dummy)) == 2
    assert call(dummy, "--table=1", methods="erm") == 0 and len(started(dummy)) == 2, "less is asked for"
    assert call(dummy, "--table=2", f"--shift=own={tmp_path}", methods="erm") == 0
    assert call(dummy, "--table=2", f"--shift=own={tmp_path}", methods="erm") == 0
    assert len(started(dummy)) == 3


def test_the_plan_says_what_is_lacking_and_whether_the_checkpoint_is_there(dummy, tmp_path, capsys):
    assert call(dummy, methods="erm") == 0
    arguments = ("--table=2", f"--shift=own={tmp_path}", "--plan")
    assert call(dummy, *arguments, methods="erm") == 0
    assert ": corruptions, shift; without its checkpoint it is trained again" in capsys.readouterr().out
    (name,) = Ledger(dummy / "ledger").read().done
    (dummy / "runs" / name / "checkpoints").mkdir(parents=True)
    assert call(dummy, *arguments, methods="erm") == 0
    assert "trained again" not in capsys.readouterr().out


def test_siblings_go_one_after_the_other_and_seeds_first(tmp_path):
    jobs = [
        cells.Job(grid.Cell("smoke", "wrn", "digits", method, seed), str(tmp_path), ("clean",))
        for method in ("mixup+es", "mixup", "cutmix+es", "erm")
        for seed in (1, 0)
    ]
    chains = [[(j.cell.method, j.cell.seed) for j in chain] for chain in paper.chains_of(jobs)]
    assert chains == [
        [("mixup", 0), ("mixup+es", 0)],
        [("erm", 0)],
        [("cutmix+es", 0)],
        [("mixup", 1), ("mixup+es", 1)],
        [("erm", 1)],
        [("cutmix+es", 1)],
    ]


def test_a_job_travels_as_json():
    cell = grid.Cell("cpu", "preact", "cifar10", "mixup", 3, (("mixer.alpha", 0.2), ("optim.boundaries", (0.5, 0.6))))
    job = cells.Job(cell, "out", ("clean", "ood"), ood=(("SVHN", "x"),))
    assert cells.Job.from_json(job.to_json()) == job


def test_a_signal_stops_all_and_the_same_command_continues(dummy, monkeypatch):
    """As kill does it to the sweep: its run is told, no other is started, and nothing is entered as failed."""
    monkeypatch.setenv("HANG", "mixup")

    def send():
        while ("mixup", "0") not in started(dummy):
            time.sleep(0.05)
        time.sleep(1.5)  # until the job has its handler
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    assert call(dummy, methods="mixup,mixup+es,erm") == 130
    thread.join()
    assert started(dummy) == [("mixup", "0")]
    assert Ledger(dummy / "ledger").read_or_empty().failed == {}
    monkeypatch.delenv("HANG")
    assert call(dummy, methods="mixup,mixup+es,erm") == 0
    assert sorted(started(dummy)[1:]) == [("erm", "0"), ("mixup", "0"), ("mixup+es", "0")]


def test_devices_are_shared_out(monkeypatch):
    assert launchers.slots(0, []) == [{}] and launchers.slots(3, []) == [{}] * 3
    assert [s["CUDA_VISIBLE_DEVICES"] for s in launchers.slots(0, ["0", "3"])] == ["0", "3"]
    shared = launchers.slots(4, ["0", "1"])
    assert [s["CUDA_VISIBLE_DEVICES"] for s in shared] == ["0", "1", "0", "1"]
    assert {s["XLA_PYTHON_CLIENT_MEM_FRACTION"] for s in shared} == {"0.45"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-a")
    assert launchers.gpus() == ["2", "GPU-a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert launchers.gpus() == []


def test_each_run_has_a_device_of_its_own(dummy, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert call(dummy, methods="erm,mixup,cutmix,sem-squared") == 0
    used = {line.split()[2] for line in (dummy / "started").read_text().splitlines()}
    assert used == {"0", "1"}


def test_what_cannot_be_is_refused_in_words(tmp_path, capsys):
    for arguments, message in {
        ("--seeds=a",): "--seeds must be whole numbers",
        ("--methods=mixpu",): "Unknown method 'mixpu'",
        ("--backbones=vgg",): "Unknown backbone 'vgg'",
        ("--shift=x",): "--shift must be NAME=PATH",
        ("--ood=x=/does/not/exist",): "/does/not/exist does not exist",
        ("--set=train.epochs",): "--set must be FIELD=VALUE",
        ("--set=train.epochs=many",): "train.epochs",
        ("--set=mixer.alpha=-1.0", "--methods=mixup"): "mixer.alpha must be in",
        ("--selected=/does/not/exist",): "/does/not/exist is missing",
    }.items():
        with pytest.raises(SystemExit) as status:
            paper.main(["--size=smoke", f"--out={tmp_path}", "--plan", *arguments])
        said = capsys.readouterr().err
        assert status.value.code == 2 and message in said and len(said.strip().splitlines()) <= 3, said


def test_chosen_values_are_of_their_mixer(tmp_path):
    chosen = {"mixer": "mixup", "backbone": "wrn", "dataset": "digits", "alpha": 2.0, "gamma": 0.7}
    write_json(tmp_path / "selected.json", chosen)
    files = [str(tmp_path / "selected.json")]
    cell = grid.Cell("smoke", "wrn", "digits", "mixup+es+sem", 0)
    assert paper.settings_of(files, cell) == (("mixer.alpha", 2.0), ("objective.gamma", 0.7))
    assert paper.settings_of(files, cell._replace(method="cutmix+sem")) == ()
    assert paper.settings_of(files, cell._replace(dataset="cifar10")) == ()
    write_json(tmp_path / "other.json", {"mixer": "mixup"})
    with pytest.raises(ValueError, match="not what experiments.paper.select writes"):
        paper.settings_of([str(tmp_path / "other.json")], cell)


def test_ray_without_ray_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray.*\npip install ray"):
        launchers.ray([])


def test_entries_say_what_a_run_was():
    job = cells.Job(grid.Cell("smoke", "wrn", "digits", "mixup+es", 4), "out", ("clean",))
    told = cells.facts(job)
    assert told["id"] == job.cell.id and told["seed"] == 4 and told["overrides"]["train.epochs"] == 4
    assert "settings" not in told and told["command"].startswith(
        "python -m sem_jax.main --config=configs/digits.py:mixup+es"
    )
    assert set(entry("mixup", 0)[0]) >= set(told) - {"command"}, "hand-made entries have what real ones have"


@pytest.mark.slow
def test_runs_of_the_digits_end_to_end(tmp_path, monkeypatch):
    """For real: two siblings and a control, 4 epochs each, the report on them, and the same command again."""
    from experiments.paper import report

    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device: the runs are processes of their own
    arguments = ["--size=smoke", f"--out={tmp_path}", "--methods=mixup+sem,mixup+es+sem,mixup+clean", "--seeds=0"]
    assert paper.main(arguments) == 0, next((tmp_path / "runs").glob("*.log")).read_text()
    book = Ledger(tmp_path / "ledger").read()
    by_method = {e["method"]: e for e in book.done.values()}
    assert by_method["mixup+es+sem"]["branched_from"] == by_method["mixup+sem"]["id"]
    made = by_method["mixup+clean"]
    assert made["suites"]["clean"]["scalars"]["top1"] == made["accuracy"]["last"] and made["versions"]["jax"]
    items = Ledger(tmp_path / "ledger").items(made)
    assert items["correct test"].mean() == made["accuracy"]["last"]
    assert len(made["curves"]["mixup"]["lam"]) == 11
    assert report.main([f"--ledger={tmp_path / 'ledger'}", f"--out={tmp_path / 'report'}"]) == 0
    assert "mixup+clean" in (tmp_path / "report/report.md").read_text()
    before = (tmp_path / "ledger/ledger.jsonl").read_bytes()
    assert paper.main(arguments) == 0 and (tmp_path / "ledger/ledger.jsonl").read_bytes() == before
