"""A run in a bucket: what survives a machine, who may commit, what is never mixed."""

import json
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import ConfigError, RunError
from sem_jax.runs import lease as lease_module
from sem_jax.runs.checkpoint import Checkpoints, steps
from sem_jax.runs.disk import Disk, local_folder
from sem_jax.runs.lease import Lease, read
from sem_jax.runs.state import TrainState
from sem_jax.runs.storage import open_storage
from sem_jax.system.bucket import Bucket, Unreachable

SHA = "0" * 64


def state_of(seed):
    a = jnp.asarray(np.random.default_rng(seed).normal(size=(4, 3)), jnp.float32)
    return TrainState(jnp.asarray(seed, jnp.int32), {"a": a}, {"mean": a[0]}, (a * 2,))


@pytest.fixture
def url(gate, request):
    return f"gs://sem-jax-test/{request.node.name.replace('[', '-').rstrip(']')}"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine("b"): from now on this process has the disk of machine b, which is empty the first time."""

    def use(name):
        monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / name))

    use("a")
    return use


def lease_of(url, seconds=60.0):
    return Lease(Bucket(url, patience=5, timeout=1), seconds=seconds)


def in_bucket(url):
    return set(Bucket(url).list())


def save(storage, step, accuracy=None, keep=2):
    """One checkpoint, saved as a run saves it."""
    with Checkpoints(storage.path / "checkpoints", keep=keep, best="accuracy", storage=storage) as checkpoints:
        checkpoints.save(step, state_of(step), {"step": step}, accuracy and {"accuracy": accuracy})


def restored(storage):
    with Checkpoints(storage.path / "checkpoints", keep=2, best="accuracy", storage=storage) as checkpoints:
        found = checkpoints.restore(state_of(0))
    if found is None:
        return None
    step = int(found.state.step)
    jax.tree.map(np.testing.assert_array_equal, found.state, state_of(step))
    return step


def test_a_run_goes_on_where_the_bucket_ends_on_a_machine_with_an_empty_disk(url, machine):
    with open_storage(url) as storage:
        assert storage.name == url and storage.path.name == url.rsplit("/", 1)[1] and restored(storage) is None
        (storage.path / "config.json").write_text("{}")
        (storage.path / "metrics.jsonl").write_text('{"step": 1}\n')
        (storage.path / "evaluation").mkdir()
        (storage.path / "evaluation" / "eval.json").write_text("1")
        (storage.path / ".hidden").write_text("")
        for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.1), (4, 0.2)):  # kept: 2, the best, and the latest two
            save(storage, step, accuracy)
        (storage.path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 5}\n')
        (storage.path / "evaluation" / "eval.json").unlink()
    assert sorted(read(Bucket(url))[2]) == [2, 3, 4] and read(Bucket(url))[1] is None
    names = in_bucket(url)
    assert {name.split("/")[1] for name in names if name.startswith("checkpoints/")} == {"2", "3", "4"}
    assert {name for name in names if "checkpoints/" not in name} == {"config.json", "metrics.jsonl", "trainer.json"}

    machine("b")
    with open_storage(url) as storage:
        with open_storage(url).look() as folder:
            assert (folder / "config.json").read_text() == "{}"
        assert restored(storage) == 4 and (storage.path / "metrics.jsonl").read_text().count("\n") == 2
        save(storage, 5, 0.3)
        assert steps(storage.path / "checkpoints") == [2, 4, 5]  # of 2, only the manifest
    assert {name.split("/")[1] for name in in_bucket(url) if name.startswith("checkpoints/")} == {"2", "4", "5"}
    machine("a")  # whose disk has more, and less
    with open_storage(url) as storage:
        assert restored(storage) == 5


@pytest.mark.slow
def test_what_a_killed_trainer_left_does_not_count_and_goes(url, machine):
    bucket = Bucket(url)
    with open_storage(url) as storage:
        save(storage, 1)
    for name in ("checkpoints/2/model/_METADATA", "checkpoints/2/manifest.json", "trainer.json.5"):
        bucket.write(name, b"{}")
    bucket.write("checkpoints/notes.txt", b"mine")
    with open_storage(url, lock_seconds=1) as storage:
        assert restored(storage) == 1
        until(lambda: "trainer.json.5" not in in_bucket(url))
        left = {name for name in in_bucket(url) if not name.startswith("checkpoints/1/")}
        assert left == {"checkpoints/notes.txt", "trainer.json"}
        # Files of another trainer lie where this one writes.
        bucket.write("checkpoints/2/model/_METADATA", b"other")
        bucket.write("checkpoints/2/manifest.json", b"other")
        save(storage, 2)
    machine("b")
    with open_storage(url) as storage:
        assert restored(storage) == 2


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_left_for_the_one_before(url, machine, capsys):
    bucket = Bucket(url)
    with open_storage(url) as storage:
        save(storage, 1)
        save(storage, 2)
    name = next(name for name in in_bucket(url) if name.startswith("checkpoints/2/model/d/"))
    bucket.write(name, b"damage")
    machine("b")
    with open_storage(url) as storage:
        assert restored(storage) == 1
        assert f"Checkpoint 2 of {url} is damaged" in capsys.readouterr().out
        save(storage, 2)
    machine("c")
    with open_storage(url) as storage:
        assert restored(storage) == 2
    for step in (1, 2):
        bucket.write(f"checkpoints/{step}/manifest.json", b"{")
    machine("d")
    with pytest.raises(RunError, match=f"All 2 checkpoints of {url} are damaged, the latest"), open_storage(url):
        pass
    assert read(bucket)[1] is None  # free for the next one


@pytest.mark.slow
def test_a_run_that_was_copied_into_a_bucket_goes_on(url, machine, tmp_path):
    save(Disk(tmp_path / "run"), 3)
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            Bucket(url).write(path.relative_to(tmp_path / "run").as_posix(), path)
    with open_storage(url) as storage:
        assert restored(storage) == 3
    assert list(read(Bucket(url))[2]) == [3]


def test_a_trainer_at_work_keeps_its_run_and_a_silent_one_loses_it(url, gate, monkeypatch):
    first, second = lease_of(url, 1.0), lease_of(url, 1.0)
    first.acquire()
    first.commit(1, SHA)
    real = time.sleep
    monkeypatch.setattr(lease_module.time, "time", lambda: 3600.0)  # no clock of a machine matters
    with monkeypatch.context() as patch:
        patch.setattr(lease_module.time, "sleep", lambda seconds: (first.confirm(), real(0.01)))
        with pytest.raises(RunError, match=rf"{url} is in use: process \d+ on .* is training there"):
            second.acquire()
    begin = time.monotonic()
    second.acquire()
    assert time.monotonic() - begin > 0.7 and second.commits == {1: SHA}
    for act in (lambda: first.commit(2, SHA), first.confirm, lambda: first.drop(1)):
        with pytest.raises(RunError, match="was taken over by process .* this trainer was silent for too long"):
            act()
    first.release()
    second.commit(3, SHA)
    second.release()
    assert read(Bucket(url))[1:] == (None, {1: SHA, 3: SHA})
    third = lease_of(url)
    begin = time.monotonic()
    third.acquire()  # at once: it was released
    assert time.monotonic() - begin < 5


def test_two_trainers_never_both_commit_however_late_a_request_comes(url, gate):
    """The first one's commit is under way when the second one takes over: it is refused by the server itself."""
    first, second, taken = lease_of(url, 0.1), lease_of(url), []
    first.acquire()

    def before(method, path, body):
        if method == "POST" and not taken:
            taken.append(path)
            second.acquire()
            second.commit(7, SHA)

    gate.before = before
    with pytest.raises(RunError, match="was taken over"):
        first.commit(5, SHA)
    assert taken and read(Bucket(url))[2] == {7: SHA}


