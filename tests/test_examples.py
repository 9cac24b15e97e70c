"""The examples in docstrings run and show what they say, from the top of a file to its end."""

import doctest
import importlib
import re
import sys
from pathlib import Path

import pytest

import sem_jax

ROOT = Path(__file__).parent.parent
SOURCES = [path for path in sorted((ROOT / "sem_jax").rglob("*.py")) if re.search(r"^\s*>>> ", path.read_text(), re.M)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for examples that write files
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    runner, names = doctest.DocTestRunner(), {}
    for example in sorted(doctest.DocTestFinder(exclude_empty=True).find(module), key=lambda it: it.lineno or 0):
        names[example.name] = example.globs
        if (owner := example.name.rpartition(".")[0]) != module.__name__:  # a method goes on from its class
            example.globs.update(names.get(owner, {}))
        runner.run(example, clear_globs=False)
    assert runner.tries and not runner.failures


@pytest.mark.parametrize("name", sem_jax.__all__)
def test_every_name_of_the_face_has_one(name):
    """In its own docstring; a table in that of the module where it is offered."""
    offered = getattr(sem_jax, name)
    place = next(module for module, names in sem_jax._NAMES.items() if name in names)
    where = offered if callable(offered) else sys.modules[place]
    assert ">>>" in (where.__doc__ or ""), f"{name} of {place}"
