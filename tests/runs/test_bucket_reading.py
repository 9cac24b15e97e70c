"""A run in a bucket is read wherever a run folder is: loaded, scored, compared, converted, started from."""

import json
import os
import time

import jax
import jax.numpy as jnp
import pytest

import sem_jax as sj
from sem_jax.errors import ConfigError, RunError
from sem_jax.evaluation.options import Options
from sem_jax.evaluation.runner import evaluate
from sem_jax.runs.checkpoint import Checkpoints, steps
from sem_jax.runs.opening import open_run
from sem_jax.runs.reading import require_run
from sem_jax.runs.shared import report_folder
from sem_jax.runs.state import TrainState
from sem_jax.system.bucket import Bucket, parallel

FEW = {"suites": ("calibration",), "progress": False, "pictures": False}


@pytest.fixture(scope="session")
def uploaded(bucket_server, run_dir):
    """The small run, copied into a bucket."""
    bucket = Bucket("gs://sem-jax-test/uploaded/tiny")
    paths = [path for path in run_dir.rglob("*") if path.is_file() and not path.name.startswith(".")]
    parallel(lambda path: bucket.write(path.relative_to(run_dir).as_posix(), path), paths)
    return bucket.url


def test_a_run_in_a_bucket_is_opened_like_a_folder(uploaded, gate, run_dir):
    whole, last = open_run(run_dir), steps(run_dir / "checkpoints")[-1]
    for workdir, checkpoint in (
        (uploaded, "final"),
        (f"{uploaded}/checkpoints/{last}", "final"),
        ("", f"{uploaded}/checkpoints/{last}/"),
    ):
        require_run(workdir, checkpoint)
        found = open_run(workdir, checkpoint)
        assert (found.fingerprint, found.step, found.name) == (whole.fingerprint, last, "tiny")
        assert (found.source, found.checkpoint) == (uploaded, checkpoint)
    best = open_run(uploaded, "best_val")
    assert best.fingerprint == open_run(run_dir, "best_val").fingerprint and best.checkpoint == "best_val"
    run = sj.load(uploaded)
    assert repr(run) == f"Run('{uploaded}', step {last})" and run.metrics() == sj.load(run_dir).metrics()
    assert {method for method, _ in gate.seen} == {"GET"}  # reading is permission enough
    assert not [path for _, path in gate.seen if "trainer%2F" in path]  # nor is the optimizer's state fetched
    before = len(gate.seen)
    open_run(uploaded)
    assert not [path for _, path in gate.seen[before:] if "alt=media" in path and "model%2Fd" in path]
    for workdir, checkpoint, message in (
        (uploaded, "7", "has no checkpoint '7'; there are: "),
        (f"{uploaded}/nothing", "final", "has no checkpoint"),
        ("gs://sem-jax-nowhere/run", "final", "There is no bucket gs://sem-jax-nowhere"),
        (uploaded, "fianl", "neither final, best_val, ema, a step"),
    ):
        with pytest.raises(RunError, match=message):
            open_run(workdir, checkpoint)
    for call in (lambda: open_run("s3://b/run"), lambda: require_run("s3://b/run")):
        with pytest.raises(ConfigError, match="neither a local path nor gs://"):
            call()


def test_what_was_fetched_is_kept_for_an_hour(uploaded, bucket_server):
    folder = open_run(uploaded).folder
    old, new = folder / "checkpoints/1000", folder / "checkpoints/1001"
    for path in (old, new):
        path.mkdir()
    os.utime(old, (time.time() - 4000,) * 2)
    open_run(uploaded)
    assert not old.exists() and new.exists()
    new.rmdir()


@pytest.mark.slow
def test_a_report_is_uploaded_to_the_run_or_says_where_it_is(uploaded, gate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines, bucket = [], Bucket(uploaded)
    record = evaluate(uploaded, Options(compare=(uploaded,), **FEW), say=lines.append)
    assert lines[-1] == f"The report was uploaded to {uploaded}/evaluation"
    assert json.loads(bucket.read("evaluation/eval.json", limit=1 << 24)) == record
    assert (tmp_path / "tiny-evaluation/eval.html").is_file()
    assert report_folder(f"{uploaded}/checkpoints/3") == report_folder(uploaded)
    there = bucket.list()
    evaluate(uploaded, Options(out=tmp_path / "out", **FEW), say=lines.append)
    assert bucket.list() == there and (tmp_path / "out/eval.html").is_file()
    refused = RunError("No permission for gs://sem-jax-test: storage.objects.create is missing")
    monkeypatch.setattr(Bucket, "write", lambda *_, **__: (_ for _ in ()).throw(refused))
    evaluate(uploaded, Options(**FEW), say=lines.append)
    assert lines[-1] == f"The report is in tiny-evaluation alone, it was not uploaded: {refused}"


@pytest.mark.slow
def test_reads_while_a_trainer_commits_and_prunes(uploaded, gate, run_dir, monkeypatch):
    """Each read is interrupted by a commit that deletes the checkpoint which is being fetched."""
    from sem_jax.runs import fetched
    from sem_jax.runs.storage import open_storage

    url = "gs://sem-jax-test/busy/tiny"
    source, target = Bucket(uploaded), Bucket(url)
    for name in source.list():
        if not name.startswith(("evaluation/", "checkpoints/")):
            target.write(name, source.read(name, limit=1 << 26))
    run = open_run(run_dir)
    params, stats = run.variables["params"], run.variables["batch_stats"]
    state = TrainState(jnp.asarray(1, jnp.int32), *(jax.tree.map(jnp.asarray, it) for it in (params, stats)), {})
    seen = set()
    with open_storage(url, lock_seconds=5) as storage:
        (storage.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        with Checkpoints(storage.path / "checkpoints", keep=1, best=None, storage=storage) as checkpoints:
            checkpoints.save(1, state, {})
            checkpoints.wait()
            number, bring = 1, fetched.bring_step

            def interrupted(*args, **options):
                nonlocal number
                if number % 3:
                    number += 1
                    checkpoints.save(number, state, {})
                    checkpoints.wait()
                else:
                    number += 1
                return bring(*args, **options)

            monkeypatch.setattr(fetched, "bring_step", interrupted)
            for _ in range(30):
                found = open_run(url)
                assert found.fingerprint == run.fingerprint
                seen.add(found.step)
    assert len(seen) > 10
