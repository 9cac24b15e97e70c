"""The persistent compilation cache: on by default, quiet, and no worse off for a damaged file."""

import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import jax
import pytest

from sem_jax.system import compile_cache as compiled

ROOT = Path(__file__).parents[2]
PROGRAM = """
import jax
from jax import monitoring
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
from sem_jax.system.compile_cache import use_cache
use_cache("")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(float(jax.jit(lambda x: (x * 3).sum())(jax.numpy.arange(5.0))), len(hits))
"""


@pytest.fixture
def settings():
    """Puts the suite's own cache back."""
    names = ["jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"]
    before = {name: jax.config.values[name] for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def run(home):
    env = os.environ | {"SEM_JAX_CACHE": str(home), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not done.stderr, done.stderr
    value, hits = done.stdout.split()
    assert float(value) == 30.0
    return int(hits)


def test_a_second_process_compiles_nothing_and_a_damaged_entry_is_made_anew(tmp_path):
    assert run(tmp_path) == 0
    entries = sorted((tmp_path / "compiled").glob("*-cache"))
    assert run(tmp_path) == len(entries) > 0
    whole, status = entries[0].read_bytes(), entries[0].stat()
    # As a killed run leaves it; contents that are no program; each as if it had lain there for long.
    for damaged in (whole[:-20], b"", zlib.compress(b"\0\0\0\1 no program")):
        entries[0].write_bytes(damaged)
        os.utime(entries[0], (status.st_mtime - 1e6,) * 2)
        assert run(tmp_path) == len(entries) - 1
        assert run(tmp_path) == len(entries)  # not met again


def test_the_oldest_entries_make_room(tmp_path, monkeypatch, settings):
    for i in range(3):
        path = tmp_path / f"{i}-cache"
        path.write_bytes(zlib.compress(bytes(range(10))))
        os.utime(path, (time.time() - 100 * (3 - i),) * 2)
    monkeypatch.setattr(compiled, "LIMIT", int(2.5 * path.stat().st_size))
    assert compiled.use_cache(str(tmp_path)) == tmp_path
    assert sorted(p.name for p in tmp_path.glob("*-cache")) == ["1-cache", "2-cache"]


def test_none_switches_it_off_and_an_impossible_folder_costs_a_warning(tmp_path, caplog, settings):
    assert compiled.use_cache("none") is None
    assert jax.config.values["jax_compilation_cache_dir"] is None
    (tmp_path / "file").write_text("")
    assert compiled.use_cache(str(tmp_path / "file")) is None
    assert "file" in caplog.text
