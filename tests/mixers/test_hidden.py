"""Mixers of hidden states: what their hooks do, alone and in a step, stacked passes and one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Hooked
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.mixers.alignmix import AlignmixStep, align, sinkhorn
from sem_jax.objectives.build import make_objective
from sem_jax.runs.state import jit_init_state
from sem_jax.training.draw import make_draw
from sem_jax.training.forward import make_forward
from sem_jax.training.gradient import make_gradient
from sem_jax.training.optim import make_optimizer
from sem_jax.training.step import make_train_step
from tests.helpers.tiny_net import TinyNet

B, K = 8, 4
MODEL = TinyNet(num_classes=K, width=4)


@pytest.fixture(scope="module")
def setup():
    rng = np.random.default_rng(0)
    batch = Batch(
        jnp.asarray(rng.normal(size=(B, 8, 8, 3)), jnp.float32), jnp.asarray(rng.integers(0, K, B)), jnp.ones(B)
    )
    tx = make_optimizer(0.1)
    return jit_init_state(MODEL, tx, image_shape=(8, 8, 3))(jax.random.key(0)), batch, tx


def mixed_pass(name, batch, key=1, **step):
    """The mixed pass of a batch, with a given draw of the step."""
    mixed, mix = make_mix(MIXERS[name]())(jax.random.key(key), batch.images)
    drawn = mixed.drawn._replace(**step) if step else mixed.drawn
    return Hooked(mixed.images, drawn, mixed.hook), mix


def test_the_hook_mixes_the_layer_that_was_drawn_and_no_other(setup):
    _, batch, _ = setup
    for layer in (0, 1, 2):
        mixed, (lam, pairing) = mixed_pass("manifold_mixup", batch, step=jnp.asarray(layer))
        np.testing.assert_array_equal(mixed.images, batch.images)
        hook = mixed.at_stage(last=3)
        for k in range(4):
            hidden = jax.random.normal(jax.random.key(k), (B, 5, 7))[:, : k + 2]
            w = lam[:, None, None]
            expected = w * hidden + (1 - w) * hidden[pairing] if k == layer else hidden
            np.testing.assert_allclose(hook(k, hidden), expected, atol=1e-6)


def test_every_layer_is_drawn():
    step = MIXERS["manifold_mixup"](layers=(0, 2)).sample_step
    found = jax.vmap(step)(jax.random.split(jax.random.key(0), 200))
    assert set(found.tolist()) == {0, 2} and 70 < int((found == 2).sum()) < 130


def test_layer_zero_is_mixup(setup):
    """With layer 0 the network sees the images of mixup, so the outputs agree."""
    state, batch, _ = setup
    forward = jax.jit(make_forward(MODEL, stacked=False))
    mixed, (lam, pairing) = mixed_pass("manifold_mixup", batch, step=jnp.asarray(0))
    w = lam[:, None, None, None]
    pixels = w * batch.images + (1 - w) * batch.images[pairing]
    a, _ = forward(state.params, state.batch_stats, {"mixed": mixed}, jax.random.key(0))
    b, _ = forward(state.params, state.batch_stats, {"mixed": pixels}, jax.random.key(0))
    np.testing.assert_allclose(a["mixed"].logits, b["mixed"].logits, atol=1e-5)


def test_a_model_with_too_few_stages_is_refused(setup):
    _, batch, _ = setup
    mixed, _ = mixed_pass("manifold_mixup", batch)
    with pytest.raises(ConfigError, match="2 stages, it has 1"):
        mixed.at_stage(last=1)(0, batch.images)
    mixed, _ = mixed_pass("alignmix", batch)
    with pytest.raises(ConfigError, match="needs a map"):
        mixed.at_stage(last=2)(2, jnp.zeros((B, 3)))


@pytest.mark.parametrize("name", ["manifold_mixup", "alignmix"])
def test_what_is_not_mixed_is_left_as_it_is_bit_for_bit(setup, name):
    _, batch, _ = setup
    for seed in range(3):
        mixed, mix = make_mix(MIXERS[name](), prob=0.5)(jax.random.key(seed), batch.images)
        kept = jnp.flatnonzero(mix.lam == 1.0)
        assert 0 < len(kept) < B
        for k in range(3):
            hidden = jax.random.normal(jax.random.key(k), (B, 3, 2, 5)) if k else batch.images
            np.testing.assert_array_equal(mixed.at_stage(last=2)(k, hidden)[kept], hidden[kept])


def reference_sinkhorn(a, b, epsilon, iterations):
    """Sinkhorn's scaling in float64, on the kernel itself."""
    cost = ((a[:, None] - b[None]) ** 2).sum(-1)
    kernel, share = np.exp(-cost / epsilon), np.full(len(a), 1 / len(a))
    v = np.ones(len(a))
    for _ in range(iterations):
        u = share / (kernel @ v)
        v = share / (kernel.T @ u)
    return u[:, None] * kernel * v[None]


def test_sinkhorn_against_float64_numpy(rng):
    a, b = rng.normal(size=(2, 9, 5)) * 0.3
    plan = sinkhorn(jnp.float32(a), jnp.float32(b), epsilon=0.1, iterations=100, tolerance=0.0)
    np.testing.assert_allclose(plan, reference_sinkhorn(a, b, 0.1, 100), atol=1e-5)
    np.testing.assert_allclose(plan.sum(0), 1 / 9, rtol=1e-5)
    np.testing.assert_allclose(plan.sum(1), 1 / 9, rtol=1e-3)
    early = sinkhorn(jnp.float32(a), jnp.float32(b), epsilon=0.1, iterations=100, tolerance=0.1)
    assert 0 < float(jnp.abs(early - plan).max()) < 0.05
    np.testing.assert_allclose(early.sum(0), 1 / 9, rtol=1e-5)


