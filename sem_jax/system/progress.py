"""Progress bars, shown where somebody looks: on a terminal, or in a cell of a notebook."""

import importlib.util
import sys
from typing import Any, TextIO, cast

from tqdm import tqdm


def bar(iterable: Any = None, *, shown: bool = True, **options: Any) -> tqdm:
    """A bar of tqdm, which takes `iterable` and `options`.

    In a notebook it is a widget where ipywidgets is installed, and else a line of text. Where neither a terminal nor a
    notebook shows it, and with `shown=False`, it draws nothing.

    >>> [number for number in bar(range(3), shown=False)]
    [0, 1, 2]
    """
    if not (shown and in_notebook()):
        return tqdm(iterable, disable=None if shown and sys.stderr is not None else True, **options)
    if importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget(iterable, **options)
    return tqdm(iterable, file=cast(TextIO, _CellLine()), **options)


class _CellLine:
    """A file whose text is one output of a notebook's cell, replaced by what is written next.

    Of text with carriage returns, a notebook that is executed without a front end stores every state.
    """

    encoding = "utf-8"

    def __init__(self):
        self._shown: Any = None

    def write(self, text: str) -> None:
        """Shows a state of the bar; white space alone clears it, a newline leaves it as it is."""
        line = text.strip()
        if not line and (self._shown is None or "\n" in text):
            return
        from IPython.display import display

        if self._shown is None:
            self._shown = display({"text/plain": line}, raw=True, display_id=True)
        else:
            self._shown.update({"text/plain": line}, raw=True)

    def flush(self) -> None:
        """Nothing waits."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, as of Jupyter or Colab."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