def test_a_trainer_that_lost_its_run_stops_at_the_next_save_and_replaces_nothing(url, machine):
    first = open_storage(url, lock_seconds=1)
    with pytest.raises(RunError, match=f"{url} was taken over by process"), first:
        first.path.mkdir(parents=True, exist_ok=True)
        (first.path / "metrics.jsonl").write_text("first")
        save(first, 1)
        first._end.set()  # as if this machine stood still
        first._thread.join()
        machine("b")
        with open_storage(url, lock_seconds=1) as second:
            assert restored(second) == 1
            (second.path / "metrics.jsonl").write_text("second")
            save(second, 2)
            there = Bucket(url).list()
            machine("a")
            (first.path / "metrics.jsonl").write_text("first again")
            (first.path / "result.json").write_text("first")
            save(first, 2)
    assert Bucket(url).read("metrics.jsonl", limit=99) == b"second"
    after = Bucket(url).list()
    assert {name: after[name] for name in there if name != "trainer.json"} == {
        name: stat for name, stat in there.items() if name != "trainer.json"
    }


@pytest.mark.slow
def test_an_outage_ends_a_save_with_one_message_and_what_was_committed_is_safe(url, machine, gate, monkeypatch):
    monkeypatch.setattr("sem_jax.system.bucket.PATIENCE", 0.5)
    with (
        pytest.raises(Unreachable, match=f"{url}/.* cannot be reached: "),
        open_storage(url, lock_seconds=1) as storage,
    ):
        save(storage, 1)
        storage._bucket._patience = 0.5
        gate.rate, gate._rng.choice = 1.0, lambda kinds: "503"
        save(storage, 2)
    gate.rate = 0.0
    machine("b")
    with open_storage(url, lock_seconds=1) as storage:
        assert restored(storage) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"commits": 1}', b'{"format": 1, "commits": {"x": "y"}}', b'{"format": 9, "commits": {}}',
     b'{"format": 1, "commits": {}, "holder": {"seconds": "x"}}', b'{"format": 1, "commits": {}, "holder": 3}'],
)  # fmt: skip
def test_a_trainer_json_that_no_trainer_wrote_is_refused(content):
    class There:
        url = "gs://b/x"

        def read_with_generation(self, name, limit):
            return content, 1

    with pytest.raises(RunError, match=r"gs://b/x/trainer\.json is damaged"):
        read(There())


def test_a_manifest_that_names_files_outside_is_refused(url, machine):
    with open_storage(url) as storage:
        save(storage, 1)
    path = storage.path / "checkpoints/1/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../../../evil"] = {"bytes": 1, "sha256": SHA}
    from sem_jax.runs.manifest import _digest

    manifest["sha256"] = _digest({name: value for name, value in manifest.items() if name != "sha256"})
    content = json.dumps(manifest).encode()
    Bucket(url).write("checkpoints/1/manifest.json", content)
    Bucket(url).delete("trainer.json", Bucket(url).stat("trainer.json").generation)
    shutil.rmtree(storage.path)
    with pytest.raises(RunError, match="'../../../evil' is no name of a file"), open_storage(url):
        pass


def test_places():
    assert local_folder("runs/x").as_posix() == "runs/x"
    assert local_folder("gs://b-1/x/").name == "x" and local_folder("gs://b-1/x/") == local_folder("gs://b-1/x")
    assert local_folder("gs://b-1/x") != local_folder("gs://b-2/x")
    with pytest.raises(ConfigError, match="neither a local path nor gs://"):
        open_storage("s3://b/x")
    with pytest.raises(ConfigError, match="must be a folder in a bucket"):
        open_storage("gs://bucket")
