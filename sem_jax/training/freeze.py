"""Parameters that training leaves as they are, chosen by the names in optim.freeze.

    frozen = Frozen("stem*, stage1*")
    frozen.check(params)                    # a pattern that fits no name is refused
    tx, model, gradient_of = frozen.optimizer(tx), frozen.model(model), frozen.gradient(gradient_of)

A name is the path of a parameter, "stage1_block1/conv1/kernel". A pattern has the wildcards of a shell; it stands for
the names that it fits and for all that lie below one that it fits. `features` stands for everything but the head.

A frozen parameter has no gradient, no update, no weight decay and no state in the optimizer. A frozen BatchNorm layer
normalises with its running averages, as in evaluation, and these stay as they are: a pattern that froze its scale and
bias alone would leave a net whose statistics drift. Where the head alone is trained, the whole net runs as in
evaluation, without dropout and stochastic depth: the features are then the same function at every step.
"""

import fnmatch
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import optax

from sem_jax.errors import ConfigError
from sem_jax.interfaces import HEADS, Model
from sem_jax.registry import nearest

FEATURES = "features"


def names_of(tree: Any) -> list[str]:
    """The paths of the leaves of nested dictionaries.

    >>> names_of({"stem": {"kernel": 0}, "classifier": {"bias": 0, "kernel": 0}})
    ['classifier/bias', 'classifier/kernel', 'stem/kernel']
    """
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]


def _above(name: str) -> Iterator[str]:
    """ "a/b/c", "a/b", "a"."""
    while name:
        yield name
        name = name.rpartition("/")[0]


def in_head(name: str) -> bool:
    """Whether a parameter belongs to the linear layer that makes logits of features."""
    return name.partition("/")[0] in HEADS


class Frozen:
    """The parameters that patterns freeze.

    Args:
      patterns: as optim.freeze has them, with commas between them; "" = none.
    """

    def __init__(self, patterns: str):
        self._patterns = [part.strip() for part in patterns.split(",") if part.strip()]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def __contains__(self, name: str) -> bool:
        return any(self._fits(pattern, name) for pattern in self._patterns)

    @staticmethod
    def _fits(pattern: str, name: str) -> bool:
        if pattern == FEATURES:
            return not in_head(name)
        return any(fnmatch.fnmatchcase(part, pattern) for part in _above(name))

    def only_head(self, names: Iterable[str]) -> bool:
        """Whether nothing but the head is trained: a linear probe."""
        return all(name in self or in_head(name) for name in names)

    def check(self, params: Any) -> None:
        """Refuses what freezes nothing or everything.

        Raises:
          ConfigError: names the pattern and the nearest parameter, or the names that a head may have.
        """
        names = names_of(params)
        for pattern in self._patterns:
            if pattern == FEATURES and not any(map(in_head, names)):
                heads = ", ".join(HEADS)
                raise ConfigError(
                    f"optim.freeze=features needs a head called one of {heads}; the model has {_few(names)}",
                    "Name what is frozen by patterns, or give the last layer one of these names.",
                )
            if not any(self._fits(pattern, name) for name in names):
                near = nearest(pattern, dict.fromkeys(part for name in names for part in _above(name)))
                raise ConfigError(f"optim.freeze: {pattern!r} fits no parameter.{near} There are: {_few(names)}")
        if all(name in self for name in names):
            raise ConfigError(f"optim.freeze={', '.join(self._patterns)!r} leaves no parameter to train")

    def optimizer(self, tx: optax.GradientTransformation) -> optax.GradientTransformation:
        """`tx` for the other parameters alone; the frozen ones have no state in it."""
        if not self:
            return tx

        def labels(params):
            words = ["frozen" if name in self else "trained" for name in names_of(params)]
            return jax.tree.unflatten(jax.tree.structure(params), words)

        return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)

    def model(self, model: Model) -> Model:
        """The model for training steps: frozen parameters without gradient, frozen BatchNorm as in evaluation."""
        return _FrozenModel(model, self) if self else model

    def gradient(self, gradient_of: Callable) -> Callable:
        """`gradient.make_gradient`'s function, with the running averages of frozen layers bit for bit as they were."""
        if not self:
            return gradient_of

        def held(state, *arguments):
            gradient, batch_stats, metrics = gradient_of(state, *arguments)
            probe, names = self.only_head(names_of(state.params)), names_of(batch_stats)
            pairs = zip(jax.tree.leaves(state.batch_stats), jax.tree.leaves(batch_stats), strict=True)
            kept = [old if probe or name in self else new for name, (old, new) in zip(names, pairs, strict=True)]
            return gradient, jax.tree.unflatten(jax.tree.structure(batch_stats), kept), metrics

        return held


def _few(names: list[str]) -> str:
    tops = list(dict.fromkeys(name.partition("/")[0] for name in names))
    return ", ".join(tops[:12]) + (", ..." if len(tops) > 12 else "")


class _FrozenModel:
    """A model behind the same methods; see `Frozen.model`."""

    def __init__(self, model: Model, frozen: Frozen):
        self._model, self._frozen = model, frozen
        self.dtype, self.init = model.dtype, model.init

    def apply(self, variables: Any, images: jax.Array, /, *, train: bool, **options: Any) -> Any:
        """As the model's."""
        params = variables["params"]
        names, held = names_of(params), set()
        pairs = zip(names, jax.tree.leaves(params), strict=True)
        kept = [jax.lax.stop_gradient(x) if name in self._frozen else x for name, x in pairs]
        variables = {**variables, "params": jax.tree.unflatten(jax.tree.structure(params), kept)}
        train = train and not self._frozen.only_head(names)
        if not train:
            return self._model.apply(variables, images, train=False, **options)
        with nn.intercept_methods(functools.partial(self._hold, held)):
            returned = self._model.apply(variables, images, train=True, **options)
        averages = {
            name.rpartition("/")[0] for name in names_of(variables.get("batch_stats", {})) if name in self._frozen
        }
        if missed := sorted(averages - held):
            raise ConfigError(
                f"optim.freeze cannot hold the running averages of {missed[0]}, which is no Linen BatchNorm",
                "Freeze all features (optim.freeze=features), or no normalisation with averages.",
            )
        return returned

    def _hold(self, held: set[str], call, args, kwargs, context):
        """Runs a frozen BatchNorm layer as in evaluation; every other method as it is."""
        layer = context.module
        if isinstance(layer, nn.BatchNorm) and context.method_name == "__call__":
            path = "/".join(layer.path)
            if f"{path}/mean" in self._frozen:
                held.add(path)
                object.__setattr__(layer, "use_running_average", True)  # made anew in every call of the model
                return call(args[0], mask=kwargs.get("mask"))
        return call(*args, **kwargs)
