"""Tables of names. An entry is imported when it is first used, and an unknown name is answered with the nearest one.

    MIXERS = Table({"cutmix": "sem_jax.mixers.cutmix:make_cutmix"})
    list(MIXERS)                       # names; nothing is imported
    lookup(MIXERS, "mixer", "cutmx")   # Unknown mixer 'cutmx'. Did you mean 'cutmix'? Known mixers: cutmix, mixup.

Options that are written as text are parsed here too: "decay=3.0, max_soft=0.2", "cutmix(alpha=0.2)".
"""

import contextlib
import importlib
import sys
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sem_jax.errors import ConfigError, SemError, one_line

if TYPE_CHECKING:  # imported in the functions that use it, so that `import sem_jax` is quick
    import inspect

T = TypeVar("T")
SAID = Path(__file__).with_name("said.txt")  # what people type, and our names
DEEP = ("resnet", "preact_resnet")  # models whose depth people write after the name


class Table(UserDict[str, T]):
    """Rows by name. A row written as "package.module:name" is imported when it is first used.

    Args:
      rows: such texts, or values. A text must be the package's own, because importing executes code.
    """

    def __init__(self, rows: Mapping[str, Any]):
        super().__init__(rows)

    def __getitem__(self, name: str) -> T:
        row: Any = self.data[name]
        if isinstance(row, str):
            self.data[name] = row = resolve(row)
        return row


def resolve(place: str) -> Any:
    """Imports the object at "package.module:name"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def names_at(place: str) -> list[str]:
    """The names in the tuple or dictionary at "package.module:NAME".

    Where its module is not imported yet, they are read from its source: the module may import jax, which takes longer
    than everything else that a wrong name is answered with.

    >>> names_at("sem_jax.training.optim:SCHEDULES")
    ['auto', 'step', 'cosine', 'onecycle', 'constant']
    """
    import ast
    from importlib.util import find_spec

    module, _, name = place.partition(":")
    if module not in sys.modules and (spec := find_spec(module)) and spec.origin and spec.origin.endswith(".py"):
        with open(spec.origin, encoding="utf-8") as file:
            body = ast.parse(file.read()).body
        for node in body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            value = getattr(node, "value", None)
            if value is not None and name in (getattr(it, "id", "") for it in targets):
                with contextlib.suppress(TypeError, ValueError):  # it is made by a call
                    names: list[Any] = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [None])
                    return [ast.literal_eval(it) for it in names]
    return list(resolve(place))


def on_demand(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` (PEP 562) and `__all__`: each name is imported when it is asked for.

    Args:
      package: its `__name__`.
      names: "package.module" -> the names that come from it: "load, Run", or "load as load_run" under another name.
    """
    offered = {}
    for module, text in names.items():
        for name, _, other in (part.partition(" as ") for part in text.split(", ")):
            offered[other or name] = f"{module}:{name}"

    def __getattr__(name: str) -> Any:
        if name in offered:
            return resolve(offered[name])
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__, lambda: sorted({*vars(sys.modules[package]), *offered}), sorted(offered)


def plainest(name: str) -> str:
    """A name as said.txt has it: "Cifar-10" is "cifar10"."""
    return "".join(letter for letter in str(name).lower() if letter not in "-_+ ./")


def meant(name: str, known: Iterable[str]) -> tuple[str, str]:
    """(known name, settings that belong to it) that people mean by `name`: in other letters, or by the table said.txt.

    >>> meant("Mix-Up", ["mixup", "cutmix"]), meant("ResNet-18", ["resnet"]), meant("foo", ["resnet"])
    (('mixup', ''), ('resnet', 'model.depth=18'), ('', ''))
    """
    known, typed = list(known), plainest(name)
    if same := [it for it in known if plainest(it) == typed]:
        return same[0], ""
    base = typed.rstrip("0123456789")
    lines = [line.split(" = ") for line in SAID.read_text(encoding="utf-8").splitlines() if " = " in line]
    said = {word: choices.split(" | ") for words, choices in lines for word in words.split() if words[0] != "#"}
    for text in dict.fromkeys((typed, base)):
        for found, _, settings in (choice.partition(" ") for choice in said.get(text, ())):
            if found in known:
                deep = found in DEEP and text != typed
                return found, f"model.depth={typed[len(base) :]}" if deep else settings
    return "", ""


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for what people mean by `name` (`meant`), else for the closest known name, or ''."""
    import difflib

    known = list(known)
    found, settings = meant(name, known)
    close = [found] if found else difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    belongs = f", with {' and '.join(settings.split())}" if settings else ""
    return f" Did you mean {close[0]!r}{belongs}?" if close else ""


def lookup(table: Mapping[str, T], kind: str, name: str) -> T:
    """`table[name]`.

    Raises:
      ConfigError: for an unknown name, with the nearest and all the known ones.
    """
    if name in table:
        return table[name]
    raise ConfigError(f"Unknown {kind} {name!r}.{nearest(name, table)} Known {kind}s: {', '.join(sorted(table))}.")


@contextlib.contextmanager
def blamed(what: str):
    """Turns what models and mixers raise into a ConfigError: "WHAT: ZeroDivisionError: division by zero".

    A message of ours that names no field of a configuration gets WHAT before it.
    """
    try:
        yield
    except SemError as error:
        if any(f"{group}." in str(error) for group in ("data", "model", "mixer", "objective", "optim", "train")):
            raise
        raise ConfigError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        reason = one_line(error)
        kind = "" if reason == type(error).__name__ else f"{type(error).__name__}: "
        raise ConfigError(f"{what}: {kind}{reason}") from error


def fits_float32(number: float) -> bool:
    """Whether float32 can compute with a number: it is 0, or of a size from 1e-30 to 1e30."""
    return number == 0 or 1e-30 <= abs(number) <= 1e30


def parse_options(text: str, field: str, remedy: str = "") -> dict[str, Any]:
    """Parses options whose values are Python literals; nothing is executed.

    >>> parse_options("hidden=64, act='gelu', sizes=(1, 2)", "model.options")
    {'hidden': 64, 'act': 'gelu', 'sizes': (1, 2)}

    Args:
      text: "name=value, name=value", or "".
      field: the name of the field, for the error.
      remedy: second line of the error, such as the known names.

    Raises:
      ConfigError: for anything else.
    """
    import ast

    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        if any(keyword.arg is None for keyword in call.keywords):  # "**{...}"
            raise ValueError
        options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deeply
        raise ConfigError(f'{field} must be like "name=value, name=value", got {text!r}', remedy) from None
    if len(options) < len(call.keywords):
        raise ConfigError(f"{field} has an option twice: {text!r}", remedy)
    return options


def parse_call(text: str, kind: str) -> tuple[str, str]:
    """Splits "cutmix(alpha=0.2)" into ("cutmix", "alpha=0.2") and "mixup" into ("mixup", "").

    Raises:
      ConfigError: a bracket is not closed; `kind` is the error's word for the name.
    """
    name, bracket, rest = text.strip().partition("(")
    if bracket and not rest.endswith(")"):
        raise ConfigError(f'a {kind} is given as "name" or "name(option=value)", got {text!r}')
    return name.strip(), rest[:-1]


def parameters_of(factory: Callable) -> dict[str, "inspect.Parameter"]:
    """The parameters of a factory by name; for a class, those of its constructor."""
    import inspect

    if not inspect.isclass(factory):
        return dict(inspect.signature(factory).parameters)
    # Not the signature of the class: for an NNX class, inspect shows that of its metaclass, which takes anything.
    names = inspect.signature(factory.__init__).parameters
    return {name: p for name, p in names.items() if name not in ("self", "parent", "name")}
