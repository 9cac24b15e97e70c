"""BatchNorm's running averages as PyTorch makes them, updated by one pass of the net after the other.

    changes = {"mixed": change_of(...), "clean": change_of(...)}     # of each pass, from `watched`
    batch_stats = one_after_the_other(batch_stats, changes)

Algorithm 1 as it is written runs the net three times a step: on the mixed images, on the anchors and on the partners. A
framework that updates the averages in every pass does that three times, r <- m r + (1 - m) s with the statistics s of
the pass. The partners are the anchors in another order and have their statistics, so two passes are enough for it. With
PyTorch's momentum (m = 0.9) the old average keeps 0.729 of its weight, the mixed images have 0.081 and the clean ones
0.19: in the long run 30% and 70%. The variance in it is the unbiased one, n / (n - 1) times that of the batch.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from sem_jax.errors import ConfigError


class Change(NamedTuple):
    """What a pass does to the running averages r, r <- keep r + add; trees like batch_stats."""

    keep: Any
    add: Any


class Seen(NamedTuple):
    """Of a BatchNorm that was called."""

    momentum: float  # 1 where it used the running averages and left them as they are
    count: int  # values of a channel, over which its statistics are taken


@contextmanager
def watched() -> Iterator[dict[tuple[str, ...], Seen]]:
    """Notes every `nn.BatchNorm` that is called within, by its path in the net."""
    seen: dict[tuple[str, ...], Seen] = {}

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module, returned = context.module, call(*args, **kwargs)
        if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
            axes = module.axis if isinstance(module.axis, tuple) else (module.axis,)
            shape = args[0].shape
            count = math.prod(shape) // math.prod(shape[axis] for axis in axes)
            held = kwargs.get("use_running_average", args[1] if len(args) > 1 else None)
            held = module.use_running_average if held is None else held  # as in a frozen layer
            seen[module.path] = Seen(1.0 if held else module.momentum, count)
        return returned

    with nn.intercept_methods(note):
        yield seen


def change_of(before: Any, after: Any, seen: Mapping[tuple[str, ...], Seen]) -> Change:
    """What a pass did to the running averages, with the unbiased variance.

    Args:
      before, after: the collection "batch_stats" before and after a pass, f32 at the leaves.
      seen: from `watched`, around that pass.

    Raises:
      ConfigError: the collection has something that no `nn.BatchNorm` keeps, so that its rule is not known.
    """
    keep, add = {}, {}
    olds: dict[Any, Any] = flatten_dict(before)
    news: dict[Any, Any] = flatten_dict(after)
    for path, new in news.items():
        if path[:-1] not in seen or path[-1] not in ("mean", "var"):
            raise ConfigError(
                f"objective.bn_running='three_passes' knows flax.linen.BatchNorm alone, the model keeps "
                f"{'/'.join(map(str, path))!r}",
                "Set objective.bn_running=both.",
            )
        momentum, count = seen[path[:-1]]
        unbiased = count / max(count - 1, 1) if path[-1] == "var" else 1.0
        keep[path] = jnp.asarray(momentum, new.dtype)
        add[path] = unbiased * (new - momentum * olds[path])
    return Change(unflatten_dict(keep), unflatten_dict(add))


def one_after_the_other(batch_stats: Any, changes: Mapping[str, Change]) -> Any:
    """The running averages after the passes of a step: the mixed ones in their order, then the clean one twice.

    A pass that is alone counts once.

    >>> change = Change({"mean": jnp.float32(0.9)}, {"mean": jnp.float32(0.1)})     # the statistic is 1
    >>> stats = one_after_the_other({"mean": jnp.float32(0.0)}, {"mixed": change, "clean": change})
    >>> round(float(stats["mean"]), 3)
    0.271
    """
    order = [name for name in changes if name != "clean"]
    order += ["clean"] * (1 if not order else 2 if "clean" in changes else 0)
    for name in order:
        keep, add = changes[name]
        batch_stats = jax.tree.map(lambda r, k, a: k * r + a, batch_stats, keep, add)
    return batch_stats
