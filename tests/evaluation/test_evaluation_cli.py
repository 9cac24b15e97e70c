"""The command: what it imports, which checkpoint it takes, and that every refusal is a short message."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sem_jax.errors import ConfigError, RunError
from sem_jax.evaluation.__main__ import main
from sem_jax.evaluation.report import page
from sem_jax.evaluation.run_data import load_splits
from sem_jax.runs.opening import open_run
from tests.helpers.runs import write_run

_MODULES = """
import sys
from sem_jax.evaluation.__main__ import main
main(sys.argv[1:])
trainer = ("sem_jax.training.loop", "sem_jax.training.step", "sem_jax.training.programs", "sem_jax.main")
bad = [m for m in sys.modules if m.startswith(trainer)]
assert not bad, bad
"""


def test_scores_without_the_trainer(run_dir, tmp_path):
    command = [
        sys.executable,
        "-c",
        _MODULES,
        f"--workdir={run_dir}",
        "--suites=clean,calibration",
        f"--out={tmp_path}",
    ]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second, _, accuracy, *_, last = done.stdout.splitlines()
    assert first.startswith("clean") and "top1 " in first and second.startswith("calibration")
    assert re.fullmatch(r"  test accuracy  +[\d.]+%  20 images, 95% interval .+", accuracy), accuracy
    assert last == f"tiny, final, step 3: report in {tmp_path / 'eval.html'}"


def test_options_are_refused_before_jax_starts():
    code = (
        "import sys\nfrom sem_jax.evaluation import SUITES, Options\nfrom sem_jax.errors import ConfigError\n"
        "try: Options(suites=['claen'])\nexcept ConfigError as error: assert 'clean' in str(error)\n"
        "Options.quick(); assert list(SUITES)[0] == 'clean' and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(page, "to_png", lambda figure: b"\x89PNG\r\n\x1a\n" + bytes(40))


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert 1 <= len(said.strip().splitlines()) <= 3 and "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--suites=clean"], "--workdir is missing"),
        (["--workdir=RUN", "--suites=nonsense"], "Unknown suite 'nonsense'"),
        (["--workdir=RUN", "--suites=,"], "must name at least one"),
        (["--workdir=/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["--workdir=RUN", "--checkpoint=77"], "no checkpoint of step 77; there are: 1, 2, 3"),
        (["--workdir=RUN", "--checkpoint=best"], "neither final, best_val, ema, a step nor an existing folder"),
        (["--workdir=RUN", "--shift=cinic"], "--shift must be NAME=PATH, got 'cinic'"),
        (["--workdir=RUN", "--ood", "a=x", "a=y"], "--ood names 'a' twice"),
        (["--workdir=RUN", "--ood", "a=/nowhere/a"], "a: /nowhere/a does not exist"),
        (["--workdir=RUN", "--corruptions-dir=/nowhere"], "no corrupted set at /nowhere"),
        (["--workdir=RUN", "--compare", "/nowhere"], "neither final, best_val, ema, a step nor an existing folder"),
        (["--workdir=RUN", "--corruption-items=-3"], "corruption_items must be >= 0"),
        (["--workdir=RUN", "--data-dir=/nowhere", "--suites=clean"], "no data set 'cifar10' in /nowhere"),
    ],
)
def test_refusals(run_dir, capsys, argv, words):
    assert words in refused(capsys, *(word.replace("RUN", str(run_dir)) for word in argv))


def test_best_val_is_the_best_that_is_kept(run_dir, tmp_path):
    assert open_run(run_dir).step == 3
    best = open_run(run_dir, "best_val")
    assert best.step == 2 and best.fingerprint == open_run(run_dir, 2).fingerprint != open_run(run_dir).fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    shutil.rmtree(copy / "checkpoints/2")
    assert open_run(copy, "best_val").step == 3  # 0.2 against 0.1
    (copy / "metrics.jsonl").write_text('{"step": 3, "epoch": 1}\n')
    with pytest.raises(RunError, match="no val_accuracy"):
        open_run(copy, "best_val")


@pytest.mark.parametrize("part", ["", "checkpoints", "checkpoints/3"])
def test_checkpoint_of_a_run_moved_elsewhere(run_dir, tmp_path, capsys, quick, part):
    moved = tmp_path / "moved"
    shutil.copytree(run_dir, moved, ignore=shutil.ignore_patterns("predictions"))
    (moved / "config.py").write_text("raise SystemExit('executed')")
    assert open_run("", str(moved / part)).fingerprint == open_run(run_dir).fingerprint
    assert open_run(moved / part).fingerprint == open_run(run_dir).fingerprint
    main([f"--checkpoint={moved / part}", "--suites=clean"])
    assert str(moved / "evaluation" / "eval.html") in capsys.readouterr().out
    record = json.loads((moved / "evaluation/eval.json").read_text())
    assert record["run"]["checkpoint"] == str(moved / part) and record["run"]["step"] == 3


def test_checkpoint_without_its_config(run_dir, tmp_path, capsys):
    shutil.copytree(run_dir / "checkpoints/3", tmp_path / "a/b/c/3")
    assert "no config.json" in refused(capsys, f"--checkpoint={tmp_path / 'a/b/c/3'}")
    assert "holds no checkpoint" in refused(capsys, f"--checkpoint={tmp_path / 'a'}")


def _edit(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda f: (f / "config.json").write_text("{"), RunError, "not valid JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), RunError, "must hold the fields"),
        (lambda f: (f / "config.json").unlink(), RunError, "config.json is missing"),
        (lambda f: (f / "data.json").unlink(), RunError, "data.json is missing"),
        (lambda f: _edit(f / "config.json", seed="a"), ConfigError, "seed must be a whole number"),
        (lambda f: _edit(f / "data.json", std=[1, 0, 1]), RunError, "std is"),
        (lambda f: _edit(f / "data.json", mean=[0.5]), RunError, "number of channels"),
        (lambda f: shutil.rmtree(f / "checkpoints"), RunError, "has no checkpoint"),
    ],
)
def test_damaged_run(run_dir, tmp_path, damage, error, words):
    shutil.copytree(run_dir, tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(error, match=words) as caught:
        open_run(tmp_path / "run")
    assert len(str(caught.value).splitlines()) <= 3


def test_other_data_is_refused(run_dir, place, tmp_path):
    """One pixel more or less is other data; a folder with the test split alone is compared by size and classes."""
    from PIL import Image

    run = open_run(run_dir)
    assert load_splits(run).verified
    shutil.copytree(place / "cifar10", tmp_path / "cifar10")
    picture = next((tmp_path / "cifar10/train/cat").iterdir())
    pixels = np.array(Image.open(picture))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    with pytest.raises(RunError, match="other data than is found now: fingerprint"):
        load_splits(run, data_dir=str(tmp_path))
    shutil.rmtree(tmp_path / "cifar10/train")
    alone = load_splits(run, data_dir=str(tmp_path / "cifar10"))
    # An image folder needs both parts to be found as a public set: then nothing is there.
    assert alone.splits == {} or (list(alone.splits) == ["test"] and not alone.verified)


def test_dataset_in_memory_is_compared_too(run_dir, place, tmp_path):
    from sem_jax import data

    with pytest.raises(RunError, match="fingerprint"):
        load_splits(open_run(run_dir), dataset=data.load("digits"))
    dataset = data.load("cifar10", data_dir=str(place), val_size=10, reading=data.Reading(download=False))
    assert load_splits(open_run(run_dir), data_dir="/nowhere", dataset=dataset).verified


def test_run_without_val(place, tmp_path, capsys):
    write_run(tmp_path / "run", place, val_size=0, steps=(1,))
    assert "no best_val checkpoint" in refused(capsys, f"--workdir={tmp_path / 'run'}", "--checkpoint=best_val")


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for option in (
        "suites",
        "checkpoint",
        "data-dir",
        "shift",
        "ood",
        "corruptions-dir",
        "frost-dir",
        "compare",
        "out",
    ):
        assert f"--{option}" in said
