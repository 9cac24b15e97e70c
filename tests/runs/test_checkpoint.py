"""Checkpoints: what comes back is what was saved, or the newest undamaged one, and then it is said."""

import errno
import gc
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import RunError
from sem_jax.runs import checkpoint, manifest
from sem_jax.runs.checkpoint import Checkpoints, load_model, steps
from sem_jax.runs.folders import holding
from sem_jax.runs.layout import items_of

FIXTURES = Path(__file__).parents[1] / "fixtures"


def state(seed):
    rng = np.random.default_rng(seed)
    a, b = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((16, 8), (8,)))
    return checkpoint.TrainState(jnp.asarray(seed, jnp.int32), {"a": a, "b": b}, {"mean": b * 2}, (a * 3, b * 4))


def save(folder, *numbers, keep=9, best=None, **scores):
    with Checkpoints(folder, keep=keep, best=best) as checkpoints:
        for number in numbers:
            metrics = {"val_accuracy": scores["val_accuracy"][number]} if scores else None
            checkpoints.save(number, state(number), {"number": number}, metrics)
    return folder


def restore(folder):
    with Checkpoints(folder, keep=9, best=None) as checkpoints:
        restored = checkpoints.restore(state(0))
    if restored is None:
        return None
    step = int(restored.state.step)
    jax.tree.map(np.testing.assert_array_equal, restored.state, state(step))
    assert restored.progress == {"number": step}
    return step


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("saved"), 10, 20)


def test_what_comes_back_is_what_was_saved(saved):
    assert steps(saved) == [10, 20] and restore(saved) == 20
    model = load_model(saved, 10, {"params": state(0).params, "batch_stats": state(0).batch_stats})
    jax.tree.map(np.testing.assert_array_equal, model["params"], state(10).params)
    about = manifest.read_verified(saved / "20")
    assert about["format"] == manifest.FORMAT and about["step"] == 20
    there = {p.relative_to(saved / "20").as_posix() for p in (saved / "20").rglob("*") if p.is_file()}
    assert there == set(about["files"]) | {manifest.NAME}


