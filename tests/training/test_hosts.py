"""Several processes train one run: the numbers of one process, stops at one step, resume, no hanging."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sem_jax.runs.checkpoint import steps
from sem_jax.runs.manifest import read_verified
from sem_jax.runs.records import read_metrics

ROOT = Path(__file__).parents[2]
HEARTBEAT = 10
WORKER = """
import signal, sys, time
import jax, numpy as np
sys.path.insert(0, {root!r})
from sem_jax.training import loop
from sem_jax import main
from sem_jax.models import MODELS
from tests.helpers.training import make_tiny
MODELS["tiny"] = make_tiny
run = loop.Programs.run
def slowly(self, stage, state, *args, **options):
    time.sleep({pause})
    if jax.process_index() == 1 and int(state.step) == {stop_in}:
        signal.raise_signal(signal.SIGTERM)
    return run(self, stage, state, *args, **options)
loop.Programs.run = slowly
loop.curves.draw_curves = lambda *_, **__: None
train = loop.train_and_evaluate
def train_and_keep(cfg, workdir, **options):
    state = train(cfg, workdir, **options)
    if jax.process_index() == 0:
        leaves = map(np.asarray, jax.tree.leaves((state.params, state.batch_stats)))
        np.savez({kept!r} + ".npz" if "://" in workdir else workdir + ".npz", *leaves)
    return state
loop.train_and_evaluate = train_and_keep
main.main()
"""
CONFIG = """
from tests.helpers.training import configure
def get_config(_=""):
    return configure("mixup+sem", train__epochs=3, runtime__devices=0, runtime__steps_per_call=1, data__val_size=100)
"""
ENCODED = """
from tests.training.test_loop_encoded import configure, cropped
def get_config(_=""):
    options = cropped(train__epochs=3, train__batch_size=8, runtime__devices=0, runtime__steps_per_call=1)
    return configure({photos!r}, runtime__residency="disk", **options)
"""


def processes(tmp_path, count, devices, workdir, *, config=CONFIG, pause=0.0, stop_in=None, disks=None):
    """Starts the command on `count` "hosts" with `devices` devices each; the second gets a signal in step `stop_in`.

    disks: folder in which each host has a cache folder of its own; None = they share one.
    """
    (tmp_path / "config.py").write_text(config)
    worker = tmp_path / f"worker{pause}-{stop_in}.py"
    kept = str(tmp_path / "bucket")
    worker.write_text(WORKER.format(root=str(ROOT), pause=pause, stop_in=stop_in, kept=kept))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": os.environ["SEM_JAX_TEST_CACHE"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    command = [sys.executable, str(worker), f"--config={tmp_path / 'config.py'}", f"--workdir={workdir}"]
    started = []
    for i in range(count):
        options = [
            "--distributed",
            f"--coordinator_address=localhost:{port}",
            f"--num_processes={count}",
            f"--process_id={i}",
            f"--heartbeat_seconds={HEARTBEAT}",
        ]
        if disks:
            env = env | {"SEM_JAX_CACHE": str(disks / str(i))}
        log = open(tmp_path / f"log{i}.txt", "w+")  # noqa: SIM115
        started.append(
            (subprocess.Popen(command + options * (count > 1), stdout=log, stderr=log, env=env, cwd=ROOT), log)
        )
    return started


def finish(started, limit=240):
    """Exit statuses and what was printed."""
    out = []
    try:
        for process, log in started:
            process.wait(limit)
            log.seek(0)
            out.append(log.read())
            log.close()
    finally:
        for process, _ in started:
            process.kill()
    return [process.returncode for process, _ in started], out


def wait_for(path, started, limit=120):
    end = time.monotonic() + limit
    while not path():
        assert time.monotonic() < end and all(process.poll() is None for process, _ in started), finish(started, 1)
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_train_stop_die_and_resume_to_the_numbers_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert finish(processes(tmp_path, 1, 4, one))[0] == [0]

    # A signal to one of them: both leave at the same step, saved.
    started = processes(tmp_path, 2, 2, two, pause=0.3)
    wait_for(lambda: read_metrics(two), started)
    started[1][0].send_signal(signal.SIGTERM)
    codes, out = finish(started)
    assert codes == [143, 143], out
    stopped = steps(two / "checkpoints")[-1]
    assert f"Saved step {stopped}" in out[0] and "Saved step" not in out[1]

    # One dies: the other ends by itself.
    started = processes(tmp_path, 2, 2, two, pause=0.3)
    wait_for(lambda: f"Continuing from step {stopped}" in (tmp_path / "log0.txt").read_text(), started)
    wait_for(lambda: len(read_metrics(two)) > stopped // 4, started)
    started[1][0].kill()
    died = time.monotonic()
    codes, out = finish(started, limit=6 * HEARTBEAT)
    print(f"the other process ended {time.monotonic() - died:.1f} s later with status {codes[0]}")
    assert codes[0] != 0 and codes[1] == -signal.SIGKILL

    codes, out = finish(processes(tmp_path, 2, 2, two))
    assert codes == [0, 0], out
    assert "Final test accuracy" in out[0] and "accuracy" not in out[1]
    a, b = read_metrics(one), read_metrics(two)
    assert [r["step"] for r in b] == [r["step"] for r in a]
    for x, y in zip(a, b, strict=True):
        for name in set(x) - {"seconds", "images_per_s"}:
            np.testing.assert_allclose(y[name], x[name], rtol=2e-3, atol=1e-4, err_msg=name)
    for step in steps(two / "checkpoints"):
        assert read_verified(two / "checkpoints" / str(step))["step"] == step


@pytest.mark.slow
def test_encoded_images_come_to_two_processes_as_to_one_and_resume_in_the_middle_of_an_epoch(tmp_path):
    """Each of two hosts decodes its half of every batch; what is computed of it is what one host computes."""
    pytest.importorskip("grain")
    from tests.training.test_loop_encoded import write_photos

    config = ENCODED.format(photos=str(write_photos(tmp_path / "photos", train=24, test=5)))
    one, two, parts = tmp_path / "one", tmp_path / "two", tmp_path / "parts"
    for count, workdir in ((1, one), (2, two)):
        codes, out = finish(processes(tmp_path, count, 4 // count, workdir, config=config))
        assert codes == [0] * count, out

    # Six steps an epoch, one a call: the third of the second epoch is the last one that both make.
    codes, out = finish(processes(tmp_path, 2, 2, parts, config=config, stop_in=8))
    assert codes == [143, 143] and steps(parts / "checkpoints")[-1] == 9, out
    codes, out = finish(processes(tmp_path, 2, 2, parts, config=config))
    assert codes == [0, 0] and "Continuing from step 9 of 18" in out[0], out

    weights = {path: np.load(f"{path}.npz") for path in (one, two, parts)}
    assert len(weights[one].files) > 5
    for name in weights[one].files:
        np.testing.assert_array_equal(weights[parts][name], weights[two][name], err_msg=name)
        np.testing.assert_allclose(weights[two][name], weights[one][name], rtol=2e-3, atol=1e-4, err_msg=name)
    a, b, c = map(read_metrics, (one, two, parts))
    assert [r["step"] for r in a] == [r["step"] for r in b] == [r["step"] for r in c] == [6, 12, 18]
    for x, y, z in zip(a, b, c, strict=True):
        for name in set(x) - {"seconds", "images_per_s"}:
            np.testing.assert_allclose(y[name], x[name], rtol=2e-3, atol=1e-4, err_msg=name)
            assert z[name] == y[name], name
