"""A mixer from texts, as a configuration has them.

    mixer = make_mixer("fmix", alpha=1.0, options="decay=3.0, max_soft=0.2")
    mixer = make_mixer("choice", alpha=1.0, options="choices=('mixup', 'cutmix(alpha=0.2)'), weights=(2, 1)")

An option is an argument of the row's `make_` function; its values are Python literals, and nothing is executed.
"""

import ast
import inspect
from collections.abc import Callable
from typing import Any

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Scorer
from sem_jax.mixers.mixer import Mixer
from sem_jax.registry import lookup, nearest

NOT_OPTIONS = ("scorer",)  # arguments that are no literals


def options_of(make: Callable) -> dict[str, Any]:
    """The options of a row of MIXERS, with their defaults."""
    parameters = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in NOT_OPTIONS}


def parse_options(text: str, name: str, make: Callable) -> dict[str, Any]:
    """{"decay": 3.0} of "decay=3.0", each a known option of the mixer and of its default's type.

    Raises:
      ConfigError: naming what cannot be read, or the option and the nearest one.
    """
    known = options_of(make)
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError):
        raise ConfigError(
            f'mixer.options must be like "name=value, name=value", got {text!r}',
            f"Options of {name}: {', '.join(f'{key}={value!r}' for key, value in known.items())}",
        ) from None
    for option, value in options.items():
        if option not in known:
            raise ConfigError(
                f"Unknown option {option!r} of mixer {name!r} in mixer.options.{nearest(str(option), known)}",
                f"Options of {name}: {', '.join(known)}",
            )
        expected = type(known[option])
        if expected is float and type(value) is int:
            options[option] = value = float(value)
        if type(value) is not expected:
            raise ConfigError(f"mixer.options: {option} of {name} must be like {known[option]!r}, got {value!r}")
    return options


def make_mixer(name: str, *, alpha: float | None = None, options: str = "", scorer: Scorer | None = None) -> Mixer:
    """The mixer that the `mixer` group of a configuration describes.

    Args:
      name: a key of MIXERS.
      alpha: concentration; None = the row's own default. `options` go first.
      options: the row's own, as text.
      scorer: for the rows that take one.

    Raises:
      ConfigError: for an unknown name or option, or a value out of range.
    """
    from sem_jax.mixers import MIXERS  # whose rows include `choice`, which is made from texts in turn

    make = lookup(MIXERS, "mixer", name)
    arguments = {} if alpha is None else {"alpha": alpha}
    if scorer is not None and "scorer" in inspect.signature(make).parameters:
        arguments["scorer"] = scorer
    return make(**arguments | parse_options(options, name, make))


def make_mixer_of_text(text: str, *, alpha: float | None, scorer: Scorer | None = None) -> Mixer:
    """The mixer of "cutmix" or "cutmix(alpha=0.2)"."""
    name, bracket, rest = text.strip().partition("(")
    if bracket and not rest.endswith(")"):
        raise ConfigError(f'a mixer is given as "name" or "name(option=value)", got {text!r}')
    return make_mixer(name.strip(), alpha=alpha, options=rest[:-1], scorer=scorer)
