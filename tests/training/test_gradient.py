"""Micro-batches and rematerialisation: the numbers of the whole batch, in less memory."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.interfaces import Batch, Outputs
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.models import MODELS
from sem_jax.objectives.build import make_objective
from sem_jax.runs.state import init_state, jit_init_state
from sem_jax.training.forward import make_forward
from sem_jax.training.gradient import make_gradient
from sem_jax.training.optim import make_optimizer
from tests.helpers.tiny_net import TinyNet
from tests.helpers.training import build_step

B, K = 12, 4
KEY = jax.random.key(3)


class NoNorm(nn.Module):
    """No BatchNorm, no dropout: every image for itself."""

    @nn.compact
    def __call__(self, images, *, train):
        del train
        features = jnp.mean(nn.gelu(nn.Conv(8, (3, 3))(images)), axis=(1, 2))
        return Outputs(features, nn.Dense(K)(features))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(B, 8, 8, 3)), jnp.float32)
    return Batch(images, jnp.asarray(rng.integers(0, K, B)), jnp.ones(B))


def state_of(model):
    tx = make_optimizer(0.1, weight_decay=1e-4)
    return jit_init_state(model, tx, image_shape=(8, 8, 3))(jax.random.key(0)), tx


def close(a, b, rtol):
    a, b = (jax.flatten_util.ravel_pytree(x)[0] for x in (a, b))
    assert float(jnp.linalg.norm(a - b)) <= rtol * float(jnp.linalg.norm(b))


@pytest.mark.parametrize(
    "method, unroll",
    [
        ("cutmix+sem", False),
        pytest.param("erm", True, marks=pytest.mark.slow),
        pytest.param("mixup", False, marks=pytest.mark.slow),
    ],
)
def test_without_batch_norm_the_step_is_that_of_the_whole_batch(batch, method, unroll):
    model = NoNorm()
    state, tx = state_of(model)
    mixer, _, sem = method.partition("+")

    def step(parts):
        return build_step(
            model,
            tx,
            mixer=None if mixer == "erm" else mixer,
            clean=bool(sem),
            parts=parts,
            unroll=unroll,
            gamma=0.5 if sem else 0.0,
            label_smoothing=0.1,
        )

    (one, metrics), (many, metrics_many) = (jax.jit(step(k))(state, batch, KEY) for k in (1, 3))
    assert set(metrics) == set(metrics_many)
    for name in metrics:
        np.testing.assert_allclose(metrics_many[name], metrics[name], rtol=2e-5, atol=1e-6, err_msg=name)
    close(
        jax.tree.map(jnp.subtract, many.params, state.params),
        jax.tree.map(jnp.subtract, one.params, state.params),
        1e-4,
    )


@pytest.mark.parametrize("sem", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_with_batch_norm_it_is_the_gradient_with_statistics_of_the_parts(batch, sem):
    """Against one differentiation of the whole, with the parts on an axis of their own (vmap)."""
    model, k = TinyNet(num_classes=K), 3
    state, _ = state_of(model)
    mixed, drawn = jax.jit(make_mix(MIXERS["mixup"](alpha=1.0)))(KEY, batch.images)
    passes = {"mixed": mixed, "clean": batch.images} if sem else {"mixed": mixed}
    objective = make_objective(gamma=0.5 if sem else 0.0)

    @jax.jit
    def apply(params, images):
        variables = {"params": params, "batch_stats": state.batch_stats}
        return model.apply(variables, images, train=True, mutable=["batch_stats"])

    @jax.jit
    @jax.grad
    def reference(params):
        outputs = {}
        for name, images in passes.items():
            parts = jnp.stack([images[m::k] for m in range(k)])
            out = jax.vmap(apply, in_axes=(None, 0))(params, parts)[0]
            order = np.argsort(np.concatenate([np.arange(B)[m::k] for m in range(k)]))
            outputs[name] = jax.tree.map(lambda x, order=order: jnp.concatenate(x)[order], out)
        return objective(outputs, batch, drawn)[0]

    ours = jax.jit(make_gradient(make_forward(model, stacked=False), objective, micro_batches=k, unroll=True))
    gradient, stats, _ = ours(state, passes, batch, drawn, KEY)
    close(gradient, reference(state.params), 1e-5)
    each = [apply(state.params, x[m::k])[1]["batch_stats"] for m in range(k) for x in passes.values()]
    close(stats, jax.tree.map(lambda *xs: sum(xs) / len(xs), *each), 1e-5)


@pytest.mark.parametrize("remat, stacked", [("elementwise", False), pytest.param("full", True, marks=pytest.mark.slow)])
def test_rematerialised_steps_have_the_same_numbers(batch, remat, stacked):
    model = TinyNet(num_classes=K, dropout=0.3)
    state, tx = state_of(model)

    def step(remat):
        return build_step(model, tx, stacked=stacked, remat=remat, gamma=0.5)

    (one, metrics), (again, metrics_again) = (jax.jit(step(name))(state, batch, KEY) for name in ("none", remat))
    for name in metrics:
        np.testing.assert_allclose(metrics_again[name], metrics[name], rtol=1e-5, err_msg=name)
    close(again.params, one.params, 1e-5)
    close(again.batch_stats, one.batch_stats, 1e-6)


def test_what_it_costs_in_flops(batch):
    """SEM in micro-batches: 8 / 6 of a step; mixup: as before; remat of elementwise operations: as before."""
    model = TinyNet(num_classes=K, width=64)
    tx = make_optimizer(0.1)
    state = jax.eval_shape(lambda: init_state(model, tx, jax.random.key(0), image_shape=(32, 32, 3)))
    sizes = ((64, 32, 32, 3), jnp.float32), ((64,), jnp.int32), ((64,), jnp.float32)
    shapes = Batch(*(jax.ShapeDtypeStruct(*size) for size in sizes))

    def flops(gamma, micro_batches=1, remat="none"):
        step = build_step(model, tx, remat=remat, clean=gamma > 0, parts=micro_batches, gamma=gamma)
        return jax.jit(step).lower(state, shapes, jax.eval_shape(lambda: jax.random.key(0))).cost_analysis()["flops"]

    mixup, sem = flops(0.0), flops(0.5)
    assert abs(flops(0.0, 2) / mixup - 1) < 0.02
    assert abs(flops(0.5, 2) / sem - 4 / 3) < 0.02
    assert abs(flops(0.5, remat="elementwise") / sem - 1) < 0.03


def test_what_rematerialisation_stores():
    """Bytes that the forward pass hands to the backward pass, from their shapes: nothing is run."""
    model = MODELS["preact_resnet"](num_classes=10, width=8)
    images = jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))

    def stored(remat):
        forward = make_forward(model, stacked=False, remat=remat)

        def backward(params, images):
            run = lambda p: forward(p, variables["batch_stats"], {"clean": images}, jax.random.key(0))[0]  # noqa: E731
            return jax.vjp(run, params)[1]

        variables["batch_stats"] = jax.tree.map(lambda x: jnp.zeros(x.shape), variables["batch_stats"])
        return sum(
            x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(backward, variables["params"], images))
        )

    everything, products, nothing = (stored(name) for name in ("none", "elementwise", "full"))
    assert products < 0.55 * everything
    assert nothing < 0.1 * everything
