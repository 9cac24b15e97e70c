"""Settings of the whole test suite: a small CPU platform, no silent rank promotion, warnings are errors.

Tests that want real data look below the folder in $SEM_JAX_TEST_DATA and are skipped where it is not set.
$SEM_JAX_TEST_DEVICES is the number of virtual devices (default 8; tests that need more are skipped), and the packages
in $SEM_JAX_TEST_BLOCK (tensorflow,torch) cannot be imported, here and in the processes that tests start.
"""

import gc
import os
import runpy
import shutil
import tempfile
from pathlib import Path

if os.environ.get("SEM_JAX_TEST_BLOCK"):
    folder = Path(__file__).parent / "blocked"
    runpy.run_path(str(folder / "sitecustomize.py"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))

# Before jax is imported anywhere: eight virtual devices, of which a test uses as many as it asks for.
DEVICES = int(os.environ.get("SEM_JAX_TEST_DEVICES", "8"))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Most of a test's time is compilation of a net that runs once or twice: numbers stay, LLVM's effort goes.
jax.config.update("jax_disable_most_optimizations", True)
# Many tests start the same run again; its programs are compiled once and shared, between worker processes too.
CACHE = os.environ.setdefault("SEM_JAX_TEST_CACHE", tempfile.mkdtemp(prefix="sem_jax_tests_"))
jax.config.update("jax_compilation_cache_dir", CACHE)
os.environ["SEM_JAX_CACHE"] = os.path.join(CACHE, "sem_jax")  # of the programs that tests start
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# Tracing makes millions of small objects: collecting as often as by default takes a tenth of all tests' time.
gc.set_threshold(200_000, 50, 50)


LINES = (Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").splitlines()
SLOW = tuple(line for line in LINES if line[:1] not in ("#", ""))
COLLECTED = pytest.StashKey[tuple[str, ...]]()  # names of all tests that were found, for test_slow_list.py


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config, items):
    config.stash[COLLECTED] = tuple(item.nodeid for item in items)
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if (needed := item.get_closest_marker("devices")) and needed.args[0] > DEVICES:
            item.add_marker(pytest.mark.skip(reason=f"needs {needed.args[0]} devices, there are {DEVICES}"))


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):  # the controlling process, or the only one
        shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def bucket_server():
    """URL of a server of buckets with the bucket gs://sem-jax-test, which STORAGE_EMULATOR_HOST names."""
    from tests.helpers import bucket_server as helper

    with helper.server() as url:
        helper.make_bucket(url, "sem-jax-test")
        yield url


@pytest.fixture
def gate(bucket_server, monkeypatch):
    """A gate before that server, which makes faults; STORAGE_EMULATOR_HOST names the gate."""
    from tests.helpers.bucket_server import Gate

    with Gate(bucket_server) as gate:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gate.url)
        yield gate
