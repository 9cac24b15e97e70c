"""Progress bars, shown where somebody looks: on a terminal, or in a cell of a notebook."""

import importlib.util
import sys
from typing import Any

from tqdm import tqdm


def bar(iterable: Any = None, *, shown: bool = True, **options: Any) -> tqdm:
    """A bar of tqdm, which takes `iterable` and `options`.

    In a notebook it is a widget where ipywidgets is installed, and else text. Where neither a terminal nor a notebook
    shows it, and with `shown=False`, it draws nothing.

    >>> [number for number in bar(range(3), shown=False)]
    [0, 1, 2]
    """
    if not (shown and in_notebook()):
        return tqdm(iterable, disable=None if shown else True, **options)
    if importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget(iterable, **options)
    return tqdm(iterable, file=sys.stdout, **options)  # a cell shows standard error as an error


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, as of Jupyter or Colab."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
