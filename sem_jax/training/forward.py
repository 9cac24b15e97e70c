"""Runs the images of a step through the model: the mixed ones, and beside them the clean ones that the penalty needs.

    forward = make_forward(model, stacked=False, bn_running="both")
    outputs, batch_stats = forward(params, batch_stats, {"mixed": mixed, "clean": images}, key)

SEM takes two passes, not three: x_j is a permutation of x_i within the batch, so g(x_j) = g(x_i)[pairing]. This holds
with BatchNorm in training mode too, because its statistics do not depend on the order of the batch.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp

from sem_jax.interfaces import Hooked, Key, Model, Outputs
from sem_jax.training.running import change_of, one_after_the_other, watched

Passes = Mapping[str, jax.Array | Hooked]  # "mixed", "clean" -> images f32[b h w c]
Forward = Callable[..., tuple[dict[str, Outputs], Any]]

PASSES = ("auto", "stacked", "sequential")
BN_RUNNING = ("both", "mixed", "clean", "three_passes")
# What is stored for the backward pass: everything; the results of convolutions and matrix products, from which
# BatchNorm and ReLU are computed again; or the images of a pass alone.
REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "elementwise": lambda primitive, *_, **__: primitive.name in ("conv_general_dilated", "dot_general"),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def make_forward(
    model: Model, *, stacked: bool, ordered: bool = False, bn_running: str = "both", remat: str = "none"
) -> Forward:
    """The forward passes of a training step.

    Each pass has BatchNorm statistics of its own. The running averages are updated once a step, with the mean of the
    passes' statistics ("both") or with those of one pass; or as PyTorch does it in Algorithm 1's three passes, of which
    the second and third have the same statistics (see `running`).

    Args:
      stacked: True runs the passes in one call, vmapped over a leading axis, so that convolutions see one large batch.
        False runs one after the other. The numbers are equal up to rounding; the platform decides which is faster.
      ordered: of passes that are not stacked, the second begins when the first has ended, and their backward passes
        follow each other too. XLA may otherwise interleave them, and lets both read one converted copy of a kernel.
        Nets without BatchNorm are left as they are: to interleave their passes is the better choice.
      bn_running: one of BN_RUNNING; a single pass is taken in any case.
      remat: a key of REMAT; less memory for more computation, the numbers are the same.

    Returns:
      forward(params, batch_stats, passes, key, teacher=None) -> (outputs by pass, new batch_stats). A pass is given
      images f32[b h w c], or `Hooked` images, whose hook the model calls at its stages in that pass alone. `teacher`
      are parameters for the clean pass, which then has no gradient and enters no running average.
    """
    three = bn_running == "three_passes"
    run = _make_run(model, remat, as_change=three)

    def forward(params, batch_stats, passes: Passes, key: Key, teacher=None):
        keys = [jax.random.fold_in(key, i) for i in range(len(passes))]
        images = {name: x.images if isinstance(x, Hooked) else x for name, x in passes.items()}
        variables = {"params": params, "batch_stats": batch_stats}
        hooks = {name: x.at_stage_of(model, variables) for name, x in passes.items() if isinstance(x, Hooked)}
        alike = teacher is None and len({x.shape for x in images.values()}) == 1
        if stacked and len(passes) > 1 and alike:
            results = _at_once(run, params, batch_stats, images, hooks, keys)
        else:
            weights = {} if teacher is None else {"clean": jax.lax.stop_gradient(teacher)}
            results, before = {}, ""
            for (name, x), key in zip(images.items(), keys, strict=True):
                own = weights.get(name, params)
                if ordered and before and batch_stats:  # also of the gradients: the barrier holds both ways
                    own, results[before] = jax.lax.optimization_barrier((own, results[before]))
                results[name], before = run(own, batch_stats, x, key, hooks.get(name)), name
        outputs = {name: result[0] for name, result in results.items()}
        updates = {name: result[1] for name, result in results.items()}
        if teacher is not None and len(updates) > 1:
            del updates["clean"]  # statistics of another net
        if three:
            return outputs, one_after_the_other(batch_stats, updates)
        if len(updates) > 1 and bn_running != "both":  # there may be several mixed passes
            updates = {name: update for name, update in updates.items() if name.startswith(bn_running)}
        return outputs, jax.tree.map(lambda *xs: sum(xs) / len(xs), *updates.values())

    return forward


def _make_run(model: Model, remat: str, as_change: bool) -> Callable[..., tuple[Outputs, Any]]:
    """One pass: (outputs, new batch_stats, or what it changes of them)."""

    def run(params, batch_stats, images, key, at_stage=None):
        with watched() if as_change else nullcontext({}) as seen:
            outputs, updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
                **({} if at_stage is None else {"at_stage": at_stage}),
            )
        new = updated.get("batch_stats", {})
        return outputs, change_of(batch_stats, new, seen) if as_change else new

    policy = REMAT[remat]
    return run if policy is None else jax.checkpoint(run, policy=policy, static_argnums=4)


def _at_once(run, params, batch_stats, images, hooks, keys) -> dict[str, tuple[Outputs, Any]]:
    """All passes in one call of the model, vmapped."""
    names = list(images)

    def one(x, key, index):
        def at_stage(k, hidden):
            for name, hook in hooks.items():
                hidden = jnp.where(index == names.index(name), hook(k, hidden), hidden)
            return hidden

        return run(params, batch_stats, x, key, at_stage if hooks else None)

    results = jax.vmap(one)(jnp.stack(list(images.values())), jnp.stack(keys), jnp.arange(len(names)))
    return {name: jax.tree.map(lambda x, i=i: x[i], results) for i, name in enumerate(names)}
