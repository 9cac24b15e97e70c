"""The parts of a corruption: severities, tables of numbers, a random half and a deterministic half.

Images are grey levels in [0, 255], f32[h w c]; parameters are those of the original, for images in [0, 1].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Added before a result is cut to whole grey levels, so that rounding of float32 (99.99999) does not lose a level.
ROUNDING = 1e-4

Shape = tuple[int, int, int]  # of one image, (h, w, c)


def one_number(parameters: tuple, shape: Shape) -> np.float32:
    """Tables of a corruption that needs only its one parameter."""
    return np.float32(parameters[0])


def no_draw(key: Any, shape: Shape) -> tuple[()]:
    """The random half of a corruption that is not random."""
    return ()


class Corruption(NamedTuple):
    """One corruption.

    severities: parameters of severity 1 to 5, a tuple each.
    apply: (draw, image f32[h w c], tables) -> f32[h w c] in [0, 255], traced by JAX. With `on_host` it is
      (images u8[n h w c], parameters) -> u8[n h w c] in NumPy, and `tables` and `draw` are not used.
    tables: (parameters, shape) -> arrays, computed on the host in float64 and stored in float32. They have the same
      shapes for all severities, which share one compiled function.
    draw: (key, shape) -> the random numbers of one image.
    """

    severities: tuple[tuple, ...]
    apply: Callable[..., Any]
    tables: Callable[..., Any] = one_number
    draw: Callable[..., Any] = no_draw
    on_host: bool = False


def of_one(*values: float) -> tuple[tuple, ...]:
    """The severity table of a corruption with one parameter."""
    return tuple((value,) for value in values)
