"""Gradient of a batch: at once, or in micro-batches for which the memory suffices.

    gradient_of = make_gradient(forward, objective, micro_batches=4, unroll=False)
    gradient, batch_stats, metrics = gradient_of(params, batch_stats, streams, batch, drawn, key)

The objective of SEM is no sum over micro-batches: the penalty of a pair needs the clean features of its partner, who
is anywhere in the batch. So the outputs of the whole batch are computed first, micro-batch by micro-batch and without
what differentiation needs; then the objective and its gradient with respect to them; then every micro-batch is run
again and that gradient pulled back through it (the gradient cache of Gao et al. 2021, arXiv 2101.06983). It is exact
for any objective, mixing and pairing are those of the whole batch, and it costs a second forward pass: 4/3 of a step.
With one stream every term is of one image, and nothing is run twice.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Key, Metrics, Mix

Gradient = Callable[..., tuple[Any, Any, Metrics]]


def make_gradient(forward: Callable, objective: Callable, *, micro_batches: int = 1, unroll: bool = False) -> Gradient:
    """The function that differentiates the objective.

    Args:
      forward: from `step.make_forward`.
      objective: from `objectives.build.make_objective`.
      micro_batches: k, a divisor of the batch; micro-batch m holds the items m, m + k, m + 2 k ..., so that every
        device keeps its own. BatchNorm's statistics (and dropout's masks) are those of the micro-batches, the running
        averages take the mean of them. Without either the numbers are those of k = 1 up to rounding.
      unroll: write the k micro-batches out instead of looping (XLA:CPU is slow in loops).

    Returns:
      gradient_of(params, batch_stats, streams, batch, drawn, key) -> (gradient, new batch_stats, metrics). With one
      micro-batch it takes `teacher`, as `forward` does.
    """

    def whole(params, batch_stats, streams, batch: Batch, drawn: Mix | None, key: Key, **weights):
        def loss_fn(params):
            outputs, stats = forward(params, batch_stats, streams, key, **weights)
            loss, metrics = objective(outputs, batch, drawn)
            return loss, (stats, metrics)

        gradient, (stats, metrics) = jax.grad(loss_fn, has_aux=True)(params)
        return gradient, stats, metrics

    def in_parts(params, batch_stats, streams: Mapping[str, jax.Array], batch: Batch, drawn: Mix | None, key: Key):
        if not all(isinstance(images, jax.Array) for images in streams.values()):
            raise ConfigError(
                "train.gradient_accumulation must be 1 with a mixer of hidden states: it needs all at once"
            )
        parts = _cut(streams, micro_batches), jnp.arange(micro_batches)

        def scan(body, start):
            return jax.lax.scan(body, start, parts, unroll=micro_batches if unroll else 1)

        def run(params, part):
            streams, index = part
            return forward(params, batch_stats, streams, jax.random.fold_in(key, index))

        def pull(gradient, part, cotangents_of):
            outputs, back, stats = jax.vjp(lambda p: run(p, part), params, has_aux=True)
            (more,) = back(cotangents_of(outputs, part[1]))
            return jax.tree.map(jnp.add, gradient, more), (outputs, stats)

        def differentiate(outputs):
            return jax.grad(objective, has_aux=True)(outputs, batch, drawn)

        zeros = jax.tree.map(jnp.zeros_like, params)
        if len(streams) == 1:

            def own(outputs, index):
                # The other items' outputs are not known, nor looked at: each term depends on its own alone.
                placed = jax.tree.map(lambda x: jnp.zeros((micro_batches, *x.shape), x.dtype).at[index].set(x), outputs)
                return jax.tree.map(lambda x: x[index], _cut(differentiate(_join(placed))[0], micro_batches))

            gradient, (outputs, stats) = scan(lambda total, part: pull(total, part, own), zeros)
            metrics = objective(_join(outputs), batch, drawn)[1]
        else:
            _, (outputs, stats) = scan(lambda _, part: (None, run(params, part)), None)
            cotangents, metrics = differentiate(_join(outputs))
            cotangents = _cut(cotangents, micro_batches)

            def known(_, index):
                return jax.tree.map(lambda x: x[index], cotangents)

            gradient, _ = scan(lambda total, part: (pull(total, part, known)[0], None), zeros)
        return gradient, jax.tree.map(lambda x: jnp.mean(x, axis=0), stats), metrics

    return whole if micro_batches == 1 else in_parts


def _cut(tree, count: int):
    """[b ...] -> [k b/k ...], micro-batch m being the items m, m + k ...: a device's own items stay on it."""
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1), tree)


def _join(tree):
    """The inverse of `_cut`."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), tree)