@pytest.mark.parametrize("kind", ["deleted", "emptied", "cut", "flipped"])
def test_any_damaged_file_of_the_latest_is_noticed(saved, tmp_path, kind, rng, capsys):
    """Each file in turn: never another value, the one before is used, and what is saved next is really there."""
    names = [p.relative_to(saved) for p in sorted((saved / "20").rglob("*")) if p.is_file()]
    assert len(names) > 10
    for name in names:
        data = (saved / name).read_bytes()
        at = rng.integers(max(len(data), 1))
        damaged = {
            "emptied": b"",
            "cut": data[: len(data) // 2],
            "flipped": data[:at] + bytes([data[at] ^ 1 << rng.integers(8)]) + data[at + 1 :] if data else b"x",
        }
        if kind != "deleted" and damaged[kind] == data:
            continue  # an empty file emptied
        copy = tmp_path / "copy"
        shutil.copytree(saved, copy)
        if kind == "deleted":
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(damaged[kind])
        with Checkpoints(copy, keep=9, best=None) as checkpoints:
            # What is chosen is verified; restoring it each time would only cost time.
            assert checkpoints._choose(items_of(state(0))) == 10, name
            assert "Checkpoint 20 is damaged" in capsys.readouterr().out
            checkpoints._latest = 10
        assert steps(copy) == [10] and (copy / "damaged/20").is_dir()
        if name == names[0]:
            assert restore(save(copy, 20)) == 20
        shutil.rmtree(copy)


def test_a_whitespace_in_the_manifest_is_no_damage_and_a_changed_value_is(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    path = tmp_path / "copy/20/manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values))
    assert restore(tmp_path / "copy") == 20
    path.write_text(json.dumps(values | {"progress": {"number": 21}}))
    assert restore(tmp_path / "copy") == 10


def test_all_damaged_stops_instead_of_starting_again(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    for step in (10, 20):
        (tmp_path / f"copy/{step}/model/manifest.ocdbt").write_bytes(b"")
    with pytest.raises(RunError, match="All 2 checkpoints in .* are damaged") as caught:
        restore(tmp_path / "copy")
    assert len(str(caught.value).splitlines()) <= 3 and steps(tmp_path / "copy") == [10, 20]


def test_an_evaluation_refuses_a_damaged_one(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    path = next((tmp_path / "copy/20/model/d").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(RunError, match="is damaged: model/d"):
        load_model(tmp_path / "copy", 20, {"params": state(0).params, "batch_stats": state(0).batch_stats})


def test_strays_are_no_checkpoints(saved, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    for name in ("99", "007", "notes", ".saving-30", ".deleting-5/model", "30.orbax-checkpoint-tmp"):
        (copy / name).mkdir(parents=True)
    (copy / "40").write_text("a file")
    (copy / "20/notes.txt").write_text("beside")
    assert restore(copy) == 20
    assert "Checkpoint 99 is damaged (no manifest.json)" in capsys.readouterr().out
    assert not (copy / ".saving-30").exists() and not (copy / ".deleting-5").exists()
    assert restore(save(copy, 30)) == 30


def test_only_the_latest_and_the_best_are_kept_and_nan_is_never_the_best(tmp_path):
    scores = {1: 0.5, 2: float("nan"), 3: 0.9, 4: 0.9, 5: float("inf"), 6: 0.1, 7: 0.2}
    folder = save(tmp_path, *scores, keep=2, best="val_accuracy", val_accuracy=scores)
    assert steps(folder) == [4, 6, 7] and restore(folder) == 7
    assert sorted(p.name for p in folder.iterdir()) == ["4", "6", "7"]


def test_named_steps_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=1, best=None, steps=(2,)) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, state(step), {})
    assert steps(tmp_path) == [2, 4]


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    bad = state(2)._replace(batch_stats={"mean": jnp.array([1.0, jnp.nan])})
    with Checkpoints(tmp_path, keep=1, best=None) as checkpoints:
        checkpoints.save(1, state(1), {"number": 1})
        with pytest.raises(RunError, match=r"step 2 is not finite .*batch_stats\['mean'\]"):
            checkpoints.save(2, bad, {})
    assert restore(tmp_path) == 1


def test_a_newer_format_is_refused_and_not_taken_for_damage(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    path = tmp_path / "copy/20/manifest.json"
    body = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"} | {"format": 2}
    path.write_text(json.dumps(body | {"sha256": manifest._digest(body)}))
    with pytest.raises(RunError, match="has checkpoint format 2, this version knows formats up to 1"):
        restore(tmp_path / "copy")
    assert steps(tmp_path / "copy") == [10, 20]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    with Checkpoints(tmp_path, keep=1, best=None, about={"data": "a" * 64, "seed": 0}) as checkpoints:
        checkpoints.save(1, state(1), {})
    with Checkpoints(tmp_path, keep=1, best=None, about={"data": "b" * 64, "seed": 0}) as checkpoints:
        with pytest.raises(RunError, match="of another run: data aaaaaaaaaaaa there, bbbbbbbbbbbb in this run"):
            checkpoints.restore(state(0))


def test_a_checkpoint_is_not_deleted_while_it_is_read(tmp_path):
    """Else orbax's threads would print what they think of it, and the reader would have to begin again."""
    save(tmp_path, 1, 2)
    with holding(tmp_path / "1"):
        save(tmp_path, 3, keep=1)
        assert steps(tmp_path) == [1, 3]
    save(tmp_path, 4, keep=1)
    assert steps(tmp_path) == [4] and [p.name for p in tmp_path.iterdir()] == ["4"]
    with holding(tmp_path / "1") as free:  # it is gone
        assert free


def test_files_and_links_where_folders_are_expected_end_no_run(saved, tmp_path):
    folder, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(saved, folder)
    other.mkdir()
    (other / "kept").write_text("")
    for name in (".saving-5", "damaged", "30"):
        (folder / name).write_text("")
    for name in (".deleting-5", ".saving-6", "damaged-1"):
        (folder / name).symlink_to(other)
    (folder / "20/manifest.json").write_text("")
    assert restore(folder) == 10
    assert restore(save(folder, 30)) == 30
    assert sorted(p.name for p in folder.iterdir()) == ["10", "30", "damaged", "damaged-1", "damaged-2"]
    assert sorted(p.name for p in (folder / "damaged-2").iterdir()) == ["20", "30"]
    assert [p.name for p in other.iterdir()] == ["kept"]


def test_a_model_of_another_shape_is_refused(saved):
    wide, half = jnp.zeros((16, 9)), jnp.zeros((16, 8), jnp.bfloat16)
    for a, text in ((wide, r"float32\[16,9\]"), (half, r"bfloat16\[16,8\]")):
        other = state(0)._replace(params={"a": a, "b": jnp.zeros(8)})
        message = rf"another model: \['model'\]\['params'\]\['a'\] is float32\[16,8\], expected {text}"
        with Checkpoints(saved, keep=9, best=None) as checkpoints, pytest.raises(RunError, match=message):
            checkpoints.restore(other)
        with pytest.raises(RunError, match=message):
            load_model(saved, 20, {"params": other.params, "batch_stats": other.batch_stats})


# orbax leaves threads and futures behind that fail by themselves.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_leaves_the_checkpoints_before_it(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        folder = disk / "checkpoints"
        save(folder, 1)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        with pytest.raises(RunError, match="Checkpoint .*/2 cannot be written: ") as caught:
            save(folder, 2)
        assert len(str(caught.value).splitlines()) <= 3
        assert restore(folder) == 1 and not list(folder.glob(".saving*"))
        filler.unlink()
        assert restore(save(folder, 2)) == 2
        gc.collect()  # what orbax left, while its warnings are ignored
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_save_that_fails_leaves_the_checkpoints_before_it(tmp_path, monkeypatch):
    """The same where no tmpfs can be mounted: the manifest finds no room."""
    save(tmp_path, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_manifest", full)
        with pytest.raises(RunError, match="cannot be written: No space left on device"):
            save(tmp_path, 2)
    assert steps(tmp_path) == [1] and not list(tmp_path.glob(".saving*"))
    assert restore(save(tmp_path, 2)) == 2


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.ESTALE], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["manifest.json", "_METADATA"])
def test_what_cannot_be_read_at_present_is_not_damaged(saved, tmp_path, monkeypatch, code, name):
    """It is neither moved away nor passed over for an older one."""
    folder = shutil.copytree(saved, tmp_path / "copy")

    def refusing(there):
        def opened(path, *more, **options):
            if str(path).endswith(f"20/{name}") or str(path).endswith(f"20/model/{name}"):
                raise OSError(code, os.strerror(code), str(path))
            return there(path, *more, **options)

        return opened

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing(os.open))
        patch.setattr(manifest, "open", refusing(open), raising=False)
        for call in (
            lambda: restore(folder),
            lambda: load_model(folder, 20, {"params": state(0).params, "batch_stats": state(0).batch_stats}),
        ):
            with pytest.raises(RunError, match=rf"20 cannot be read: {os.strerror(code)} \(.*{name}\)\.\nIt may well"):
                call()
    assert not (folder / "damaged").exists() and restore(folder) == 20


def test_a_file_that_cannot_be_looked_at_is_not_damaged(saved, tmp_path, monkeypatch):
    folder, lstat = shutil.copytree(saved, tmp_path / "copy"), Path.lstat

    def refused(self):
        if self.parent.name == "model":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return lstat(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", refused)
        with pytest.raises(RunError, match="Permission denied"):
            restore(folder)
    assert restore(folder) == 20


def test_what_cannot_be_deleted_ends_no_run(tmp_path, monkeypatch):
    """Folders that are read-only are not even renamed; what is left of a deletion is no hindrance later."""
    access, rmtree = os.access, shutil.rmtree

    def deleting(path, *more, **options):
        if Path(path).name == ".deleting-20":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        rmtree(path, *more, **options)

    monkeypatch.setattr(os, "access", lambda path, mode: "10/model" not in str(path) and access(path, mode))
    monkeypatch.setattr(shutil, "rmtree", deleting)
    save(tmp_path, 10, 20, 30, 40, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {"10", ".deleting-20", "40"}
    assert restore(tmp_path) == 40


def test_a_folder_that_cannot_be_looked_into_is_one_message(tmp_path):
    with pytest.raises(RunError, match="cannot be read: File name too long"):
        steps(tmp_path / ("x" * 300) / "checkpoints")


def test_a_clock_that_jumps_back_changes_nothing(tmp_path, monkeypatch):
    import time

    now = time.time
    save(tmp_path, 1, 2)
    monkeypatch.setattr(time, "time", lambda: now() - 3e8)
    save(tmp_path, 3, keep=2)
    for path in (tmp_path / "3").rglob("*"):
        os.utime(path, (0, 0))
    assert steps(tmp_path) == [2, 3] and restore(tmp_path) == 3


@pytest.mark.parametrize("version", range(1, manifest.FORMAT + 1))
def test_every_format_ever_released_still_loads(version, tmp_path):
    """A run folder written by the first release with that format: scored as it was then, and trained on."""
    from sem_jax.evaluation.run_data import load_splits
    from sem_jax.runs.opening import open_run
    from sem_jax.runs.predict import make_predictor
    from sem_jax.training import assemble

    with zipfile.ZipFile(FIXTURES / f"format{version}.zip") as archive:
        archive.extractall(tmp_path)
    run = open_run(tmp_path / "run")
    dataset = load_splits(run).splits["test"]
    _, logits = make_predictor(run).outputs(dataset.images)
    accuracy = np.mean(np.argmax(logits, axis=-1) == dataset.labels)
    result = json.loads((tmp_path / "run/result.json").read_text())
    np.testing.assert_allclose(accuracy, result["test_accuracy"], atol=0.01)
    tx = assemble.optimizer(run.config, lambda step: 0.1)
    params = jax.tree.map(jnp.zeros_like, run.variables["params"])
    like = checkpoint.TrainState(jnp.zeros((), jnp.int32), params, run.variables["batch_stats"], tx.init(params))
    with Checkpoints(tmp_path / "run/checkpoints", keep=1, best=None) as checkpoints:
        restored = checkpoints.restore(like)
    assert int(restored.state.step) == result["steps"]
    jax.tree.map(np.testing.assert_array_equal, restored.state.params, run.variables["params"])
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(restored.state.opt_state))


def test_there_is_a_fixture_of_every_format():
    for version in range(1, manifest.FORMAT + 1):
        assert 0 < (FIXTURES / f"format{version}.zip").stat().st_size < 60_000