def test_aligning_finds_the_places_of_a_map_that_was_shuffled(rng):
    """x_j = x_i with its positions permuted: aligned, any mixture is x_i (or, in reverse, x_j) itself."""
    a = jnp.asarray(rng.normal(size=(3, 4, 6)), jnp.float32)
    b = a.reshape(12, 6)[rng.permutation(12)].reshape(3, 4, 6)
    options = {"epsilon": 0.01, "iterations": 200, "tolerance": 0.0}
    np.testing.assert_allclose(align(a, b, 0.3, False, **options), a, atol=1e-3)
    np.testing.assert_allclose(align(a, b, 0.3, True, **options), b, atol=1e-3)


@pytest.mark.parametrize("reverse", [False, True])
def test_aligning_does_not_change_the_mean_and_so_not_what_is_pooled(rng, reverse):
    """As the docstring says: with uniform marginals the pooled vector is the mixture whatever the plan."""
    a, b = (jnp.asarray(rng.normal(size=(12, 6)) * 0.3, jnp.float32) for _ in range(2))
    mixed = align(a, b, 0.3, reverse, epsilon=0.1, iterations=100, tolerance=0.0)
    np.testing.assert_allclose(mixed.mean(0), 0.3 * a.mean(0) + 0.7 * b.mean(0), atol=1e-3)


def test_the_plan_is_not_differentiated(rng):
    a, b = (jnp.asarray(rng.normal(size=(6, 3)), jnp.float32) for _ in range(2))
    options = {"epsilon": 0.1, "iterations": 20, "tolerance": 0.1}
    plan = 6 * sinkhorn(a, b, **options)
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(align(a, x, 0.3, False, **options))))(b)
    expected = jax.grad(lambda x: jnp.sum(jnp.square(0.3 * a + 0.7 * plan @ x)))(b)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_an_aligned_step_of_a_mean_pooled_net_has_no_penalty(setup):
    """The penalty only sees AlignMix's steps on the images and on stages before the last one."""
    state, batch, _ = setup
    forward, objective = make_forward(MODEL, stacked=False), make_objective(gamma=0.3)

    @jax.jit
    def penalty(mixed, mix):
        passes = {"mixed": mixed, "clean": batch.images}
        outputs, _ = forward(state.params, state.batch_stats, passes, jax.random.key(0))
        return objective(outputs, batch, mix)[1]["penalty"]

    def of(on_images):
        return float(penalty(*mixed_pass("alignmix", batch, step=AlignmixStep(jnp.asarray(on_images), True))))

    assert of(True) > 0.05
    assert of(False) < 0.02


@pytest.mark.parametrize(("name", "options"), [("manifold_mixup", {}), ("alignmix", {"stage": -2})])
def test_stacked_passes_give_the_numbers_of_one_after_the_other(setup, name, options):
    """The hook only reaches the mixed pass in both; every layer and way is drawn by one of the keys.

    Cases with a penalty of 0 up to rounding are left out, since the gradient of the norm is then made of rounding
    errors: an image paired with itself, AlignMix of the last map, and the layer after which this small net is linear.
    """
    state, batch, tx = setup

    def step(stacked):
        mix = make_mix(MIXERS[name](alpha=1.0, **options), pairing="derangement")
        gradient_of = make_gradient(make_forward(MODEL, stacked=stacked), make_objective(gamma=0.3))
        return jax.jit(make_train_step(make_draw(mix, clean_pass=True), gradient_of, tx))

    steps = step(True), step(False)
    clean = jax.jit(make_forward(MODEL, stacked=False))(
        state.params, state.batch_stats, {"clean": batch.images}, jax.random.key(0)
    )[0]["clean"]
    compared = 0
    for seed in range(6):
        (a, metrics), (b, others) = (f(state, batch, jax.random.key(seed)) for f in steps)
        if float(metrics["penalty"]) < 1e-6:
            continue
        compared += 1
        for metric in metrics:
            np.testing.assert_allclose(metrics[metric], others[metric], rtol=1e-4, atol=1e-6, err_msg=metric)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)
        assert float(metrics["clean_accuracy"]) == float(jnp.mean(clean.logits.argmax(-1) == batch.labels))
    assert compared >= 3


def test_tokens_are_positions_too(rng):
    """Hidden states [b n d], of transformers and vision MLPs."""
    images = jnp.zeros((B, 4, 4, 3))
    tokens = jnp.asarray(rng.normal(size=(B, 5, 3)), jnp.float32)
    for step in range(2):
        mixed, (lam, pairing) = make_mix(MIXERS["alignmix"](input_prob=0.0, iterations=300, tolerance=0.0))(
            jax.random.key(step), images
        )
        out = mixed.at_stage(last=6)(6, tokens)
        assert out.shape == tokens.shape and not np.array_equal(out, tokens)
        w = lam[:, None]
        np.testing.assert_allclose(out.mean(1), w * tokens.mean(1) + (1 - w) * tokens[pairing].mean(1), atol=0.05)
