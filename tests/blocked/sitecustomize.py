"""Makes the packages named in $SEM_JAX_TEST_BLOCK impossible to import, as if they were not installed.

    SEM_JAX_TEST_BLOCK=tensorflow,torch python -m pytest

tests/conftest.py loads this in the tests' own process and puts its folder on $PYTHONPATH, where Python itself loads it
in the processes that tests start.
"""

import os
import sys
from importlib.machinery import PathFinder

BLOCKED = tuple(filter(None, os.environ.get("SEM_JAX_TEST_BLOCK", "").split(",")))


class Blocker(PathFinder):
    """Finds what is installed, except the blocked packages: importlib.util.find_spec gives None for them."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else super().find_spec(name, path, target)


if BLOCKED:
    sys.meta_path[:] = [Blocker if finder is PathFinder else finder for finder in sys.meta_path]
