"""Schedules at the steps that matter, and the optimizers against PyTorch's."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sem_jax.training.optim import SCHEDULES, choose_schedule, make_optimizer, make_schedule


def test_step_schedule_of_the_recipe():
    """200 epochs of 390 steps: x0.1 exactly at the first step of epochs 100 and 150."""
    rate = make_schedule(total_steps=78_000, learning_rate=0.1)
    steps = np.asarray([0, 38_999, 39_000, 58_499, 58_500, 77_999])
    np.testing.assert_allclose([rate(s) for s in steps], [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_auto_is_the_recipe_but_for_short_runs():
    assert [choose_schedule("auto", epochs) for epochs in (1, 59, 60, 200)] == ["onecycle", "onecycle", "step", "step"]
    assert [choose_schedule(name, 2) for name in SCHEDULES[1:]] == list(SCHEDULES[1:])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_schedule_exceeds_the_learning_rate(schedule):
    rate = make_schedule(total_steps=100, learning_rate=0.3, schedule=schedule)
    values = [float(rate(s)) for s in range(100)]
    assert max(values) == pytest.approx(0.3, rel=1e-3) and min(values) >= 0.0
    if schedule in ("cosine", "onecycle"):
        assert values[-1] < 0.001


def test_warmup_is_linear_from_zero():
    rate = make_schedule(total_steps=100, learning_rate=0.2, schedule="constant", warmup_steps=10)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(50)], [0.0, 0.1, 0.2, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "momentum", "nesterov", "clip"),
    [
        ("sgd", 0.9, False, 0.0),
        ("sgd", 0.9, True, 2.0),
        ("sgd", 0.0, False, 0.0),
        ("adamw", 0.9, False, 0.0),
        ("adamw", 0.5, False, 2.0),
    ],
)
def test_optimizers_are_pytorchs(rng, name, momentum, nesterov, clip):
    torch = pytest.importorskip("torch")
    start = rng.normal(size=5).astype(np.float32)
    gradients = rng.normal(size=(6, 5)).astype(np.float32)
    peer = torch.nn.Parameter(torch.from_numpy(start.copy()))
    if name == "sgd":
        theirs = torch.optim.SGD([peer], lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.01)
    else:
        theirs = torch.optim.AdamW([peer], lr=0.1, betas=(momentum, 0.999), weight_decay=0.01)
    tx = make_optimizer(0.1, name=name, momentum=momentum, nesterov=nesterov, weight_decay=0.01, clip_norm=clip)
    params = jnp.asarray(start)
    state = tx.init(params)
    for gradient in gradients:
        peer.grad = torch.from_numpy(gradient.copy())
        if clip:
            torch.nn.utils.clip_grad_norm_([peer], clip)
        theirs.step()
        updates, state = tx.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, peer.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_clipping_against_float64_and_before_weight_decay(rng):
    """Two leaves share one norm; what is below the limit stays to the bit; the decay of the weights is not clipped."""
    sizes, clip, decay, rate = {"a": (3, 2), "b": (4,)}, 1.5, 0.1, 0.5
    tx = make_optimizer(rate, momentum=0.9, weight_decay=decay, clip_norm=clip)
    params = {name: jnp.asarray(rng.normal(size=size), jnp.float32) for name, size in sizes.items()}
    state, expected = tx.init(params), {name: np.asarray(x, np.float64) for name, x in params.items()}
    trace, clipped = {name: np.zeros(size) for name, size in sizes.items()}, []
    for scale in (3.0, 0.1, 1e4, 0.0):
        gradient = {name: np.asarray(scale * rng.normal(size=size), np.float32) for name, size in sizes.items()}
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        norm = np.sqrt(sum(np.sum(np.float64(x) ** 2) for x in gradient.values()))
        clipped.append(norm > clip)
        for name in sizes:
            step = np.float64(gradient[name]) * min(1.0, clip / max(norm, 1e-30)) + decay * expected[name]
            trace[name] = 0.9 * trace[name] + step
            expected[name] = expected[name] - rate * trace[name]
    assert clipped == [True, False, True, False]
    for name in sizes:
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-5, atol=1e-6)
    small = {"a": jnp.asarray([0.3, -0.2])}
    kept, _ = (plain := make_optimizer(1.0, clip_norm=1.0)).update(small, plain.init(small), small)
    unclipped, _ = (plain := make_optimizer(1.0)).update(small, plain.init(small), small)
    np.testing.assert_array_equal(kept["a"], unclipped["a"])
