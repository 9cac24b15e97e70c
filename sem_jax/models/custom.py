"""Custom models: Linen and NNX modules of anyone, named by their factory as `model.name=module.path:factory`.

    model = make_model(name="my_nets:make_net", num_classes=10, width=32)
    features, logits = model.apply(variables, images, train=False)

A factory is the class of the module, or a function that is annotated (or says in its docstring) to return one; nothing
else is called. `make_net(num_classes=..., dtype=...)` returns a Linen module, which is called as
`net(images, train=...)`. An NNX factory also takes `rngs`; its module is called as `net(images)` after `net.train()` or
`net.eval()`. Both modules return (features f32[b d], logits f32[b k]), with logits that are linear in the features.

Naming a module imports it, which executes it. It may lie in the current working directory. A name that comes from a run
folder is imported only if the user gives the same one: `open_run(..., trust_model="my_nets:make_net")`.
"""

import functools
import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from sem_jax.errors import ConfigError, SemError, one_line
from sem_jax.interfaces import Key, Model, Outputs
from sem_jax.registry import parameters_of


def find_factory(name: str) -> Callable:
    """The factory that `module.path:factory` names; it is looked at but not called.

    Raises:
      ConfigError: the module is not found or fails when imported, or has no such factory.
    """
    module, _, attribute = name.partition(":")
    here = "" not in sys.path  # the command `sem-jax` starts without the working directory
    if here:
        sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
        factory = getattr(found, attribute, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a module may do anything
        raise ConfigError(
            f"model.name={name!r}: importing {module!r} failed: {type(error).__name__}: {one_line(error)}",
            "It must be in the current working directory or where Python finds packages.",
        ) from error
    finally:
        if here:
            sys.path.remove("")
    if not callable(factory):
        raise ConfigError(f"model.name={name!r}: {module} has no factory {attribute!r}")
    if not _makes_module(factory):
        raise ConfigError(
            f"model.name={name!r} is neither a Linen or NNX module class nor a function said to return one; "
            "it was not called",
            f"Name the class, or annotate the function: def {attribute}(...) -> flax.linen.Module, or nnx.Module.",
        )
    return factory


def _makes_module(factory: Callable) -> bool:
    """Whether a factory is a module class, or a Python function annotated or documented to return a module."""
    if isinstance(factory, functools.partial):
        return _makes_module(factory.func)
    if inspect.isclass(factory):
        return issubclass(factory, (nn.Module, nnx.Module))
    function: Any = inspect.unwrap(factory)
    if not inspect.isfunction(function):
        return False
    returned: Any = function.__annotations__.get("return")
    if isinstance(returned, str):  # looked up, not evaluated
        first, *rest = returned.strip("'\"").split(".")
        returned = functools.reduce(lambda it, name: getattr(it, name, None), rest, function.__globals__.get(first))
    if inspect.isclass(returned):
        return issubclass(returned, (nn.Module, nnx.Module)) or returned is Model
    documented = re.search(
        r"\breturn.*\b(linen|nnx|flax|nn\.Module)\b", function.__doc__ or "", re.DOTALL | re.IGNORECASE
    )
    return returned is None and documented is not None


def make_custom(name: str, factory: Callable, *, num_classes: int, dtype: jnp.dtype, **options: Any) -> Model:
    """The model that a factory makes, behind the methods `init` and `apply` of a Linen module.

    Args:
      name: "module.path:factory", for messages and `repr`.
      factory: from `find_factory`.
      num_classes, dtype, **options: arguments of the factory; `dtype` only where it takes one.

    Raises:
      ConfigError: the factory does not name the arguments, fails, or returns something else.
    """
    names = {it for it, p in parameters_of(factory).items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    arguments = {"num_classes": num_classes, "dtype": dtype} | options
    if "dtype" not in names:
        del arguments["dtype"]
    make = functools.partial(factory, **arguments)
    try:
        if unknown := sorted(set(arguments) - names):  # a factory that takes anything is given its own names alone
            raise TypeError(f"it names no argument {unknown[0]!r}")
        module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))) if "rngs" in names else make()
    except (KeyboardInterrupt, SemError):
        raise
    except BaseException as error:  # SystemExit too: it is not our code
        reason = one_line(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"model.name={name!r} cannot be called with {_spell(arguments)}: {reason}") from error
    label = f"{name}({_spell(arguments)})"
    if isinstance(module, nnx.Module) and "rngs" in names:
        return CustomNnx(label, make, module, dtype)
    if isinstance(module, nn.Module):
        return CustomLinen(label, module, dtype)
    raise ConfigError(
        f"model.name={name!r} must return a Linen module, or an NNX module and take rngs; got {type(module).__name__}"
    )


