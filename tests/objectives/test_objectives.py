"""Eq. 9 against float64 NumPy, its gradients, and the places where it must vanish."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Mix, Outputs
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.objectives.build import make_objective, needs_clean_pass
from sem_jax.objectives.losses import label_loss, mixed_accuracy, mixed_targets
from sem_jax.objectives.sem import safe_norm, sem_penalty

B, D, K = 6, 5, 4


@pytest.fixture
def case(rng):
    outputs = {
        name: Outputs(
            jnp.asarray(rng.normal(size=(B, D)), jnp.float32), jnp.asarray(rng.normal(size=(B, K)), jnp.float32)
        )
        for name in ("mixed", "clean")
    }
    batch = Batch(jnp.zeros((B, 2, 2, 1)), jnp.asarray(rng.integers(0, K, B), jnp.int32), jnp.ones(B))
    mix = Mix(jnp.asarray(rng.uniform(size=B), jnp.float32), jnp.asarray(rng.permutation(B), jnp.int32))
    return outputs, batch, mix


def reference(outputs, batch, mix, gamma):
    """Eq. 9 as it is written, one example at a time, in float64."""
    f64 = {k: [np.asarray(x, np.float64) for x in v] for k, v in outputs.items()}
    labels, lam, pairing = np.asarray(batch.labels), np.asarray(mix.lam, np.float64), np.asarray(mix.pairing)
    total = []
    for i in range(B):
        j = pairing[i]
        logits = f64["mixed"][1][i]
        log_p = logits - np.log(np.sum(np.exp(logits)))
        cross_entropy = -(lam[i] * log_p[labels[i]] + (1 - lam[i]) * log_p[labels[j]])
        mixture = lam[i] * f64["clean"][0][i] + (1 - lam[i]) * f64["clean"][0][j]
        total.append(cross_entropy + gamma * np.sqrt(np.sum((f64["mixed"][0][i] - mixture) ** 2)))
    return np.mean(total)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_equation_9(case, gamma):
    loss, metrics = make_objective(gamma=gamma)(*case)
    np.testing.assert_allclose(loss, reference(*case, gamma), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], loss)
    np.testing.assert_allclose(metrics["label_loss"] + gamma * metrics["penalty"], loss, rtol=1e-6)


def test_gamma_zero_is_the_baseline(case):
    outputs, batch, mix = case
    baseline = {"mixed": outputs["mixed"]}
    objective = make_objective(gamma=0.0)
    assert float(objective(outputs, batch, mix)[0]) == float(objective(baseline, batch, mix)[0])
    with_clean = jax.grad(lambda o: objective(o, batch, mix)[0])(outputs)
    alone = jax.grad(lambda o: objective(o, batch, mix)[0])(baseline)
    jax.tree.map(np.testing.assert_array_equal, with_clean["mixed"], alone["mixed"])
    assert all(not np.any(x) for x in with_clean["clean"])


def test_the_loss_is_two_hard_label_losses(case):
    """lam CE(y_i) + (1 - lam) CE(y_j) is the soft-target loss."""
    outputs, batch, mix = case
    logits = outputs["mixed"].logits
    hard = [
        label_loss(logits, jax.nn.one_hot(y, K)) * w
        for y, w in ((batch.labels, mix.lam), (batch.labels[mix.pairing], 1 - mix.lam))
    ]
    soft = label_loss(logits, mixed_targets(batch.labels, mix.lam, mix.pairing, num_classes=K))
    np.testing.assert_allclose(sum(hard), soft, rtol=1e-5)


def test_gradient_flows_through_all_three_representations(case):
    (outputs, _, mix) = case
    clean, mixed = outputs["clean"].features, outputs["mixed"].features

    def penalty(m, a, p):
        return sem_penalty(m, a, p, mix.lam).sum()

    check_grads(penalty, (mixed, clean, clean[mix.pairing]), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)
    gradients = jax.grad(penalty, argnums=(0, 1, 2))(mixed, clean, clean[mix.pairing])
    assert all(float(jnp.abs(g).max()) > 1e-3 for g in gradients)


def test_stop_gradient_changes_the_gradient_and_not_the_loss(case):
    outputs, batch, mix = case
    full, stopped = (make_objective(gamma=0.5, clean_features=c) for c in ("grad", "stop_gradient"))
    assert float(full(*case)[0]) == float(stopped(*case)[0])
    assert np.any(jax.grad(lambda o: full(o, batch, mix)[0])(outputs)["clean"].features)
    assert not np.any(jax.grad(lambda o: stopped(o, batch, mix)[0])(outputs)["clean"].features)


def test_gradient_at_zero_is_zero_and_not_nan():
    """A self-pair, lam = 1 and an empty box all give the distance 0, where sqrt has no derivative."""
    x = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    lam = jnp.asarray([1.0, 0.5])

    def penalty(x):
        return sem_penalty(x, x, x, lam).sum()

    assert float(penalty(x)) == 0.0
    np.testing.assert_array_equal(jax.grad(penalty)(x), jnp.zeros_like(x))
    naive = jax.grad(lambda x: jnp.sqrt(jnp.sum((x - x) ** 2, -1)).sum())(x)
    assert np.isnan(naive).all(), "the naive form no longer fails: the guard can go"


def test_one_zero_does_not_spoil_the_others():
    x = jnp.asarray([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(jax.grad(lambda x: safe_norm(x).sum())(x), [[0, 0], [0.6, 0.8]], rtol=1e-6)


def test_a_linear_map_is_equivariant_under_mixup(rng):
    """g linear: g(lam x + (1 - lam) x') = lam g(x) + (1 - lam) g(x'), so the penalty is rounding alone."""
    images = jnp.asarray(rng.normal(size=(16, 4, 4, 3)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(48, 8)), jnp.float32)
    mixed, (lam, pairing) = make_mix(MIXERS["mixup"](alpha=1.0))(jax.random.key(0), images)
    g, g_mixed = (x.reshape(16, -1) @ weights for x in (images, mixed))
    assert float(sem_penalty(g_mixed, g, g[pairing], lam).max()) < 1e-4
    assert float(sem_penalty(g_mixed**2, g**2, g[pairing] ** 2, lam).max()) > 1.0


def test_penalty_is_float32_in_bfloat16():
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert sem_penalty(x, x * 2, x, jnp.ones(2)).dtype == jnp.float32


def test_masked_items_do_not_count(case):
    outputs, batch, _ = case
    objective = make_objective(gamma=0.0)
    short = jax.tree.map(lambda x: x[:4], ({"clean": outputs["clean"]}, batch))
    padded = batch._replace(mask=jnp.asarray([1.0, 1, 1, 1, 0, 0]))
    for a, b in zip(
        jax.tree.leaves(objective({"clean": outputs["clean"]}, padded, None)),
        jax.tree.leaves(objective(*short, None)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    features, logits = outputs["clean"]
    spoilt = {"clean": Outputs(features.at[4:].set(jnp.nan), logits.at[4:].set(jnp.inf))}
    assert all(map(jnp.isfinite, jax.tree.leaves(objective(spoilt, padded, None))))


def test_a_penalty_without_the_clean_pass_is_refused(case):
    outputs, batch, mix = case
    for gamma in (0.3, lambda step: 0.3):
        with pytest.raises(ConfigError, match='needs the outputs of the pass "clean", got those of mixed, Clean'):
            make_objective(gamma=gamma)({"mixed": outputs["mixed"], "Clean": outputs["clean"]}, batch, mix)


def test_mixed_accuracy_by_hand():
    logits = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    labels, lam = jnp.asarray([0, 1, 0]), jnp.asarray([0.7, 0.7, 0.7])
    pairing = jnp.asarray([1, 2, 0])
    np.testing.assert_allclose(mixed_accuracy(logits, labels, lam, pairing), [0.7, 0.3, 1.0], rtol=1e-6)


def test_label_smoothing_by_hand():
    targets = jnp.asarray([[1.0, 0.0]])
    logits = jnp.log(jnp.asarray([[0.8, 0.2]]))
    np.testing.assert_allclose(
        label_loss(logits, targets, label_smoothing=0.1), [-(0.95 * np.log(0.8) + 0.05 * np.log(0.2))], rtol=1e-6
    )


def test_when_the_clean_pass_is_needed():
    assert [needs_clean_pass(g, c) for g in (0.0, 0.3) for c in ("exact", "grad")] == [False, True, True, True]


@pytest.mark.parametrize(("options", "field"), [({"gamma": -1.0}, "gamma"), ({"gamma": float("nan")}, "gamma")])
def test_wrong_options_are_refused(options, field):
    with pytest.raises(ConfigError, match=field):
        make_objective(**options)
    with pytest.raises(ConfigError, match="clean_features"):
        make_objective(gamma=0.1, clean_features="sometimes")
    with pytest.raises(ConfigError, match="label_smoothing must be in .0, 1., got 1.0"):
        make_objective(gamma=0.1, label_smoothing=1.0)


def penalty_reference(outputs, mix, distance, shift):
    """The penalty of each mixed image against the mixture `shift` places before it, in float64."""
    mixed, clean = (np.asarray(outputs[name].features, np.float64) for name in ("mixed", "clean"))
    lam, pairing, values = np.asarray(mix.lam, np.float64), np.asarray(mix.pairing), []
    for i in range(B):
        k = i - shift
        target = lam[i] * clean[k] + (1 - lam[i]) * clean[pairing[k]]
        if distance == "normalised":
            a, b = mixed[i] / np.linalg.norm(mixed[i]), target / np.linalg.norm(target)
        else:
            a, b = mixed[i], target
        values.append(np.linalg.norm(a - b) ** (2 if distance == "squared" else 1))
    return np.mean(values)


@pytest.mark.parametrize("distance", ["l2", "normalised"])
def test_a_rounding_error_pulls_nowhere_and_a_small_distance_does(rng, distance):
    """Without it the gradient would be of length lam for a distance of 1e-7: the norm has slope one everywhere."""
    anchor = jnp.asarray(rng.normal(size=(B, D)), jnp.float32)
    lam = jnp.full(B, 0.5)
    direction = jnp.asarray(rng.normal(size=(B, D)), jnp.float32)
    lengths = []
    for size in (0.0, 2e-7, 1e-3):
        penalty, gradient = jax.value_and_grad(lambda x: sem_penalty(x, anchor, anchor, lam, distance=distance).sum())(
            anchor + size * direction
        )
        lengths.append(np.linalg.norm(gradient, axis=1).min() if size == 1e-3 else np.abs(gradient).max())
        assert (float(penalty) > 0) == (size == 1e-3)
    assert lengths[:2] == [0.0, 0.0] and lengths[2] > 0.1


@pytest.mark.parametrize("distance", ["l2", "squared", "normalised"])
@pytest.mark.parametrize("pairs", ["right", "wrong"])
def test_distances_and_wrong_pairs(case, distance, pairs):
    loss, metrics = make_objective(gamma=0.7, distance=distance, penalty_pairs=pairs)(*case)
    wanted = penalty_reference(case[0], case[2], distance, 1 if pairs == "wrong" else 0)
    np.testing.assert_allclose(metrics["penalty"], wanted, rtol=1e-5)
    np.testing.assert_allclose(loss, metrics["label_loss"] + 0.7 * metrics["penalty"], rtol=1e-6)


def test_only_the_normalised_distance_is_not_lowered_by_small_features(rng):
    mixed, anchor, partner = (jnp.asarray(rng.normal(size=(B, D)), jnp.float32) for _ in range(3))
    lam = jnp.asarray(rng.uniform(size=B), jnp.float32)
    for distance, factor in {"l2": 0.1, "squared": 0.01, "normalised": 1.0}.items():
        large = sem_penalty(mixed, anchor, partner, lam, distance=distance)
        small = sem_penalty(0.1 * mixed, 0.1 * anchor, 0.1 * partner, lam, distance=distance)
        np.testing.assert_allclose(small, factor * large, rtol=1e-4)


@pytest.mark.parametrize("distance", ["squared", "normalised"])
def test_other_distances_have_finite_gradients_at_zero(distance):
    zero = jnp.zeros((2, D))
    gradients = jax.grad(lambda *x: sem_penalty(*x, jnp.ones(2), distance=distance).sum(), argnums=(0, 1, 2))
    for at in (zero, zero + 1.0):  # features that vanish; and a pair of an image with itself
        assert all(np.isfinite(g).all() for g in gradients(at, at, at))


def test_an_unknown_distance_or_pairing_is_refused():
    with pytest.raises(ConfigError, match="l2"):
        make_objective(gamma=1.0, distance="l1")
    with pytest.raises(ConfigError, match="penalty_pairs must be one of right, wrong, got 'left'"):
        make_objective(gamma=1.0, penalty_pairs="left")
