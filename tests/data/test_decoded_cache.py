"""The cache of decoded arrays: used, checked, made anew when its source changes, and never needed."""

import os

import numpy as np
import pytest
from PIL import Image

from sem_jax.data import Reading, load
from sem_jax.data import decoded_cache as cache
from sem_jax.errors import ConfigError
from tests.helpers.data_sets import write_arrays, write_tree


def test_cache_is_used_and_checked(tmp_path, monkeypatch, caplog):
    root = write_tree(tmp_path / "photos")
    first = load("image_folder", data_dir=str(root))
    entries = sorted((cache.cache_dir() / "decoded").iterdir())
    assert len(entries) == 2

    with monkeypatch.context() as patch:
        patch.setattr("sem_jax.data.image_folder.read_tree", lambda *a, **k: pytest.fail("decoded again"))
        assert load("image_folder", data_dir=str(root)).fingerprint == first.fingerprint

    for damage in ("flip", "truncate", "index", "gone"):
        entry = next(e for e in (cache.cache_dir() / "decoded").iterdir() if "train" in e.name)
        target = entry / ("index.json" if damage == "index" else "images.npy")
        data = bytearray(target.read_bytes())
        data[-1] ^= 1
        if damage == "gone":
            target.unlink()
        else:
            target.write_bytes({"flip": data, "truncate": data[:-7], "index": b"{}"}[damage])
        caplog.clear()
        assert load("image_folder", data_dir=str(root)).fingerprint == first.fingerprint
        assert "damaged" in caplog.text


def test_cache_follows_the_source(tmp_path):
    root = write_tree(tmp_path / "photos")
    first = load("image_folder", data_dir=str(root))
    (root / "train" / "cat" / "1.png").write_bytes((root / "train" / "dog" / "1.png").read_bytes())
    second = load("image_folder", data_dir=str(root))
    assert second.fingerprint != first.fingerprint
    assert len(list((cache.cache_dir() / "decoded").iterdir())) == 2  # the older entries were replaced
    assert load("image_folder", data_dir=str(root), image_size=4).splits["train"].images.shape[1:] == (4, 4, 3)


def test_unwritable_cache_is_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "file"))
    root = write_tree(tmp_path / "photos")
    assert len(load("image_folder", data_dir=str(root)).splits["train"].labels) == 6
    assert "cannot write" in caplog.text


def test_no_cache_writes_nothing(tmp_path):
    load("image_folder", data_dir=str(write_tree(tmp_path / "photos")), reading=Reading(cache=False))
    load("arrays", data_dir=str(write_arrays(tmp_path / "arrays")))
    assert not cache.cache_dir().exists()


def test_a_file_replaced_by_one_of_equal_size_and_time_is_noticed(tmp_path):
    root = write_tree(tmp_path / "photos")
    first, path = load("image_folder", data_dir=str(root)), root / "train/cat/1.png"
    status, content = path.stat(), path.read_bytes()
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert len(content) == path.stat().st_size  # random pixels do not shrink
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load("image_folder", data_dir=str(root)).fingerprint != first.fingerprint


def test_what_a_killed_process_left_is_swept_but_not_what_another_is_writing(tmp_path):
    entry = tmp_path / "decoded" / "x"
    left, busy = (entry.with_name(f".incomplete-{name}") for name in ("left", "busy"))
    for folder in (left, busy):
        folder.mkdir(parents=True)
        (folder / "images.npy").write_bytes(b"half")
    with cache._locked(busy) as mine:
        assert mine
        cache.kept(entry, ["a"], lambda: {"a": np.zeros(3)})
        assert busy.exists() and not left.exists()
    cache.kept(entry, ["a"], lambda: pytest.fail("made again"))
    assert [path.name for path in entry.parent.iterdir()] == ["x"]


def test_damage_is_said_once(tmp_path, caplog):
    root = write_tree(tmp_path / "photos")
    load("image_folder", data_dir=str(root))
    for path in (cache.cache_dir() / "decoded").glob("image_folder-train-*"):
        (path / "labels.npy").write_bytes(b"")
    load("image_folder", data_dir=str(root))
    load("image_folder", data_dir=str(root))
    assert caplog.text.count("damaged") == 1


def test_without_a_home_folder_one_line_says_what_to_set(monkeypatch):
    for name in ("HOME", "SEM_JAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])  # nobody of this number, as in some containers
    with pytest.raises(ConfigError, match="no home folder for the cache\nSet SEM_JAX_CACHE"):
        cache.cache_dir()
