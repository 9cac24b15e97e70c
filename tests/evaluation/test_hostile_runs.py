"""A stranger's run folder: scored as data or refused with a short message; nothing found in it is executed."""

import importlib.util
import os
import shutil
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sem_jax.errors import SemError
from sem_jax.evaluation.prediction_cache import Cache
from sem_jax.runs.opening import Run, open_run
from sem_jax.runs.reading import without_current_folder
from tests.helpers.hostile_runs import HOSTILE_RUNS, call
from tests.helpers.hostile_shares import HOSTILE_SHARES, LYING
from tests.helpers.watch import most_memory, reset_most_memory, watch

SLOW = {f"shared_{what}{end}" for what in LYING for end in ("", "_as_a_start")}  # they take long together
ROWS = [
    pytest.param(row, marks=[pytest.mark.slow] * (row.__name__ in SLOW)) for row in [*HOSTILE_RUNS, *HOSTILE_SHARES]
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_nothing_of_it_is_executed(row, run_dir, own_home, tmp_path):
    folder, canary = tmp_path / "run", tmp_path / "canary"
    shutil.copytree(run_dir, folder, ignore=shutil.ignore_patterns("predictions"))
    word = row(folder, canary)
    start, memory = time.process_time(), reset_most_memory()
    with watch(allowed=(own_home, Path(os.environ["SEM_JAX_TEST_CACHE"])), suspect=tmp_path) as seen:
        if word:
            with pytest.raises(SemError) as caught:
                call(row, folder)
        else:
            found = call(row, folder)
            assert not isinstance(found, Run) or found.fingerprint == open_run(run_dir).fingerprint
    assert seen == ([], []) and not canary.exists()
    assert time.process_time() - start < 5
    assert most_memory() - memory < 500 << 20
    if word:
        said = str(caught.value)
        assert word in said and len(said.splitlines()) <= 3 and len(said) < 1000, said[:2000]


def _bomb(path):
    np.savez_compressed(path, index=np.zeros(1 << 24, np.uint8), logits=np.zeros(1 << 24, np.uint8))


def _lying(path):
    """An array header that claims a terabyte."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("index.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


def _link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _no_archive(path):
    path.unlink()
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize("damage", [_bomb, _lying, _link, _no_archive], ids=lambda it: it.__name__)
def test_predictions_of_a_stranger_are_read_within_bounds(damage, tmp_path):
    """They are computed again, and replace what was there."""
    made = {"logits": np.ones((2, 3), np.float32)}
    Cache(tmp_path, "checkpoint", "float32")("test", "images", lambda: made)
    (path,) = tmp_path.iterdir()
    damage(path)
    tracemalloc.start()
    found = Cache(tmp_path, "checkpoint", "float32")("test", "images", lambda: made)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
    np.testing.assert_array_equal(found["logits"], made["logits"])
    assert path.is_file() and not path.is_symlink()


def test_the_current_folder_is_no_place_for_modules_meanwhile(tmp_path, monkeypatch):
    (tmp_path / "module_of_a_stranger.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path, str(tmp_path)])
    before = list(sys.path)
    with without_current_folder():
        assert importlib.util.find_spec("module_of_a_stranger") is None
    assert sys.path == before and importlib.util.find_spec("module_of_a_stranger")
