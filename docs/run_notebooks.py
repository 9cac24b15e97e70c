"""Executes the notebooks and stores them with small outputs: `python docs/run_notebooks.py [name ...]`.

Each notebooks/NAME.py becomes notebooks/NAME.ipynb. Pictures get a palette of 64 colours and at most 900 pixels of
width, and what libraries print to standard error is left out. Needs the extra `notebook`.
"""

import base64
import io
import sys
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
COLOURS, WIDTH = 64, 900


def small(encoded: str) -> str:
    """The same PNG, base64 as in a notebook, with a palette."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=1).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def clean(notebook) -> None:
    """Keeps of the outputs what a reader looks at; times and counts of the execution go."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [it for it in cell.outputs if it.get("name") != "stderr"]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = small(data["image/png"])


def main(names: list[str]) -> None:
    import jupytext
    import nbclient
    import nbformat

    for name in names or sorted(path.stem for path in FOLDER.glob("*.py")):
        notebook = jupytext.read(FOLDER / f"{name}.py")
        nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(FOLDER)}}).execute()
        clean(notebook)
        notebook.metadata.pop("widgets", None)
        nbformat.validate(notebook)
        jupytext.write(notebook, FOLDER / f"{name}.ipynb", fmt="ipynb")
        print(f"{name}: {(FOLDER / f'{name}.ipynb').stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
