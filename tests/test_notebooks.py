"""The notebooks: .py and .ipynb hold the same cells, with small outputs. `pytest --nbmake` executes them."""

import base64
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
LIMIT = 200_000  # bytes of a notebook with its outputs


def cells(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]


def outputs(name):
    return [output for cell in cells(name) for output in cell.get("outputs", ())]


def test_every_notebook_has_its_source():
    assert NAMES and sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_in_sync(name):
    jupytext = pytest.importorskip("jupytext")
    source, notebook = (jupytext.read(FOLDER / f"{name}.{ending}") for ending in ("py", "ipynb"))
    remedy = f"run: python docs/run_notebooks.py {name}"
    cells = [[(cell.cell_type, cell.source) for cell in it.cells] for it in (source, notebook)]
    assert cells[0] == cells[1], remedy
    badge = f"https://colab.research.google.com/github/sem-jax/sem_jax/blob/main/notebooks/{name}.ipynb"
    assert badge in notebook.cells[0].source


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_there_and_small(name):
    """They are those of one run from top to bottom; nothing in them is about the machine they were made on."""
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LIMIT
    counts = [cell["execution_count"] for cell in cells(name) if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output["output_type"] for output in outputs(name)}
    assert kinds and "error" not in kinds and not any(output.get("name") == "stderr" for output in outputs(name))
    for output in outputs(name):
        for kind, value in output.get("data", {}).items():
            if kind == "image/png":
                header = base64.b64decode(value)[:26]
                assert header[25] == 3, "a palette"  # the colour type in a PNG's header
        text = "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", ""))
        assert not re.search(r"(/root|/home|/tmp|/work|/Users|[A-Z]:\\)", text), text
