"""The step: two passes equal three, stacked equals sequential, FLOPs, running averages, one compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sem_jax import config
from sem_jax.data.pipeline import as_rows, epoch_order, make_fetch
from sem_jax.errors import RunError
from sem_jax.interfaces import Batch, Mean
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.models import MODELS
from sem_jax.objectives.build import make_objective
from sem_jax.objectives.losses import label_loss, mixed_targets
from sem_jax.objectives.sem import rising, sem_penalty
from sem_jax.rngs import key_for
from sem_jax.runs.state import init_state, jit_init_state
from sem_jax.training import assemble
from sem_jax.training.calls import Sums, make_advance, make_call, read_progress, to_plain, zero_sums
from sem_jax.training.draw import draw_clean
from sem_jax.training.forward import make_forward
from sem_jax.training.gradient import make_gradient
from sem_jax.training.optim import at_step, make_optimizer, make_schedule
from sem_jax.training.step import make_train_step
from tests.helpers.tiny_net import TinyNet
from tests.helpers.training import build_step

B, K, GAMMA = 16, 4, 0.3
MODEL = TinyNet(num_classes=K)


@pytest.fixture(scope="module")
def setup():
    rng = np.random.default_rng(0)
    batch = Batch(
        jnp.asarray(rng.normal(size=(B, 8, 8, 3)), jnp.float32), jnp.asarray(rng.integers(0, K, B)), jnp.ones(B)
    )
    tx = make_optimizer(0.1, weight_decay=1e-4)
    return jit_init_state(MODEL, tx, image_shape=(8, 8, 3))(jax.random.key(0)), batch, tx


def build(tx, *, gamma=GAMMA, model=MODEL, **options):
    return build_step(model, tx, gamma=gamma, **options)


def leaves_close(a, b, rtol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert np.linalg.norm(x - y) <= rtol * max(np.linalg.norm(y), 1e-8)


@pytest.mark.parametrize("mixer", ["mixup", "cutmix"])
def test_two_passes_equal_algorithm_1_with_three(setup, mixer):
    """Loss to 1e-6 and gradients to 1e-5 relative, with x_j really run through the network a third time."""
    state, batch, _ = setup
    mixed, mix = jax.jit(make_mix(MIXERS[mixer](alpha=1.0)))(jax.random.key(1), batch.images)

    def run(params, images):
        variables = {"params": params, "batch_stats": state.batch_stats}
        return MODEL.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    @jax.jit
    @jax.value_and_grad
    def three(params):
        partner = run(params, batch.images[mix.pairing])
        anchor, mixture = run(params, batch.images), run(params, mixed)
        targets = mixed_targets(batch.labels, mix.lam, mix.pairing, num_classes=K)
        penalty = sem_penalty(mixture.features, anchor.features, partner.features, mix.lam)
        return jnp.mean(label_loss(mixture.logits, targets) + GAMMA * penalty)

    def two(**options):
        forward, objective = make_forward(MODEL, **options), make_objective(gamma=GAMMA)

        def loss(params):
            passes = {"mixed": mixed, "clean": batch.images}
            return objective(forward(params, state.batch_stats, passes, jax.random.key(0))[0], batch, mix)[0]

        return jax.jit(jax.value_and_grad(loss))

    loss, gradient = three(state.params)
    for options in ({"stacked": False}, {"stacked": True}, {"stacked": False, "ordered": True}):
        ours, our_gradient = two(**options)(state.params)
        np.testing.assert_allclose(ours, loss, rtol=1e-6)
        flat, _ = jax.flatten_util.ravel_pytree(gradient)
        our_flat, _ = jax.flatten_util.ravel_pytree(our_gradient)
        assert float(jnp.linalg.norm(flat - our_flat) / jnp.linalg.norm(flat)) < 1e-5


def test_ordered_passes_have_a_barrier_forward_and_one_backward(setup):
    state, batch, _ = setup

    def barriers(model=MODEL, state=state, **options):
        forward = make_forward(model, stacked=False, **options)

        def loss(params):
            passes = {"mixed": batch.images, "clean": batch.images}
            outputs = forward(params, state.batch_stats, passes, jax.random.key(0))[0]
            return sum(jnp.sum(it.features) for it in outputs.values())

        return str(jax.make_jaxpr(jax.grad(loss))(state.params)).count("optimization_barrier")

    assert barriers() == 0 and barriers(ordered=True) == 2
    plain = MODELS["mlp_mixer"](num_classes=K, depth=1, width=16, patch_size=4)
    of_it = jit_init_state(plain, make_optimizer(0.1), image_shape=(8, 8, 3))(jax.random.key(0))
    assert barriers(plain, of_it, ordered=True) == 0, "no BatchNorm"


@pytest.mark.parametrize("name, devices, expected", [("tpu", 1, True), ("tpu", 4, False), ("gpu", 1, False)])
def test_only_a_single_tpu_chip_orders_its_passes(monkeypatch, name, devices, expected):
    """Of several chips the two passes share collectives: half as many."""
    seen = {}
    monkeypatch.setattr(assemble, "make_forward", lambda _, **options: seen.update(options))
    monkeypatch.setattr(assemble, "make_gradient", lambda *_, **__: None)
    cfg = config.apply_method(config.get_default(), "mixup+sem")
    assemble.plain_step(cfg, MODEL, make_optimizer(0.1), on=assemble.Platform(name, devices))
    assert seen["ordered"] == expected


def test_stacked_equals_sequential_running_averages_and_dropout_included(setup):
    _, batch, tx = setup
    model = TinyNet(num_classes=K, dropout=0.3)
    state = jit_init_state(model, tx, image_shape=(8, 8, 3))(jax.random.key(0))
    a, metrics_a = jax.jit(build(tx, stacked=True, model=model))(state, batch, jax.random.key(1))
    b, metrics_b = jax.jit(build(tx, stacked=False, model=model))(state, batch, jax.random.key(1))
    np.testing.assert_allclose(metrics_a["loss"], metrics_b["loss"], rtol=1e-5)
    leaves_close(a.batch_stats, b.batch_stats, 1e-5)
    leaves_close(a.params, b.params, 1e-4)


def test_flops_of_a_sem_step_are_two_mixup_steps(setup):
    state, batch, tx = setup
    model = MODELS["preact_resnet"](num_classes=10, width=8)
    state = jax.eval_shape(lambda: init_state(model, tx, jax.random.key(0), image_shape=(32, 32, 3)))
    batch = Batch(
        jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32),
        jax.ShapeDtypeStruct((64,), jnp.int32),
        jax.ShapeDtypeStruct((64,), jnp.float32),
    )
    key = jax.eval_shape(lambda: jax.random.key(0))

    def flops(**options):
        step = build(tx, model=model, **options)
        return jax.jit(step).lower(state, batch, key).cost_analysis()["flops"]

    mixup = flops(gamma=0.0, clean=False)
    for stacked in (False, True):
        assert abs(flops(stacked=stacked) / mixup - 2.0) < 0.02
    assert abs(flops(clean_features="stop_gradient") / mixup - 4 / 3) < 0.02


def test_bn_running_averages_come_from_the_pass_that_is_named(setup):
    state, batch, tx = setup
    key = jax.random.key(3)
    new = {
        name: jax.jit(build(tx, bn_running=name))(state, batch, key)[0].batch_stats
        for name in ("mixed", "clean", "both")
    }
    mix = jax.jit(make_mix(MIXERS["mixup"](alpha=1.0)))
    mixed, _ = mix(key_for(key, "mixer", state.step), batch.images)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    for name, images in (("mixed", mixed), ("clean", batch.images)):
        updated = jax.jit(lambda v, x: MODEL.apply(v, x, train=True, mutable=["batch_stats"])[1])(variables, images)
        leaves_close(new[name], updated["batch_stats"], 1e-5)
    leaves_close(new["both"], jax.tree.map(lambda a, b: (a + b) / 2, new["mixed"], new["clean"]), 1e-6)


def test_running_averages_are_of_every_mixed_pass_and_of_no_teacher(setup):
    state, batch, _ = setup
    passes = {"mixed": batch.images, "mixed1": 3 * batch.images, "clean": 9 * batch.images}

    def averages_of(passes, teacher=None, **options):
        forward = make_forward(MODEL, stacked=False, **options)
        return forward(state.params, state.batch_stats, passes, jax.random.key(0), teacher)[1]

    first, second = (averages_of({"clean": passes[name]}) for name in ("mixed", "mixed1"))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    leaves_close(averages_of(passes, bn_running="mixed"), mean, 1e-6)
    teacher = jax.tree.map(lambda x: 2 * x, state.params)
    two = {name: passes[name] for name in ("mixed", "clean")}
    leaves_close(averages_of(two, teacher), first, 1e-6)
    once = averages_of({"mixed": batch.images}, bn_running="three_passes")
    leaves_close(averages_of(two, teacher, bn_running="three_passes"), once, 1e-6)


def test_gamma_zero_with_the_clean_pass_changes_the_statistics_alone(setup):
    """The control: what BatchNorm's running averages seeing clean images does by itself."""
    state, batch, tx = setup
    key = jax.random.key(4)
    plain, metrics = jax.jit(build(tx, gamma=0.0, clean=False))(state, batch, key)
    control, control_metrics = jax.jit(build(tx, gamma=0.0, clean=True))(state, batch, key)
    np.testing.assert_allclose(metrics["loss"], control_metrics["loss"], rtol=1e-6)
    leaves_close(plain.params, control.params, 1e-5)
    assert "clean_accuracy" in control_metrics and "clean_accuracy" not in metrics
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), plain.batch_stats, control.batch_stats)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_golden_metrics_of_one_step(setup):
    """If this breaks, the mathematics of the step changed: say so in the CHANGELOG, then put in the new numbers."""
    state, batch, tx = setup
    _, metrics = jax.jit(build(tx))(state, batch, jax.random.key(0))
    golden = {
        "loss": 1.490913,
        "label_loss": 1.423113,
        "penalty": 0.2259974,
        "feature_norm": 1.176991,
        "grad_norm": 0.6499009,
        "lam": 0.5673535,
        "accuracy": 0.1578136,
        "clean_accuracy": 0.125,
        "finite": 1.0,
        "not_finite": 0.0,
    }
    for name, value in golden.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, err_msg=name)
    assert set(golden) == set(metrics)


