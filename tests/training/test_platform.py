"""What the test suite says of the machine it runs on is so: number of devices, packages that are not there."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

BLOCKED = tuple(filter(None, os.environ.get("SEM_JAX_TEST_BLOCK", "").split(",")))


def test_as_many_devices_as_asked_for():
    assert jax.device_count() == int(os.environ.get("SEM_JAX_TEST_DEVICES", "8"))


@pytest.mark.skipif(not BLOCKED, reason="SEM_JAX_TEST_BLOCK is not set")
@pytest.mark.parametrize("name", BLOCKED)
def test_blocked_packages_are_not_importable_here_nor_in_new_processes(name):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)
    done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True)
    assert done.returncode == 1 and "ModuleNotFoundError" in done.stderr


def test_the_blocker_blocks():
    """Also where nothing is blocked: a module that is surely there, in a process of its own."""
    env = os.environ | {
        "SEM_JAX_TEST_BLOCK": "colorsys",
        "PYTHONPATH": str(Path(__file__).parents[1] / "blocked"),
    }
    code = "import importlib, sys, this\ntry:\n import colorsys\nexcept ModuleNotFoundError: sys.exit(7)"
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True).returncode == 7
