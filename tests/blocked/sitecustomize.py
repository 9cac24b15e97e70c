"""Makes the packages named in $SEM_JAX_TEST_BLOCK impossible to import, as if they were not installed.

    SEM_JAX_TEST_BLOCK=tensorflow,torch python -m pytest

tests/conftest.py loads this in the tests' own process and puts its folder on $PYTHONPATH, where Python itself loads it
in the processes that tests start.
"""

import os
import sys


class Blocker:
    """A finder that is asked before all others."""

    def __init__(self, names):
        self.names = frozenset(names)

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} (SEM_JAX_TEST_BLOCK)", name=name)


BLOCKED = tuple(filter(None, os.environ.get("SEM_JAX_TEST_BLOCK", "").split(",")))
if BLOCKED and not any(type(finder).__name__ == "Blocker" for finder in sys.meta_path):
    sys.meta_path.insert(0, Blocker(BLOCKED))
