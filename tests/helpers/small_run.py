"""One small run for the tests of evaluation and of runs; no test touches anybody's cache."""

import pytest

from tests.helpers.runs import write_cifar10, write_run


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("SEM_JAX_CACHE", str(home / "cache"))
        patch.delenv("TFDS_DATA_DIR", raising=False)
        yield home


@pytest.fixture(scope="session")
def place(tmp_path_factory, own_home):
    """Folder of data sets: cifar10 alone."""
    folder = tmp_path_factory.mktemp("place")
    write_cifar10(folder)
    return folder


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory, place):
    """A run with val; treat it as read-only but for its predictions."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    write_run(folder, place)
    return folder