def test_regmixup_is_the_mean_over_clean_and_mixed_images(setup):
    state, batch, tx = setup
    _, metrics = jax.jit(build(tx, gamma=0.0, regmixup=True))(state, batch, jax.random.key(0))
    _, mixed = jax.jit(build(tx, gamma=0.0))(state, batch, jax.random.key(0))
    outputs, _ = make_forward(MODEL, stacked=False)(
        state.params, state.batch_stats, {"clean": batch.images}, jax.random.key(0)
    )
    log_p = np.log(np.asarray(jax.nn.softmax(outputs["clean"].logits), np.float64))
    clean = -log_p[np.arange(B), batch.labels].mean()
    np.testing.assert_allclose(metrics["loss"], (float(mixed["loss"]) + clean) / 2, rtol=1e-5)


def test_gamma_rises_linearly_and_stays(setup):
    """A step with half the weight is one with half of gamma; the program is the same for all steps."""
    (state, batch, tx), key = setup, jax.random.key(1)
    step = jax.jit(build(tx, gamma=rising(GAMMA, 4)))
    for at, part in ((0, 0.0), (1, 0.25), (9, 1.0)):
        there = state._replace(step=jnp.asarray(at, jnp.int32))
        new, metrics = step(there, batch, key)
        expected, its = jax.jit(build(tx, gamma=GAMMA * part))(there, batch, key)
        leaves_close(new.params, expected.params, 1e-6)
        np.testing.assert_allclose(metrics["gamma"], GAMMA * part, rtol=1e-6)
        np.testing.assert_allclose(metrics["loss"], its["loss"], rtol=1e-6)
        assert metrics["penalty"] > 0 and "gamma" not in its
    assert step._cache_size() == 1


