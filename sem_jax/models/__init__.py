"""Backbones by name: `MODELS[name](num_classes=..., depth=..., ...)` makes a Linen module that returns Outputs.

    model = MODELS["preact_resnet"](num_classes=10, depth=18, width=64)
    features, logits = model.apply(variables, images, train=False)

To add one: a file with `make_<name>(*, num_classes, dtype, ...)` and a line here; the contract tests pick it up. Of the
fields of the `model` group it names those it has a use for; any other is refused where it is given. `features` are
what the classifier, which must be linear, is given.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.models.convnext import make_convnext
from sem_jax.models.custom import find_factory, make_own, parameters_of, parse_options
from sem_jax.models.mlp_mixer import make_mlp_mixer
from sem_jax.models.preact_resnet import make_preact_resnet
from sem_jax.models.resnet import make_resnet
from sem_jax.models.vit import make_vit
from sem_jax.models.wide_resnet import make_wide_resnet
from sem_jax.registry import lookup

MODELS = {
    "preact_resnet": make_preact_resnet,
    "wide_resnet": make_wide_resnet,
    "resnet": make_resnet,
    "convnext": make_convnext,
    "vit": make_vit,
    "mlp_mixer": make_mlp_mixer,
}

__all__ = ["MODELS", "make_model"]


def make_model(*, name: str, num_classes: int, dtype: str = "auto", options: str = "", **fields) -> nn.Module:
    """The model that the `model` group of a configuration describes.

    Args:
      name: a key of MODELS, or "module.path:factory" (see `own`): that module is imported, which executes it.
      num_classes: k.
      dtype: "float32", "bfloat16" or "auto": float32 on CPU, where bfloat16 is emulated, else bfloat16.
      options: of an own model, beside the fields: "hidden=64, act='gelu'".
      **fields: the row's own. 0 and "" mean "not given": the row's default is taken.

    Raises:
      ConfigError: for an unknown name or an option the model does not take.
    """
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    own = ":" in name
    factory = find_factory(name) if own else lookup(MODELS, "model", name)
    if options and not own:
        raise ConfigError(f"model.options is for models named module.path:factory, got {options!r} for {name}")
    given = _given(name, factory, fields | parse_options(options))
    return (functools.partial(make_own, name) if own else factory)(
        num_classes=num_classes, dtype=jnp.dtype(dtype), **given
    )


def _given(name: str, factory: Callable, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given, each of which the factory must name."""
    parameters = parameters_of(factory).values()
    known = [p.name for p in parameters if p.name not in ("num_classes", "dtype", "rngs")]
    given = {option: value for option, value in options.items() if value}
    for option, value in given.items():
        if option not in known and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            raise ConfigError(
                f"model.{option} is no option of {name}, got {value!r}", f"It has: {', '.join(sorted(known))}."
            )
    return given
