"""What a corruption is made of: severities, tables of numbers made on the host, a random and a deterministic half.

Images are grey levels in [0, 255], float32 [h w c]; parameters are those of the original, whose images lie in [0, 1].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Added before a result is cut down to whole grey levels, so that a value that is whole but for a float32 rounding
# (99.99999) does not lose a level.
ROUNDING = 1e-4

Shape = tuple[int, int, int]  # of one image, (h, w, c)


def one_number(parameters: tuple, shape: Shape) -> np.float32:
    """Tables of a corruption that needs no more than its one parameter."""
    return np.float32(parameters[0])


def no_draw(key: Any, shape: Shape) -> tuple[()]:
    """The random half of a corruption without chance."""
    return ()


class Corruption(NamedTuple):
    """One corruption.

    severities: parameters of severity 1 to 5, a tuple each, in the order that the docstring of `tables` names.
    apply: (draw, image f32[h w c], tables) -> f32[h w c] in [0, 255], traced by JAX; with `on_host` it is
      (images u8[n h w c], parameters) -> u8[n h w c] in NumPy, for what no device can do, and the rest is not used.
    tables: (parameters, shape) -> arrays that depend on nothing else; made on the host, in float64 before they are
      stored. All severities have tables of the same shapes, so that they share one compiled function.
    draw: (key, shape) -> the random half for one image.
    """

    severities: tuple[tuple, ...]
    apply: Callable[..., Any]
    tables: Callable[..., Any] = one_number
    draw: Callable[..., Any] = no_draw
    on_host: bool = False


def of_one(*values: float) -> tuple[tuple, ...]:
    """The severity table of a corruption with one parameter."""
    return tuple((value,) for value in values)
