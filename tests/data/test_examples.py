"""The examples in the docstrings of the package's modules run and show what they say."""

import doctest
import importlib
import pkgutil

import pytest

import sem_jax.data

MODULES = ["sem_jax.data", *(f"sem_jax.data.{it.name}" for it in pkgutil.iter_modules(sem_jax.data.__path__))]
SHOWN = {"", ".loading", ".decoded_cache", ".encoded_feed", ".digits"}  # these have examples, which must not get lost


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples(name):
    failed, count = doctest.testmod(importlib.import_module(name))
    assert not failed and (count or name.removeprefix("sem_jax.data") not in SHOWN)