def test_erm_step(setup):
    state, batch, tx = setup
    _, metrics = jax.jit(build(tx, mixer=None, gamma=0.0))(state, batch, jax.random.key(0))
    wanted = "loss label_loss accuracy clean_accuracy feature_norm grad_norm finite not_finite"
    assert set(metrics) == set(wanted.split())
    np.testing.assert_array_equal(metrics["accuracy"], metrics["clean_accuracy"])


def test_a_step_that_is_not_finite_is_skipped_when_asked(setup):
    state, batch, tx = setup
    bad = batch._replace(images=batch.images.at[0, 0, 0, 0].set(jnp.nan))
    gradient_of = make_gradient(make_forward(MODEL, stacked=False), make_objective(gamma=0.0))
    step = make_train_step(draw_clean, gradient_of, tx, skip_nonfinite=True)
    new, metrics = jax.jit(step)(state, bad, jax.random.key(0))
    assert float(metrics["finite"]) == 0.0 and int(new.step) == 1
    jax.tree.map(np.testing.assert_array_equal, new[1:], state[1:])


def test_the_learning_rate_goes_on_over_skipped_steps(setup):
    """It is that of the run's step, as ES, gamma and the log are."""
    _, batch, _ = setup
    tx = make_optimizer(make_schedule(total_steps=4, learning_rate=0.1, boundaries=(0.5,)), momentum=0.0)
    state = jit_init_state(MODEL, tx, image_shape=(8, 8, 3))(jax.random.key(0))
    bad = batch._replace(images=batch.images.at[0, 0, 0, 0].set(jnp.nan))
    gradient_of = make_gradient(make_forward(MODEL, stacked=False), make_objective(gamma=0.0))
    step, moved = jax.jit(make_train_step(draw_clean, gradient_of, tx, skip_nonfinite=True)), []
    for images in (batch, bad, batch, batch):
        new, metrics = step(state, images, jax.random.key(0))
        distance = optax.tree.norm(jax.tree.map(jnp.subtract, new.params, state.params))
        moved.append(float(distance / metrics["grad_norm"]))
        state = new
    np.testing.assert_allclose([moved[0], *moved[2:]], [0.1, 0.01, 0.01], rtol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, at_step((), jnp.int32(3)), ())  # no schedule, nothing to set