def _spell(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={jnp.dtype(v).name if k == 'dtype' else repr(v)}" for k, v in sorted(arguments.items()))


class _Custom:
    """Base of both kinds. `repr` tells models apart: it has name, options and a digest of the module's source file."""

    def __init__(self, label: str, kind: type, dtype: jnp.dtype):
        self._label, self.dtype = label, dtype
        self._names = inspect.signature(kind.__call__).parameters
        source = Path(getattr(sys.modules[kind.__module__], "__file__", None) or "")
        self._digest = hashlib.sha256(source.read_bytes() if source.is_file() else b"").hexdigest()[:12]

    def __repr__(self) -> str:
        return f"{self._label} of source {self._digest}"

    def _arguments(self, train: bool, options: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the module beside the images."""
        if "at_stage" in options and "at_stage" not in self._names:
            raise ConfigError(
                f"{self._label} has no argument at_stage, which a mixer of hidden states calls",
                "Add it (docs/models.md, Your own model), or choose a mixer of images.",
            )
        return {**options, "train": train} if "train" in self._names else dict(options)

    def _outputs(self, returned: Any) -> Outputs:
        """(features, logits), checked, in float32."""
        try:
            features, logits = returned
            shapes = features.ndim, logits.ndim
        except (TypeError, ValueError, AttributeError):
            shapes = None
        if shapes != (2, 2):
            raise ConfigError(
                f"{self._label} must return (features [b d], logits [b k]), got {jax.tree.map(jnp.shape, returned)}"
            )
        return Outputs(features.astype(jnp.float32), logits.astype(jnp.float32))


class CustomLinen(_Custom):
    """A Linen module that returns `Outputs`."""

    def __init__(self, label: str, module: nn.Module, dtype: jnp.dtype):
        super().__init__(label, type(module), dtype)
        self._module = module

    def init(self, key: Key, images: jax.Array, /, *, train: bool = False, **options: Any) -> Any:
        """Fresh variables: "params" and, for a model with BatchNorm, "batch_stats"."""
        variables = self._module.init(key, images, **self._arguments(train, options))
        if other := sorted(set(variables) - {"params", "batch_stats"}):
            raise ConfigError(f"{self._label} keeps {other[0]!r}; a run keeps params and batch_stats alone")
        return variables

    def apply(self, variables: Any, images: jax.Array, /, *, train: bool, mutable=False, rngs=None, **options: Any):
        """As a Linen module's: Outputs, or (Outputs, updated collections) with `mutable`."""
        options = self._arguments(train, options)
        returned = self._module.apply(variables, images, mutable=mutable, rngs=rngs, **options)
        if mutable is False:
            return self._outputs(returned)
        return self._outputs(returned[0]), returned[1]


class CustomNnx(_Custom):
    """An NNX module as a pure function of "params" (nnx.Param) and "batch_stats" (nnx.BatchStat), nested dicts."""

    _KINDS = (nnx.Param, nnx.BatchStat, nnx.RngState)

    def __init__(self, label: str, make: Callable, abstract: nnx.Module, dtype: jnp.dtype):
        super().__init__(label, type(abstract), dtype)
        self._make = make
        self._graph, *self._states, rest = nnx.split(abstract, *self._KINDS, ...)
        if others := nnx.to_flat_state(rest):
            path, variable = next(iter(others))
            where = ".".join(map(str, path))
            raise ConfigError(
                f"{label}: {where} is an nnx.{type(variable).__name__}; a run keeps nnx.Param and nnx.BatchStat alone"
            )

    def init(self, key: Key, images: jax.Array, /, **options: Any) -> Any:
        """Fresh variables. The images are unused: NNX modules know their shapes."""
        del images, options
        params, stats, _ = nnx.state(self._make(rngs=nnx.Rngs(key)), *self._KINDS)
        return {"params": _to_dict(params), **({"batch_stats": _to_dict(stats)} if len(stats) else {})}

    def apply(self, variables: Any, images: jax.Array, /, *, train: bool, mutable=False, rngs=None, **options: Any):
        """As a Linen module's. The key rngs["dropout"] seeds every random generator of the module."""
        key = (rngs or {}).get("dropout")
        if key is None:
            key = jax.random.key(0)  # evaluation: nothing is drawn
        params, stats, random = self._states
        params, stats = _from_dict(params, variables["params"]), _from_dict(stats, variables.get("batch_stats", {}))
        module = nnx.merge(self._graph, params, stats, _seeded(random, key))
        module.train() if train else module.eval()
        outputs = self._outputs(module(images, **self._arguments(train, options)))
        if mutable is False:
            return outputs
        stats = _to_dict(nnx.state(module, nnx.BatchStat))
        return outputs, {"batch_stats": stats} if stats else {}


def _to_dict(state: nnx.State) -> dict:
    """Nested dict of arrays. Keys are names of attributes; indices of lists become text."""
    flat = {tuple(map(str, path)): variable[...] for path, variable in nnx.to_flat_state(state)}
    return traverse_util.unflatten_dict(flat)


def _from_dict(like: nnx.State, nested: Mapping) -> nnx.State:
    """The inverse of `_to_dict`, for a state of the structure of `like`."""
    flat = traverse_util.flatten_dict(nested)
    return nnx.from_flat_state(
        [(p, variable.replace(flat[tuple(map(str, p))])) for p, variable in nnx.to_flat_state(like)]
    )


def _seeded(like: nnx.State, key: Key) -> nnx.State:
    """Every generator with a key of its own and its counter at 0: a step is a function of its key."""

    def fresh(i, variable):
        if isinstance(variable, nnx.RngKey):
            return variable.replace(jax.random.fold_in(key, i))
        return variable.replace(jnp.zeros(variable.shape, variable.dtype))

    return nnx.from_flat_state([(p, fresh(i, v)) for i, (p, v) in enumerate(nnx.to_flat_state(like))])
