"""One optimizer step, and many of them in one compiled call.

    forward = make_forward(model, stacked=False, bn_running="both")
    train_step = make_train_step(forward, tx, mix, objective, clean_pass=True)
    state, metrics = jax.jit(train_step, donate_argnums=0)(state, batch, key)

SEM takes two passes, not three: x_j is a permutation of x_i within the batch, so g(x_j) = g(x_i)[pairing], with
BatchNorm in training mode too, whose statistics do not depend on the order of the batch.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sem_jax.interfaces import Batch, Hooked, Key, Metrics, MixFn, Outputs, StageHook
from sem_jax.rngs import key_for
from sem_jax.runs.state import TrainState
from sem_jax.training.accumulate import make_gradient
from sem_jax.training.shortcuts import average_over_mixes, mixed_name, pair_within

# What of a step can be NaN or infinite; bit i of the metric `not_finite` stands for the i-th.
QUANTITIES = ("loss", "gradient", "BatchNorm statistics", "another metric")

Stream = jax.Array | Hooked
Forward = Callable[[Any, Any, Mapping[str, Stream], Key], tuple[dict[str, Outputs], Any]]


# What the backward pass finds stored: everything; the results of convolutions and matrix products, from which
# BatchNorm and ReLU are computed again; or a stream's images alone.
REMAT = {
    "none": None,
    "elementwise": lambda primitive, *_, **__: primitive.name in ("conv_general_dilated", "dot_general"),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def make_forward(model: nn.Module, *, stacked: bool, bn_running: str = "both", remat: str = "none") -> Forward:
    """Runs the streams ("mixed", "clean") of a step through the model in training mode.

    Every stream has BatchNorm statistics of its own, as in separate passes. The running averages are updated once
    a step, with the mean of the streams' statistics ("both") or with those of one stream.

    Args:
      model: Linen module with `__call__(images, *, train) -> Outputs`.
      stacked: True runs the streams in one call, vmapped over a leading axis: the convolutions see one large batch.
        False runs one after the other. The numbers are the same up to rounding; which is faster depends on the
        platform.
      bn_running: "both", "mixed" or "clean"; with a single stream it is that stream in any case.
      remat: a key of REMAT; less memory for more computation, the numbers are the same.

    Returns:
      forward(params, batch_stats, streams, key, teacher=None) -> (outputs by stream, new batch_stats). A stream is
      images f32[b h w c], or `Hooked` images, whose hook the model calls at its stages for that stream alone.
      `teacher` are parameters for the clean stream, which then has no gradient.
    """

    def run(params, batch_stats, images, key, at_stage=None):
        outputs, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
            **({} if at_stage is None else {"at_stage": at_stage}),
        )
        return outputs, updated.get("batch_stats", {})

    if REMAT[remat] is not None:
        run = jax.checkpoint(run, policy=REMAT[remat], static_argnums=4)

    def forward(params, batch_stats, streams, key, teacher=None):
        names = list(streams)
        keys = [jax.random.fold_in(key, i) for i in range(len(names))]
        streams, hooks = _split_hooks(model, params, batch_stats, streams)
        alike = teacher is None and len({images.shape for images in streams.values()}) == 1
        if stacked and len(names) > 1 and alike:
            images = jnp.stack([streams[name] for name in names])

            def one(images, key, index):
                def at_stage(k, hidden):
                    for name, hook in hooks.items():
                        hidden = jnp.where(index == names.index(name), hook(k, hidden), hidden)
                    return hidden

                return run(params, batch_stats, images, key, at_stage if hooks else None)

            both, stats = jax.vmap(one)(images, jnp.stack(keys), jnp.arange(len(names)))
            outputs = {name: jax.tree.map(lambda x, i=i: x[i], both) for i, name in enumerate(names)}
            updates = [jax.tree.map(lambda x, i=i: x[i], stats) for i in range(len(names))]
        else:
            weights = {} if teacher is None else {"clean": jax.lax.stop_gradient(teacher)}
            results = [
                run(weights.get(name, params), batch_stats, streams[name], k, hooks.get(name))
                for name, k in zip(names, keys, strict=True)
            ]
            outputs = {name: result[0] for name, result in zip(names, results, strict=True)}
            updates = [result[1] for result in results]
        if len(names) > 1 and bn_running != "both":
            return outputs, updates[names.index(bn_running)]
        return outputs, jax.tree.map(lambda *xs: sum(xs) / len(xs), *updates)

    return forward


def _split_hooks(
    model: nn.Module, params: Any, batch_stats: Any, streams: Mapping[str, Stream]
) -> tuple[dict[str, jax.Array], dict[str, StageHook]]:
    """(images by stream, hooks of the streams that have one), the hooks told which stage of the model is the last."""
    variables = {"params": params, "batch_stats": batch_stats}
    images = {name: x.images if isinstance(x, Hooked) else x for name, x in streams.items()}
    hooks = {name: x.at_stage_of(model, variables) for name, x in streams.items() if isinstance(x, Hooked)}
    return images, hooks


def make_train_step(
    forward: Forward,
    tx: optax.GradientTransformation,
    mix: MixFn | None,
    objective: Callable,
    *,
    clean_pass: bool,
    skip_nonfinite: bool = False,
    strength: Callable[[jax.Array], jax.Array] | None = None,
    penalty_weight: Callable[[jax.Array], jax.Array] | None = None,
    saliency: Callable[..., jax.Array] | None = None,
    micro_batches: int = 1,
    unroll: bool = False,
    mixes_per_clean: int = 1,
    penalty_items: int | None = None,
    teacher: bool = False,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """One step: draw, mix, run, differentiate, update. Pure; jit it with the state donated.

    Args:
      forward: from `make_forward`.
      tx: the optimizer.
      mix: from `make_mix`, or None for a plain ERM step (and for the last stage of ES).
      objective: from `make_objective`.
      clean_pass: whether the clean images are run beside the mixed ones; the penalty needs them.
      skip_nonfinite: leave the state as it is, but for the step count, when `finite` is 0.
      strength: step -> f32[] in [0, 1], by which mixing is more or less likely (see `mixers.schedule`).
      penalty_weight: step -> f32[] in [0, 1], by which gamma is multiplied (see `objectives.sem.warmup`).
      saliency: (variables, images, labels) -> f32[b gh gw], for mixers that ask the net as it is now; computed only
        for those.
      micro_batches, unroll: see `accumulate.make_gradient`.
      mixes_per_clean: K > 1 mixes the batch K times, and the K streams share the clean one.
      penalty_items: the clean pass and the penalty have only the first so many items; None = all.
      teacher: the clean features are those of the average that `shortcuts.with_teacher` keeps in opt_state.

    Returns:
      train_step(state, batch, key, take=None) -> (state, metrics of f32[]). `key` is the run's key: the step is
      folded in here. `take(pairing)` fetches the partners' images (see `make_mix`). Metrics are the objective's
      plus grad_norm, the global norm of the gradient; finite, 1 when loss, gradient, BatchNorm's statistics and the
      other metrics all are; and not_finite, which of these QUANTITIES are not, as the sum of 2**index.
    """

    if mix is not None and penalty_items is not None:
        mix = pair_within(mix, penalty_items)
    if mix is not None and mixes_per_clean > 1:
        objective = average_over_mixes(objective, mixes_per_clean)

    def train_step(state: TrainState, batch: Batch, key: Key, take: Callable | None = None):
        if mix is None:
            streams, drawn = {"clean": batch.images}, None
        else:
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            options = {
                "labels": batch.labels,
                "strength": None if strength is None else strength(state.step),
                "scorer": None if saliency is None else functools.partial(saliency, variables),
            }
            mixed, drawn = mix(key_for(key, "mixer", state.step), batch.images, take, **options)
            streams = {"mixed": mixed}
            if mixes_per_clean > 1:
                drawn = (drawn,)
            for k in range(1, mixes_per_clean):
                name = mixed_name(k)
                streams[name], again = mix(key_for(key, f"mixer{k}", state.step), batch.images, take, **options)
                drawn += (again,)
            if clean_pass:
                streams["clean"] = batch.images[:penalty_items]

        weighted = objective
        if penalty_weight is not None and mix is not None:
            weighted = functools.partial(objective, weight=penalty_weight(state.step))
        gradient_of = make_gradient(forward, weighted, micro_batches=micro_batches, unroll=unroll)
        dropout_key = key_for(key, "dropout", state.step)
        weights = {"teacher": state.opt_state.teacher} if teacher and mix is not None else {}
        gradient, batch_stats, metrics = gradient_of(
            state.params, state.batch_stats, streams, batch, drawn, dropout_key, **weights
        )
        metrics["grad_norm"] = optax.tree.norm(gradient)
        # The statistics too: XLA:CPU's relu turns NaN into 0, so that a NaN in the images can leave a finite loss
        # and gradient behind, and running averages that are lost.
        others = [value for name, value in metrics.items() if name not in ("loss", "grad_norm")]
        looked_at = ([metrics["loss"]], [metrics["grad_norm"]], jax.tree.leaves(batch_stats), others)
        bad = [~jnp.all(jnp.stack([jnp.isfinite(x).all() for x in xs])) if xs else jnp.array(False) for xs in looked_at]
        metrics["not_finite"] = sum(jnp.where(is_bad, float(2**i), 0.0) for i, is_bad in enumerate(bad))
        finite = metrics["not_finite"] == 0
        metrics["finite"] = finite.astype(jnp.float32)
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        new = (optax.apply_updates(state.params, updates), batch_stats, opt_state)
        if skip_nonfinite:
            old = (state.params, state.batch_stats, state.opt_state)
            new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        return TrainState(state.step + 1, *new), metrics

    return train_step


def zero_sums(train_step: Callable, fetch: Callable, state: TrainState, data: Any, rows: jax.Array, key: Key) -> dict:
    """Empty sums for `make_train_call`: the metrics' names come from tracing one step, nothing is computed."""

    def one(state, data, rows, key):
        batch, take = fetch(data, rows, key, state.step)
        return train_step(state, batch, key, take)[1]

    names = jax.eval_shape(one, state, data, rows, key)
    counts = {"bad_steps": 0, "first_bad": -1, "first_bad_parts": 0}
    return {name: jnp.zeros(()) for name in names if name != "not_finite"} | {
        name: jnp.full((), value, jnp.int32) for name, value in counts.items()
    }