@pytest.fixture(scope="module")
def calls(setup):
    """Compiled calls, looped on the device and stepped on the host, with their arguments."""
    _, _, tx = setup
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (50, 8, 8, 3), np.uint8), rng.integers(0, K, 50, np.int32)
    data = jax.device_put(as_rows(images, labels))
    fetch = make_fetch(image_shape=(8, 8, 3), mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=1, flip=True)
    step, key = build(tx), jax.random.key(0)
    order = epoch_order(key, 0, num_items=50, batch_size=B)

    def fresh():
        state = jit_init_state(MODEL, tx, image_shape=(8, 8, 3))(key)
        return state, zero_sums([step], fetch, state, data, order[0], key)

    return (
        {looped: make_call(make_advance(step, fetch), looped=looped) for looped in (True, False)},
        fresh,
        data,
        order,
        key,
    )


def test_one_program_serves_every_number_of_steps(calls):
    """Three steps at once equal one and two, bit for bit, by one executable: it cannot compile again."""
    (call, _), fresh, data, order, key = calls[0].values(), *calls[1:]
    call = call.lower(*fresh(), data, order, 0, 3, key).compile()
    at_once, sums = call(*fresh(), data, order, 0, 3, key)
    state, parts = call(*fresh(), data, order, 0, 1, key)
    state, parts = call(state, parts, data, order, 1, 2, key)
    jax.tree.map(np.testing.assert_array_equal, (at_once, sums), (state, parts))
    assert int(at_once.step) == 3 and int(sums.bad_steps) == 0 and int(sums.first_bad) == -1


def test_stepping_on_the_host_gives_the_numbers_of_the_device_loop(calls):
    (looped, single), fresh, data, order, key = calls[0].values(), *calls[1:]
    _, sums = looped(*fresh(), data, order, 0, 2, key)
    carry = fresh()
    for i in range(2):
        carry = single(*carry, data, order, i, 1, key)
    for name, mean in sums.means.items():
        np.testing.assert_allclose(mean, carry[1].means[name], rtol=1e-4, err_msg=name)


def test_the_first_step_that_is_not_finite_is_named(calls):
    (_, single), fresh, data, order, key = calls[0].values(), *calls[1:]
    state, sums = fresh()
    state = state._replace(step=jnp.asarray(7, jnp.int32), params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    for i in range(2):
        state, sums = single(state, sums, data, order, i, 1, key)
    assert int(sums.first_bad) == 7 and int(sums.bad_steps) == 2 and float(sums.means["loss"].total) == 0.0
    assert int(sums.first_bad_parts) & 0b11 == 0b11  # loss and gradient


def test_progress_that_no_run_wrote_is_refused_in_words():
    zero = np.float32(0)
    like = Sums({"loss": Mean(zero, zero)}, np.int32(0), np.int32(-1), np.int32(0))
    written = {"sums": to_plain(like), "seconds": 2.5}
    assert read_progress(written, like) == (like, 2.5)
    wrong = {"means": {"loss": ["a", 1]}, "bad_steps": 0, "first_bad": 0, "first_bad_parts": 0}
    for progress in ({"seconds": 1.0}, {"sums": []}, {"sums": {}}, {"sums": wrong}, written | {"seconds": "long"}):
        with pytest.raises(RunError, match="progress within its epoch is not as a run writes it"):
            read_progress(progress, like)
