"""Numbers and names as a person reads them: fractions in percent, numbers to about four figures."""

import json
import re
from collections.abc import Iterable
from typing import Any

from sem_jax.errors import plain

UNITS = ("%", "points")  # of fractions; points are a difference of two percentages


def text(value: Any, unit: str = "") -> str:
    """Text of a cell: numbers that are not whole to about four figures, a dash for None.

    >>> text(0.95123), text(0.95123, "%"), text(-0.0123, "points"), text(None)
    ('0.9512', '95.12', '-1.23', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if unit in UNITS and isinstance(value, int | float):
        return f"{100 * value:{'+' if unit == 'points' else ''}.2f}"
    if isinstance(value, float):
        size = abs(value)
        if value == 0 or 1e-4 <= size < 10:
            return f"{value:.4f}"
        return f"{value:.2f}" if 10 <= size < 1e5 else f"{value:.3g}"
    return plain(str(value) if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False))


def with_unit(value: Any, unit: str = "") -> str:
    """The same with the unit behind it.

    >>> with_unit(0.95123, "%"), with_unit(-0.0123, "points"), with_unit(1.5)
    ('95.12%', '-1.23 points', '1.5000')
    """
    shown = text(value, unit)
    if unit not in UNITS or not isinstance(value, int | float):
        return shown
    return f"{shown}%" if unit == "%" else f"{shown} {unit}"


def anchors(names: Iterable[str]) -> dict[str, str]:
    """A fragment for each name, of letters and digits only, no two alike.

    >>> anchors(["Fig. 3: equivariance", "<b>", "B"])
    {'Fig. 3: equivariance': 'fig-3-equivariance', '<b>': 'b', 'B': 'b-2'}
    """
    made: dict[str, str] = {}
    for name in names:
        base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "part"
        taken, fragment, number = set(made.values()), base, 1
        while fragment in taken:
            number += 1
            fragment = f"{base}-{number}"
        made[name] = fragment
    return made
