"""Tiny data sets, made as the tests need them, and a home folder of their own."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.data_sets import made_cifar10


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """No test reads or writes the cache or the data sets of whoever runs it."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SEM_JAX_CACHE", str(home / "cache"))
    for name in ("TFDS_DATA_DIR", "SEM_JAX_MIRROR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def real_data():
    """Folder of real data sets ($SEM_JAX_TEST_DATA); the test is skipped without it."""
    folder = os.environ.get("SEM_JAX_TEST_DATA", "")
    if not folder:
        pytest.skip("SEM_JAX_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A prepared CIFAR-10 of 40 + 10 images, made once; tests change copies of it."""
    return made_cifar10(tmp_path_factory.mktemp("made"))


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "sets")
    return tmp_path / "sets"
