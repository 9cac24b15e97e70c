"""A stranger's run folder: scored as data or refused with a short message; nothing found in it is executed."""

import os
import shutil
import time
from pathlib import Path

import pytest

from sem_jax.errors import SemError
from sem_jax.runs.opening import Run, open_run
from tests.helpers.hostile_runs import HOSTILE_RUNS, call
from tests.helpers.watch import watch


@pytest.mark.parametrize("row", HOSTILE_RUNS, ids=lambda row: row.__name__)
def test_nothing_of_it_is_executed(row, run_dir, own_home, tmp_path):
    folder, canary = tmp_path / "run", tmp_path / "canary"
    shutil.copytree(run_dir, folder, ignore=shutil.ignore_patterns("predictions"))
    word = row(folder, canary)
    start = time.process_time()
    with watch(allowed=(own_home, Path(os.environ["SEM_JAX_TEST_CACHE"])), suspect=tmp_path) as seen:
        if word:
            with pytest.raises(SemError) as caught:
                call(row, folder)
        else:
            found = call(row, folder)
            assert not isinstance(found, Run) or found.fingerprint == open_run(run_dir).fingerprint
    assert seen == ([], []) and not canary.exists()
    assert time.process_time() - start < 5
    if word:
        said = str(caught.value)
        assert word in said and len(said.splitlines()) <= 3 and len(said) < 1000, said[:2000]
