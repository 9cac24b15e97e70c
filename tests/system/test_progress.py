"""Progress bars: where they are shown, and what a notebook stores of one."""

import importlib.util
import sys
import types

import pytest
from tqdm import tqdm

from sem_jax.system.progress import bar


@pytest.fixture
def cell(monkeypatch):
    """The outputs of a notebook's cell, in a kernel without ipywidgets."""
    outputs = []

    class Shown:
        def __init__(self, data):
            self.place = len(outputs)
            outputs.append(data["text/plain"])

        def update(self, data, raw):
            outputs[self.place] = data["text/plain"]

    shell = types.SimpleNamespace(kernel=object())
    shown = types.SimpleNamespace(display=lambda data, raw, display_id: Shown(data))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, display=shown))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ipywidgets" else find(name))
    return outputs


def test_a_bar_is_one_output_of_a_cell_and_lines_do_not_repeat_it(cell, capsys):
    with bar(total=300, unit="step", mininterval=0) as shown:
        for epoch in range(3):
            shown.update(100)
            tqdm.write(f"epoch {epoch}")
    assert len(cell) == 1 and cell[0].startswith("100%") and "300/300" in cell[0]
    said = capsys.readouterr()
    assert said.out == "epoch 0\nepoch 1\nepoch 2\n" and not said.err


def test_a_bar_that_does_not_stay_is_cleared(cell):
    assert list(bar(range(5), leave=False, mininterval=0)) == list(range(5)) and cell == [""]


def test_a_file_gets_none(capsys):
    list(bar(range(5)))
    assert capsys.readouterr() == ("", "")
