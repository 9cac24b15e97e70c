"""Finds a configuration file: by its path, or by the name of one in configs/, with ":METHOD" after it.

    load_config("digits:mixup+es+sem")              # comes with the package
    load_config("experiments/mine.py")              # Python, which is executed

A name is looked up among those that come with the package, then in configs/ of the working directory, which may be a
stranger's: there a name of the package's never runs another file. So is the path of a file that is not there, such as
configs/digits.py outside of a checkout.
"""

import ast
import runpy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sem_jax.config.fields import FIELDS
from sem_jax.errors import ConfigError, SemError, one_line
from sem_jax.registry import nearest

# Fields of the group `model` that say something about the data or the device, and not about one net.
_ANY_MODEL = ("model.name", "model.num_classes", "model.dtype")

# What a file sets for the model or the data set that it names, and means nothing for another one.
OWN = {
    "model.name": tuple(name for name in FIELDS if name.startswith("model.") and name not in _ANY_MODEL),
    "data.name": ("data.mean", "data.std"),
}


def shipped() -> Path:
    """The folder of the configurations that come with the package: inside of it, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def known_configs() -> dict[str, Path]:
    """The configurations that have a name."""
    folders = (Path("configs"), shipped())  # the later one counts
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"}


def about(path: Path) -> str:
    """The first line of a configuration's docstring; the file is not executed."""
    try:
        return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    except (OSError, SyntaxError, ValueError):
        return ""


def find_config(text: str) -> tuple[Path, str]:
    """(file, method) of "digits", "digits:mixup+sem" or "path/to/file.py:mixup".

    Raises:
      ConfigError: there is no such configuration; the message has the nearest one.

    >>> find_config("preact_c10:cutmix")[0].name, find_config("preact_c10:cutmix")[1]
    ('preact_c10.py', 'cutmix')
    """
    name, _, method = text.partition(":")
    if not name:
        raise ConfigError(f"--config={text} names no configuration", "For example: --config=digits:mixup+sem")
    path, known = Path(name).expanduser(), known_configs()
    if name.endswith(".py") and path.is_file():
        return path, method
    plain = len(path.parts) == 1 or (len(path.parts) == 2 and path.parts[0] == "configs" and path.suffix == ".py")
    if plain and path.name.removesuffix(".py") in known:
        return known[path.name.removesuffix(".py")], method
    if path.is_file() or path.is_dir():
        raise ConfigError(
            f"--config={name} is no configuration: it must be a file that ends in .py", _known_ones(known)
        )
    near = nearest(path.name.removesuffix(".py"), known)
    raise ConfigError(f"There is no configuration {name!r}.{near}", _known_ones(known))


def _known_ones(known: Collection[str]) -> str:
    return f"Known ones: {', '.join(sorted(known))}; or the path of a file of your own."


def load_config(text: str) -> ConfigDict:
    """The configuration of a file that `find_config` finds, which is executed; not yet validated.

    Raises:
      ConfigError: there is none, it fails, or it has no function `get_config`.
    """
    path, method = find_config(text)
    try:
        get = runpy.run_path(str(path)).get("get_config")
        if not callable(get):
            raise ConfigError(f"{path} has no function get_config(method)")
        cfg = get(method) if method else get()
    except SemError:
        raise
    except Exception as error:  # a file of the user's own may do anything
        raise ConfigError(f"{path} failed: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(cfg, ConfigDict):
        raise ConfigError(f"{path}: get_config must return a ConfigDict, got {type(cfg).__name__}")
    return cfg


def choices(cfg: ConfigDict) -> dict[str, str]:
    """The model and the data set that a configuration names, by the fields that name them."""
    return {choice: _get(cfg, choice) for choice in OWN}


def switch(cfg: ConfigDict, before: Mapping[str, str], given: Collection[str]) -> list[str]:
    """Leaves out what a file sets for its own model or data set, where another one was chosen in its place.

    Args:
      cfg: changed in place; has the model and the data set that were chosen.
      before: the file's, from `choices`.
      given: names of the fields that the user set, which stay.

    Returns:
      A line for each choice that cost the file's settings: what was left out.
    """
    lines = []
    for choice, fields in OWN.items():
        now = _get(cfg, choice)
        others = [name for name in fields if name not in given and _get(cfg, name) != FIELDS[name].default]
        if now == before[choice] or not others:
            continue
        dropped = ", ".join(f"{name}={_get(cfg, name)}" for name in others)
        for name in others:
            group, _, key = name.rpartition(".")
            cfg[group][key] = FIELDS[name].default
        lines.append(
            f"{choice}={now} takes its own defaults; these settings are of the file's {before[choice]}: {dropped}"
        )
    return lines


def _get(cfg: ConfigDict, name: str) -> Any:
    group, _, key = name.rpartition(".")
    return cfg[group][key]
