"""Hostile files: refused with a short message; no code of theirs runs and nothing is written beside them."""

import resource
import tarfile
import time

import pytest

from sem_jax.data import files
from sem_jax.errors import DataError
from tests.helpers.data_sets import check_message, small_cifar10
from tests.helpers.hostile_files import HOSTILE, tar_symlink
from tests.helpers.watch import watch

MEMORY = 512 << 20  # bytes a refusal may take beyond what the process had


def tree(folder):
    return {str(p) for p in folder.rglob("*")}


@pytest.mark.parametrize("row", HOSTILE, ids=lambda row: row.__name__)
def test_refused_without_harm(row, tmp_path, own_home, made, monkeypatch):
    small_cifar10(monkeypatch)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    monkeypatch.chdir(tmp_path)
    root, canary = tmp_path / "target", tmp_path / "canary"
    call, word = row(root, canary)
    before, start = tree(tmp_path), time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with watch(allowed=(own_home,), suspect=tmp_path) as seen, pytest.raises(DataError) as caught:
        call()
    check_message(caught.value, word)
    assert seen == ([], [])
    assert not canary.exists() and tree(tmp_path) - before <= tree(own_home) | {str(own_home)}
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEMORY >> 10  # KiB


def test_the_witness_can_see(tmp_path):
    """The payloads work and the watch notices them: else the tests above would prove nothing."""
    import os
    import pickle

    from tests.helpers.hostile_files import Payload

    canary, inside = tmp_path / "canary", tmp_path / "target"
    inside.mkdir()
    (inside / "evil.py").write_text("x = 1\n")
    with watch(allowed=(inside,), suspect=inside) as seen:
        pickle.loads(pickle.dumps(Payload(canary)))
        exec(compile((inside / "evil.py").read_text(), str(inside / "evil.py"), "exec"), {})
        (inside / "fine").write_text("x")
        (tmp_path / "outside").write_text("x")
        os.symlink("/", tmp_path / "link")
    assert canary.exists()
    assert [event.split()[0] for event in seen.executed] == ["pickle.find_class", "os.system", "exec"]
    assert seen.written == [str(tmp_path / "outside"), str(tmp_path / "link")]


def test_a_tar_of_countless_members(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "COUNT_LIMIT", 100)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        for number in range(101):
            tar.addfile(tarfile.TarInfo(f"{number}.bin"))
    with pytest.raises(DataError) as caught:
        files.open_files(tmp_path / "x.tar.gz")
    check_message(caught.value, "x.tar.gz", "more than 100 members")


def test_a_zip_that_unpacks_to_a_hundred_times_its_size(tmp_path, monkeypatch):
    import zipfile

    monkeypatch.setattr(files, "TOTAL_LIMIT", 1_000_000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"a/{number}.png", bytes(500_000))
    with pytest.raises(DataError) as caught:
        files.open_files(tmp_path / "x.zip")
    check_message(caught.value, "x.zip", "100 times")


def test_the_remedy_of_a_tar_is_said_once(tmp_path, monkeypatch):
    small_cifar10(monkeypatch)
    call, _ = tar_symlink(tmp_path / "d", tmp_path / "canary")
    with pytest.raises(DataError) as caught:
        call()
    assert str(caught.value).count(files.REMEDY) == 1


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_packing_of_a_tar_is_read(tmp_path, mode):
    import io

    with tarfile.open(tmp_path / "x.tar", mode) as tar:
        for name, size in (("a/" + "long" * 40, 3_000_000), ("b", 0), ("c", 513)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes([len(name)]) * size))
    view = files.open_files(tmp_path / "x.tar")
    assert [(name[:2], len(view.read(name))) for name in view.names] == [("a/", 3_000_000), ("b", 0), ("c", 513)]
