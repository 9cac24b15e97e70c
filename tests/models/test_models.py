"""What every row of MODELS promises, the published parameter counts, and parity with PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import ConfigError
from sem_jax.models import MODELS, make_model
from sem_jax.types import Outputs

SMALL = {"preact_resnet": {"depth": 18, "width": 4}, "wide_resnet": {"depth": 10, "width": 1}}


def count(variables):
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def abstract(model, size=32, channels=3):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, channels)), train=False))


def test_every_row_is_tested_small():
    assert set(SMALL) == set(MODELS)


def initialised(model, images):
    return jax.jit(lambda: model.init(jax.random.key(0), images, train=False))()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_any_image_size_and_channel_count(name):
    model = MODELS[name](num_classes=7, **SMALL[name])
    for size, channels in ((8, 1), (32, 3), (64, 3)):
        variables = abstract(model, size, channels)
        outputs = jax.eval_shape(
            lambda v, s=size, c=channels: model.apply(v, jnp.zeros((2, s, s, c)), train=False), variables
        )
        assert isinstance(outputs, Outputs)
        assert outputs.logits.shape == (2, 7) and outputs.features.ndim == 2 and outputs.features.shape[0] == 2
    big = MODELS[name](num_classes=7, stem="7x7s2", **SMALL[name])
    assert count(abstract(big, 224)) == count(abstract(big, 32))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32(name):
    model = make_model(name=name, num_classes=3, dtype="bfloat16", **SMALL[name])
    variables = abstract(model)
    outputs, updated = jax.eval_shape(
        lambda v: model.apply(v, jnp.zeros((2, 8, 8, 3)), train=True, mutable=["batch_stats"]), variables
    )
    assert {x.dtype for x in jax.tree.leaves((variables, outputs, updated))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_logits_are_linear_in_features(name):
    model = MODELS[name](num_classes=3, **SMALL[name])
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    variables = initialised(model, images)
    features, logits = jax.jit(lambda v: model.apply(v, images, train=False))(variables)
    head = variables["params"]["classifier"]
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"][None], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("preact_resnet", {"depth": 18}, 11_171_146),
        ("preact_resnet", {"depth": 18, "variant": "v3"}, 11_172_170),
        ("preact_resnet", {"depth": 34}, 21_279_306),
        ("wide_resnet", {"depth": 28, "width": 10}, 36_479_194),
    ],
)
def test_parameter_counts(name, options, parameters):
    assert count(abstract(MODELS[name](num_classes=10, **options))) == parameters


def test_the_stems():
    sizes = {}
    for stem in ("3x3", "3x3s2", "7x7s2"):
        model = MODELS["preact_resnet"](num_classes=2, width=4, stem=stem)
        _, state = jax.eval_shape(
            lambda m=model: m.apply(
                m.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False),
                jnp.zeros((1, 64, 64, 3)),
                train=False,
                capture_intermediates=lambda module, _: module.name == "stage1_block1",
                mutable=["intermediates"],
            )
        )
        sizes[stem] = state["intermediates"]["stage1_block1"]["__call__"][0].shape[1]
    assert sizes == {"3x3": 64, "3x3s2": 32, "7x7s2": 16}


def test_dropout_draws_by_key_and_only_in_training():
    model = MODELS["wide_resnet"](num_classes=3, depth=10, width=1, dropout=0.5)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    variables = initialised(model, images)

    @functools.partial(jax.jit, static_argnums=1)
    def logits(seed, train):
        return model.apply(
            variables, images, train=train, rngs={"dropout": jax.random.key(seed)}, mutable=["batch_stats"]
        )[0].logits

    assert not np.allclose(logits(0, True), logits(1, True))
    np.testing.assert_array_equal(logits(0, True), logits(0, True))
    np.testing.assert_array_equal(logits(0, False), logits(1, False))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("preact_resnet", {"depth": 50}),
        ("preact_resnet", {"variant": "v4"}),
        ("preact_resnet", {"dropout": 0.3}),
        ("preact_resnet", {"stem": "5x5"}),
        ("wide_resnet", {"depth": 18}),
        ("wide_resnet", {"variant": "v1"}),
        ("wide_resnet", {"dropout": 1.0}),
        ("resnext", {}),
    ],
)
def test_wrong_options_are_refused(name, options):
    with pytest.raises(ConfigError):
        make_model(name=name, num_classes=2, **options)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["v1", "v2", "v3", "wrn"])
def test_parity_with_pytorch(name, train, rng):
    """Same weights, same images: features and logits to 1e-4, and the running averages after a training pass."""
    torch = pytest.importorskip("torch")
    from experiments import torch_peer as peer

    if name == "wrn":
        model = MODELS["wide_resnet"](num_classes=5, depth=16, width=1)
        net = peer.wide_resnet(16, 1, 5)
    else:
        model = MODELS["preact_resnet"](num_classes=5, width=4, variant=name)
        net = peer.preact_resnet18(4, name, 5)
    images = rng.normal(size=(8, 16, 16, 3)).astype(np.float32)
    variables = initialised(model, images)
    # Scales, biases and statistics away from 1 and 0, or a mistake in them would not show.
    leaves, tree = jax.tree.flatten(variables)
    leaves = [
        x * rng.uniform(0.8, 1.2) + (np.abs(rng.normal(size=x.shape)) * 0.1 if x.ndim == 1 else 0) for x in leaves
    ]
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), jax.tree.unflatten(tree, leaves))
    peer.copy_weights(net, variables).train(train)
    with torch.no_grad():
        features, logits = net(torch.from_numpy(images).permute(0, 3, 1, 2))
    apply = jax.jit(lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"]))
    outputs, updated = apply(variables, images)
    np.testing.assert_allclose(outputs.features, features.numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(outputs.logits, logits.numpy(), atol=1e-4, rtol=1e-4)
    if train:
        last = net.names[-1]
        stats = updated["batch_stats"][last]["bn2"]
        np.testing.assert_allclose(stats["mean"], net.blocks[-1].bn2.running_mean.numpy(), atol=1e-4)
        # PyTorch keeps the unbiased variance, Flax the biased one: n / (n - 1) on the new part.
        n = 8 * 4 * 4 if name == "wrn" else 8 * 2 * 2
        old = np.asarray(variables["batch_stats"][last]["bn2"]["var"])
        ours_unbiased = 0.9 * old + (np.asarray(stats["var"]) - 0.9 * old) * n / (n - 1)
        np.testing.assert_allclose(ours_unbiased, net.blocks[-1].bn2.running_var.numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_hook_sees_images_every_stage_and_what_is_pooled(name, key):
    model = MODELS[name](num_classes=3, depth={"wide_resnet": 10}.get(name, 18), width={"wide_resnet": 1}.get(name, 4))
    images = jax.random.normal(key, (2, 16, 16, 3))
    variables = model.init(key, images, train=False)
    seen = {}

    def keep(k, hidden):
        seen[k] = hidden
        return hidden

    hooked = model.apply(variables, images, train=False, at_stage=keep)
    plain = model.apply(variables, images, train=False)
    np.testing.assert_array_equal(hooked.logits, plain.logits)
    assert sorted(seen) == list(range(len(seen))) and len(seen) >= 4
    np.testing.assert_array_equal(seen[0], images)
    last = seen[max(seen)]
    np.testing.assert_allclose(jnp.mean(last, axis=(1, 2)), plain.features, rtol=1e-6, atol=1e-6)
    zeroed = model.apply(variables, images, train=False, at_stage=lambda k, x: x * 0 if k == max(seen) else x)
    np.testing.assert_array_equal(zeroed.features, 0)
