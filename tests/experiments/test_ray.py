"""A real Ray of two workers, of which one is killed in the middle of a run."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from experiments.paper import cell as cells
from experiments.paper import grid, launchers
from experiments.paper.ledger import Ledger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of Ray's own imports and sockets
]


def work(chain):
    """In a run's place: leaves a checkpoint after each of six parts, continues after the last one, enters itself."""
    out = {}
    for job in chain:
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.folder / "attempts", "a") as file:
            print(os.getpid(), file=file)
        done = job.folder / "checkpoint"
        for part in range(int(done.read_text()) if done.exists() else 0, 6):
            with open(job.folder / "parts", "a") as file:
                print(part, file=file)
            time.sleep(0.5)
            done.write_text(str(part + 1))
        job.ledger.append(cells.facts(job) | {"status": "done"})
        out[job.cell.id] = "done"
    return out


def test_a_lost_worker_costs_no_run(tmp_path):
    ray = pytest.importorskip("ray")
    root = str(Path(__file__).parent.parent.parent)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 << 20,
        runtime_env={"env_vars": {"PYTHONPATH": root}},
    )
    try:
        jobs = [
            cells.Job(grid.Cell("smoke", "wrn", "digits", "erm", seed), str(tmp_path), ("clean",)) for seed in range(3)
        ]
        victim = jobs[0].folder

        def kill():
            while not (victim / "parts").exists() or len((victim / "parts").read_text().split()) < 3:
                time.sleep(0.1)
            os.kill(int((victim / "attempts").read_text().split()[0]), signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        said = []
        results = launchers.ray([[job] for job in jobs], say=said.append, run=work)
        thread.join()
    finally:
        ray.shutdown()
    assert results == {job.cell.id: "done" for job in jobs}
    assert set(Ledger(tmp_path / "ledger").read().done) == set(results)
    attempts = [len((job.folder / "attempts").read_text().split()) for job in jobs]
    assert attempts == [2, 1, 1], "the lost one alone was started again"
    parts = [int(part) for part in (victim / "parts").read_text().split()]
    assert sorted(set(parts)) == list(range(6)) and len(parts) <= 7, "it continued where it had been"
