"""A trainer dies before and after each single write and deletion in its bucket; a new machine goes on from there."""

import hashlib
import itertools
import json

import pytest

from sem_jax.runs.lease import Lease, read
from sem_jax.runs.manifest import read_verified, write_manifest
from sem_jax.runs.storage import open_storage
from sem_jax.system.bucket import Bucket

STEPS, KEEP = range(1, 5), 2


class Killed(BaseException):
    """From then on this trainer sends nothing."""


def make_checkpoint(folder, step):
    for name in ("model/a", "trainer/b"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"{name} of step {step}".encode())
    write_manifest(folder, {"step": step, "progress": {}, "metrics": {}, "arrays": {}})


def train(storage, acknowledged):
    """What a run does to its folder and its storage; goes on from the newest checkpoint. Its steps are noted."""
    there = {int(path.name) for path in (storage.path / "checkpoints").glob("*")}
    (storage.path / "config.json").parent.mkdir(parents=True, exist_ok=True)
    (storage.path / "config.json").write_text("{}")
    log = storage.path / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    assert len(lines) >= max(there, default=0)  # what a checkpoint depends on came before it
    log.write_text("".join(lines[: max(there, default=0)]))
    for step in STEPS:
        for old in sorted(there)[:-KEEP]:  # a kill may have left it
            storage.deleted(old)
            there.remove(old)
        if step <= max(there, default=0):
            continue
        log.write_text(log.read_text() + f"{step}\n")
        make_checkpoint(storage.path / "checkpoints" / str(step), step)
        storage.committed(step)
        acknowledged.append(step)
        there.add(step)
    for old in sorted(there)[:-KEEP]:
        storage.deleted(old)
    (storage.path / "result.json").write_text("done")


def check_all(bucket, steps):
    """The checkpoints that count, and each byte of them."""
    commits = read(bucket)[2]
    assert set(steps) <= set(commits), (steps, commits)
    for step, sha256 in commits.items():
        manifest = bucket.read(f"checkpoints/{step}/manifest.json", limit=1 << 20)
        assert hashlib.sha256(manifest).hexdigest() == sha256
        for name, expected in json.loads(manifest)["files"].items():
            content = bucket.read(f"checkpoints/{step}/{name}", limit=1 << 20)
            assert hashlib.sha256(content).hexdigest() == expected["sha256"]


@pytest.fixture
def dying(monkeypatch):
    """dying(n, after): the n-th change is the last that a bucket is asked for, and is made if `after`; 0 = never."""
    state = {"left": 0, "after": False, "dead": False, "count": 0}
    write, delete = Bucket.write, Bucket.delete

    def change(real):
        def wrapped(*args, **options):
            if state["dead"]:
                raise Killed
            state["count"] += 1
            if state["count"] == state["left"]:
                state["dead"] = True
                if state["after"]:
                    real(*args, **options)
                raise Killed
            return real(*args, **options)

        return wrapped

    def set_death(left, after=False):
        state.update(left=left, after=after, dead=False, count=0)
        return state

    monkeypatch.setattr(Bucket, "write", change(write))
    monkeypatch.setattr(Bucket, "delete", change(delete))
    monkeypatch.setattr(Lease, "_silence", lambda self: 1e9)  # the dead one has been silent for long
    return set_death


def live_and_die(url, dying, monkeypatch, tmp_path, number, after):
    """Kills the first trainer at its change of that number; whether there was such a change."""
    machine = tmp_path / f"{number}-{after}"
    acknowledged, gone = [], False
    dying(number, after)
    monkeypatch.setenv("SEM_JAX_CACHE", str(machine / "first"))
    storage = open_storage(url, lock_seconds=3600)
    try:
        with storage:
            train(storage, acknowledged)
    except Killed:
        gone = True
        storage._end.set()
    dying(0)
    bucket = Bucket(url)
    check_all(bucket, acknowledged[-1:])  # the others may have been deleted since
    monkeypatch.setenv("SEM_JAX_CACHE", str(machine / "second"))
    with open_storage(url, lock_seconds=3600) as storage:
        newest = max((int(path.name) for path in (storage.path / "checkpoints").glob("*")), default=0)
        assert newest >= max(acknowledged, default=0)
        if newest:
            assert read_verified(storage.path / "checkpoints" / str(newest))["step"] == newest
        train(storage, [])
    assert sorted(read(bucket)[2]) == [*STEPS][-KEEP:]
    check_all(bucket, [*STEPS][-KEEP:])
    assert bucket.read("metrics.jsonl", limit=99) == b"1\n2\n3\n4\n" and bucket.read("result.json", limit=9) == b"done"
    return gone


@pytest.mark.parametrize(
    "numbers", [pytest.param([9, 31], id="some"), pytest.param(itertools.count(1), id="each", marks=pytest.mark.slow)]
)
def test_no_death_between_two_changes_loses_a_checkpoint(bucket_server, dying, monkeypatch, tmp_path, numbers):
    deaths = 0
    for number in numbers:
        url = f"gs://sem-jax-test/deaths-{number}-{tmp_path.name}"
        gone = [live_and_die(f"{url}-{after}", dying, monkeypatch, tmp_path, number, after) for after in (False, True)]
        deaths += sum(gone)
        if not any(gone):
            break
    print(f"{deaths} deaths")
    assert deaths >= 4