def make_train_call(train_step: Callable, fetch: Callable, *, looped: bool) -> Callable:
    """Many steps in one compiled call, summing the metrics on the device.

    The number of steps is an argument of the compiled loop, not a constant in it: one program serves every length,
    and a run that stops anywhere and continues is computed by the very same instructions.

    Not on CPU: XLA:CPU brings convolutions into the form its fast kernels take only outside of loops, and the
    gradients of a looped step run 10 to 18 times slower (jax 0.10.2). With `looped` false the compiled call is one
    step and the loop is Python's; signature and numbers are the same.

    Args:
      train_step: from `make_train_step`.
      fetch: (data, rows i32[b], key, step) -> (Batch, take), from `data.pipeline.make_fetch`.
      looped: loop on the device.

    Returns:
      call(state, sums, data, order i32[n b], first, count, key) -> (state, sums), jitted, state and sums donated:
      runs the steps with the rows order[first : first + count]; without `looped`, the one step order[first].
      `sums` holds every metric summed over the finite steps, `bad_steps`, the number of steps that were not
      finite, `first_bad`, the first of them or -1, and `first_bad_parts`, its not_finite.
    """

    def one(state, sums, data, rows, key):
        batch, take = fetch(data, rows, key, state.step)
        new, metrics = train_step(state, batch, key, take)
        finite = metrics["finite"] > 0
        parts = metrics.pop("not_finite").astype(jnp.int32)
        # A step without the clean pass leaves that one's sums as they are.
        total = sums | {name: sums[name] + jnp.where(finite, value, 0.0) for name, value in metrics.items()}
        first = (sums["first_bad"] < 0) & ~finite
        total["bad_steps"] = sums["bad_steps"] + ~finite
        total["first_bad"] = jnp.where(first, state.step, sums["first_bad"])
        total["first_bad_parts"] = jnp.where(first, parts, sums["first_bad_parts"])
        return new, total

    def call(state, sums, data, order, first, count, key):
        if not looped:
            return one(state, sums, data, order[first], key)
        return jax.lax.fori_loop(0, count, lambda i, carry: one(*carry, data, order[first + i], key), (state, sums))

    return jax.jit(call, donate_argnums=(0, 1))
