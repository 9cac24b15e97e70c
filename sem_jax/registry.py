"""Tables of names: what a name stands for is imported when it is asked for, and an unknown name is answered well.

MIXERS = Table({"cutmix": "sem_jax.mixers.cutmix:make_cutmix"})
list(MIXERS)                       # names; nothing is imported
lookup(MIXERS, "mixer", "cutmx")   # Unknown mixer 'cutmx'. Did you mean 'cutmix'? Known mixers: cutmix, mixup.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from sem_jax.errors import ConfigError

T = TypeVar("T")


class Table(MutableMapping[str, T]):
    """Rows by name. A row written as "package.module:name" is imported when it is first asked for.

    Args:
      rows: texts of that kind, ours and nobody else's, since importing executes; other values stay as they are.
    """

    def __init__(self, rows: Mapping[str, str | T]):
        self._rows: dict[str, Any] = dict(rows)

    def __getitem__(self, name: str) -> T:
        row = self._rows[name]
        if isinstance(row, str):
            row = self._rows[name] = resolve(row)
        return row

    def __setitem__(self, name: str, row: T) -> None:
        self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def resolve(place: str) -> Any:
    """What "package.module:name" names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def on_demand(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562) that imports what it offers when it is asked for.

    Args:
      package: its `__name__`.
      places: name offered -> "package.module:name".
    """

    def __getattr__(name: str) -> Any:
        if name in places:
            return resolve(places[name])
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__


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
