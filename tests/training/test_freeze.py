"""Frozen parameters: which names a pattern stands for, that they stay bit for bit, and what BatchNorm does."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax import config as config_lib
from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Outputs
from sem_jax.runs.opening import abstract_variables
from sem_jax.runs.state import init_state
from sem_jax.training import assemble
from sem_jax.training.freeze import Frozen, names_of
from sem_jax.training.optim import make_optimizer

ON = assemble.Platform("cpu", 1)
LENGTHS = assemble.Lengths(5, 10)


class Net(nn.Module):
    """One convolution with BatchNorm, dropout, and a head of the usual name."""

    dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(4, (3, 3), name="stem")(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x))
        features = nn.Dropout(0.5, deterministic=not train)(jnp.mean(x, axis=(1, 2)))
        return Outputs(features, nn.Dense(10, name="classifier")(features))


def images_of(count):
    return np.random.default_rng(0).normal(1.0, 2.0, (count, 6, 6, 1)).astype(np.float32)


def after_one_step(freeze, method):
    """(state before, state after, metrics) of a step as a configuration with optim.freeze makes it."""
    cfg = config_lib.get_default()
    config_lib.apply_method(cfg, method).optim.freeze = freeze
    net, tx = Net(), assemble.optimizer(cfg, 0.5)
    state = init_state(net, tx, jax.random.key(0), image_shape=(6, 6, 1))
    batch = Batch(jnp.asarray(images_of(16)), jnp.arange(16, dtype=jnp.int32) % 10, jnp.ones(16))
    step = assemble.mixing_steps(cfg, LENGTHS, net, tx, on=ON)[0]
    return state, *jax.jit(step)(state, batch, jax.random.key(1))


def changed(before, after):
    """Names of the parameters and running averages that differ."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return {name for name, (a, b) in zip(names_of(before), pairs, strict=True) if not np.array_equal(a, b)}


def test_a_linear_probe_runs_the_net_as_in_evaluation():
    variables = Net().init(jax.random.key(0), images_of(4), train=False)
    probe = Frozen("features").model(Net())
    outputs, _ = probe.apply(variables, images_of(4), train=True, mutable=["batch_stats"])  # no key for dropout
    np.testing.assert_array_equal(outputs.logits, Net().apply(variables, images_of(4), train=False).logits)


def test_a_linear_probe_trains_the_head_alone():
    before, after, metrics = after_one_step("features", "mixup")
    assert changed(before.params, after.params) == {"classifier/bias", "classifier/kernel"}
    assert not changed(before.batch_stats, after.batch_stats) and metrics["grad_norm"] > 0


def test_a_frozen_batch_norm_keeps_its_averages_and_uses_them():
    before, after, _ = after_one_step("norm", "mixup+sem")
    assert not changed(before.batch_stats, after.batch_stats)
    assert changed(before.params, after.params) == {n for n in names_of(before.params) if not n.startswith("norm")}
    variables = {"params": after.params, "batch_stats": after.batch_stats}
    options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(0)}}
    held, _ = Frozen("norm").model(Net()).apply(variables, images_of(4), **options)
    free, _ = Net().apply(variables, images_of(4), **options)
    exact = Net().apply(variables, images_of(4), train=False).features
    kept = held.features != 0  # by dropout, which doubles them
    np.testing.assert_allclose(held.features[kept], 2 * exact[kept], rtol=1e-6)
    assert kept.any() and not np.allclose(free.features[kept], 2 * exact[kept], rtol=1e-2)


def test_the_optimizer_has_no_state_and_no_decay_for_what_is_frozen():
    params = {"stem": {"kernel": jnp.ones((3, 5))}, "classifier": {"kernel": jnp.ones((5, 2))}}
    for name in ("sgd", "adamw"):
        tx = Frozen("stem").optimizer(make_optimizer(0.1, name=name, weight_decay=0.1))
        state = tx.init(params)
        assert {x.size for x in jax.tree.leaves(state)} <= {1, 10}, name
        updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        assert not updates["stem"]["kernel"].any() and updates["classifier"]["kernel"].all()


def test_patterns_fit_names_and_all_below_them():
    params = {"stem": {"kernel": 0}, "stage1_block1": {"bn1": {"scale": 0}}, "classifier": {"kernel": 0}}
    frozen = {text: [n for n in names_of(params) if n in Frozen(text)] for text in ("st*m", "*/bn1", "features", "")}
    assert frozen == {
        "st*m": ["stem/kernel"],
        "*/bn1": ["stage1_block1/bn1/scale"],
        "features": ["stage1_block1/bn1/scale", "stem/kernel"],
        "": [],
    }


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("stem, stam", "'stam' fits no parameter. Did you mean 'stem'. There are: classifier, norm, stem"),
        ("*", "leaves no parameter to train"),
        ("features", "objective.gamma must be 0 with optim.freeze="),
        ("norm, s*", "objective.gamma must be 0 with optim.freeze="),
    ],
)
def test_what_freezes_nothing_or_everything_is_refused(freeze, message):
    cfg = config_lib.get_default()
    cfg.optim.freeze = freeze
    with pytest.raises(ConfigError, match=message):
        assemble._check_frozen(cfg, abstract_variables(Net(), (6, 6, 1))["params"])


def test_a_net_without_a_named_head_and_averages_that_are_no_linen_layers_are_refused():
    with pytest.raises(ConfigError, match="needs a head called one of classifier, head, fc; the model has Dense_0"):
        Frozen("features").check({"Dense_0": {"kernel": 0}})
    variables = {"params": {"norm": {"scale": jnp.ones(2)}}, "batch_stats": {"norm": {"mean": jnp.ones(2)}}}
    other = Frozen("norm").model(SimpleNamespace(dtype=None, init=None, apply=lambda *_, **__: None))
    with pytest.raises(ConfigError, match="cannot hold the running averages of norm"):
        other.apply(variables | {"params": variables["params"] | {"tail": 1.0}}, images_of(1), train=True)


def test_off_by_default():
    cfg = config_lib.get_default()
    model, tx = Net(), object()
    assert Frozen(cfg.optim.freeze).model(model) is model and Frozen(cfg.optim.freeze).optimizer(tx) is tx
