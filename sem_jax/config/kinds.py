"""What a field of a configuration is: its type, the numbers or words that it takes, and how others are refused.

    Field("objective.gamma", 0.3, Range(0), "...").check(-1.0)  # ConfigError: objective.gamma must be >= 0, got -1.0

The fields themselves are rows of the table in `fields`.
"""

import math
import sys
import unicodedata
from typing import Any, NamedTuple

from sem_jax.errors import ConfigError
from sem_jax.registry import fits_float32, lookup, names_at

LONGEST = 4096  # letters of a text, entries of a list
# Old names of fields and words, which saved configurations may have, and the new ones.
RENAMED = {
    "runtime.streams": "runtime.passes",
    "runtime.residency=stream": "disk",
    "objective.clean_features=auto": "exact",
}


class Range(NamedTuple):
    """An interval of numbers, and perhaps one number `beside` it."""

    low: float
    high: float = math.inf
    ends: str = "[]"  # square brackets include the end, round ones do not
    beside: float | None = None

    def holds(self, value: Any) -> bool:
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        below = value <= self.high if self.ends[1] == "]" else value < self.high
        return (above and below) or value == self.beside

    def __str__(self) -> str:
        text = f"in {self.ends[0]}{self.low}, {self.high}{self.ends[1]}"
        if self.high == math.inf:
            text = f"{'>=' if self.ends[0] == '[' else '>'} {self.low}"
        return ("" if self.beside is None else f"{self.beside} or ") + text


class Words(NamedTuple):
    """The names in a registry or constant, so that no list is written twice."""

    place: str  # "package.module:NAME", read when it is first needed
    kind: str = ""  # an error's word for such a name; "" = that of the field
    other: str = ""  # the form of other allowed names, which contain a colon

    def __str__(self) -> str:
        return ", ".join(names_at(self.place)) + (f" or {self.other}" if self.other else "")

    def check(self, field: str, value: Any) -> None:
        """Refuses a text that is none of the words; the error has the nearest and all the known ones."""
        if renamed := RENAMED.get(f"{field}={value}"):
            raise ConfigError(f"Unknown {field} {value!r}. It is called {renamed!r} now.")
        if not (self.other and ":" in value):
            lookup(dict.fromkeys(names_at(self.place)), self.kind or field, value)
            return
        module, _, name = value.partition(":")
        path = module.split(".")
        if not all(part.isidentifier() for part in (*path, name)):
            raise ConfigError(f"{field} must be like {self.other}, got {value!r}")
        if path[0] in sys.stdlib_module_names:
            raise ConfigError(f"{field} must be in a module of your own, got {value!r} of Python's library")


class Field(NamedTuple):
    """One field. Its type is that of its default; where that is a float, an int will do."""

    name: str
    default: Any
    allowed: Range | Words | None
    doc: str

    @property
    def kind(self) -> str:
        """The type in words: "a whole number"."""
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        return kinds.get(type(self.default), "a list of numbers")

    @property
    def expected(self) -> str:
        """The allowed values: "a whole number >= 0", "sample, batch"."""
        return str(self.allowed) if isinstance(self.allowed, Words) else f"{self.kind} {self.allowed or ''}".rstrip()

    def check(self, value: Any) -> None:
        """Raises a ConfigError for a value of another type or size, out of the range or not among the words."""
        types = (float, int) if isinstance(self.default, float) else (type(self.default),)
        numbers = value if isinstance(value, tuple) else (value,) if isinstance(value, (float, int)) else ()
        expected = ""
        if type(value) not in types or not all(isinstance(number, (float, int)) for number in numbers):
            expected = self.kind
        elif not all(abs(number) <= sys.float_info.max for number in numbers):  # false for NaN too
            expected = "finite"
        elif isinstance(self.allowed, Range) and not self.allowed.holds(value):
            expected = str(self.allowed)
        elif not all(map(fits_float32, numbers)):
            expected = "0 or of a size from 1e-30 to 1e30: it is computed in float32"
        elif isinstance(value, (str, tuple)) and len(value) > LONGEST:
            raise ConfigError(f"{self.name} must have at most {LONGEST} entries or letters, got {len(value)}", self.doc)
        elif isinstance(value, str) and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
            expected = "a text in one line, without control characters"
        if expected:
            try:
                found = repr(value)
            except ValueError:  # Python spells no integer of more than 4,300 digits
                found = "a number of too many digits"
            raise ConfigError(f"{self.name} must be {expected}, got {found}", self.doc)
        if isinstance(self.allowed, Words) and value != self.default:  # a default needs no import
            self.allowed.check(self.name, value)
