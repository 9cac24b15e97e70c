"""Gradient of a step's objective: at once, or in micro-batches for which the memory suffices.

    gradient_of = make_gradient(forward, objective, micro_batches=4)
    gradient, batch_stats, metrics = gradient_of(state, passes, batch, mixes, key)

The objective of SEM is no sum over micro-batches: the penalty of a pair needs the clean features of its partner, which
may be anywhere in the batch. So every micro-batch is run first, and only its outputs are kept. Then the objective of
the whole batch is differentiated with respect to these outputs. Last, every micro-batch is run again, and that gradient
is pulled back through it (the gradient cache of Gao et al. 2021, arXiv 2101.06983). This is exact for any objective,
and the batch is mixed as a whole. The second forward pass makes it 4/3 of a step. With a single pass, as without
penalty, every term depends on one image and nothing is run twice.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Key, Metrics
from sem_jax.rngs import key_for
from sem_jax.runs.state import TrainState
from sem_jax.training.forward import Forward, Passes

Gradient = Callable[..., tuple[Any, Any, Metrics]]


def make_gradient(
    forward: Forward,
    objective: Callable,
    *,
    micro_batches: int = 1,
    unroll: bool = False,
    teacher_of: Callable[[TrainState], Any] | None = None,
) -> Gradient:
    """The function that differentiates the objective.

    Args:
      forward, objective: from `forward.make_forward` and `objectives.build.make_objective`.
      micro_batches: k, a divisor of the batch; micro-batch m holds the items m, m + k, m + 2 k ..., so that every
        device keeps its own. BatchNorm's statistics and dropout's masks are those of the micro-batches; the running
        averages take the mean of the statistics. Without BatchNorm and dropout the numbers are those of k = 1 up to
        rounding.
      unroll: write the k micro-batches out instead of looping (XLA:CPU is slow in loops).
      teacher_of: state -> parameters of the clean pass, which then has no gradient; not with micro-batches.

    Returns:
      gradient_of(state, passes, batch, mixes, key) -> (gradient, new batch_stats, metrics). `key` is the run's key;
      dropout's is derived from it.
    """
    if micro_batches > 1:
        return _in_parts(forward, objective, micro_batches, unroll)

    def gradient_of(state: TrainState, passes: Passes, batch: Batch, mixes: Any, key: Key):
        teacher = {} if teacher_of is None else {"teacher": teacher_of(state)}
        dropout_key = key_for(key, "dropout", state.step)

        def loss_fn(params):
            outputs, stats = forward(params, state.batch_stats, passes, dropout_key, **teacher)
            loss, metrics = objective(outputs, batch, mixes, state.step)
            return loss, (stats, metrics)

        gradient, (stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
        return gradient, stats, metrics

    return gradient_of


def _in_parts(forward: Forward, objective: Callable, count: int, unroll: bool) -> Gradient:
    def gradient_of(state: TrainState, passes: Passes, batch: Batch, mixes: Any, key: Key):
        if not all(isinstance(images, jax.Array) for images in passes.values()):
            raise ConfigError(
                "train.gradient_accumulation must be 1 with a mixer of hidden states: it mixes the batch as a whole"
            )
        dropout_key = key_for(key, "dropout", state.step)
        parts = _cut(passes, count), jnp.arange(count)

        def scan(body, start):
            return jax.lax.scan(body, start, parts, unroll=count if unroll else 1)

        def run(params, part):
            images, index = part
            return forward(params, state.batch_stats, images, jax.random.fold_in(dropout_key, index))

        def pull(gradient, part, cotangents_of):
            outputs, back, stats = jax.vjp(lambda p: run(p, part), state.params, has_aux=True)
            (more,) = back(cotangents_of(outputs, part[1]))
            return jax.tree.map(jnp.add, gradient, more), (outputs, stats)

        def differentiate(outputs):
            return jax.grad(objective, has_aux=True)(outputs, batch, mixes, state.step)

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        if len(passes) == 1:

            def own(outputs, index):
                # Each term depends on its own item alone, so zeros stand for the outputs of the other micro-batches.
                placed = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype).at[index].set(x), outputs)
                return _item(_cut(differentiate(_join(placed))[0], count), index)

            gradient, (outputs, stats) = scan(lambda total, part: pull(total, part, own), zeros)
            metrics = objective(_join(outputs), batch, mixes, state.step)[1]
        else:
            _, (outputs, stats) = scan(lambda _, part: (None, run(state.params, part)), None)
            cotangents, metrics = differentiate(_join(outputs))
            cotangents = _cut(cotangents, count)

            def known(_, index):
                return _item(cotangents, index)

            gradient, _ = scan(lambda total, part: (pull(total, part, known)[0], None), zeros)
        return gradient, jax.tree.map(lambda x: jnp.mean(x, axis=0), stats), metrics

    return gradient_of


def _item(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def _cut(tree, count: int):
    """[b ...] -> [k b/k ...]; micro-batch m holds the items m, m + k ..., so that a device's own stay on it."""
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1), tree)


def _join(tree):
    """The inverse of `_cut`."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), tree)
