"""The notebooks are generated: .py and .ipynb hold the same cells. They are executed by `pytest --nbmake notebooks`."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def test_every_notebook_has_its_source():
    assert NAMES and sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_in_sync(name):
    jupytext = pytest.importorskip("jupytext")
    source, notebook = (jupytext.read(FOLDER / f"{name}.{ending}") for ending in ("py", "ipynb"))
    remedy = f"run: jupytext --to ipynb notebooks/{name}.py"
    cells = [[(cell.cell_type, cell.source) for cell in it.cells] for it in (source, notebook)]
    assert cells[0] == cells[1], remedy
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    badge = f"https://colab.research.google.com/github/sem-jax/sem_jax/blob/main/notebooks/{name}.ipynb"
    assert badge in notebook.cells[0].source
