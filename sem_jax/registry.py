"""Looks a name up in a plain dict and says, for an unknown one, which names there are.

lookup(MIXERS, "mixer", "cutmx")   # Unknown mixer 'cutmx'. Did you mean 'cutmix'? Known mixers: cutmix, mixup, none.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from sem_jax.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the closest known name, or ''."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def lookup(table: Mapping[str, T], kind: str, name: str) -> T:
    """`table[name]`.

    Raises:
      ConfigError: for an unknown name, with the nearest and all the known ones.
    """
    if name in table:
        return table[name]
    raise ConfigError(f"Unknown {kind} {name!r}.{nearest(name, table)} Known {kind}s: {', '.join(sorted(table))}.")
