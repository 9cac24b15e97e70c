"""Contract of every row of MODELS, published parameter counts, and parity with PyTorch."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Outputs
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.models import MODELS, layers, make_model, tokens
from sem_jax.objectives.build import make_objective
from sem_jax.runs.state import TrainState
from sem_jax.training.draw import make_draw
from sem_jax.training.forward import make_forward
from sem_jax.training.gradient import make_gradient
from sem_jax.training.optim import make_optimizer
from sem_jax.training.step import make_train_step

SMALL = {
    "preact_resnet": {"depth": 18, "width": 4},
    "wide_resnet": {"depth": 10, "width": 1},
    "resnet": {"depth": 18, "width": 4},
    "convnext": {"depth": 6, "width": 4, "patch_size": 1},
    "vit": {"depth": 2, "width": 16, "heads": 2},
    "mlp_mixer": {"depth": 2, "width": 16},
}
RESNETS = ("preact_resnet", "wide_resnet", "resnet")


class DropPath(nn.Module):
    """layers.drop_path at rate 0.25."""

    @nn.compact
    def __call__(self, x):
        return layers.drop_path(x, 0.25, train=True)


def count(variables):
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def abstract(model, size=32, channels=3):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, channels)), train=False))


def test_every_row_is_tested_small():
    assert set(SMALL) == set(MODELS)


def initialised(model, images):
    """Variables drawn with NumPy: compiling a model's own initialisation takes longer than the rest of a test."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):  # of a norm, or of a ConvNeXt block, where it starts at 1e-6
            return jnp.ones(leaf.shape) if leaf.ndim == 1 else jnp.full(leaf.shape, 0.5)
        if name in ("bias", "mean"):
            return jnp.zeros(leaf.shape)
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), jnp.float32)

    return jax.tree_util.tree_map_with_path(
        draw, jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    )


@pytest.mark.parametrize("name", sorted(MODELS))
def test_any_image_size_and_channel_count(name):
    model = MODELS[name](num_classes=7, **SMALL[name])
    for size, channels in ((8, 1), (32, 3)):
        variables = abstract(model, size, channels)
        outputs = jax.eval_shape(
            lambda v, s=size, c=channels: model.apply(v, jnp.zeros((2, s, s, c)), train=False), variables
        )
        assert isinstance(outputs, Outputs)
        assert outputs.logits.shape == (2, 7) and outputs.features.ndim == 2 and outputs.features.shape[0] == 2


@pytest.mark.parametrize("name", RESNETS)
def test_the_parameters_fit_any_image_size(name):
    big = MODELS[name](num_classes=7, stem="7x7s2", **SMALL[name])
    assert count(abstract(big, 224)) == count(abstract(big, 32))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32(name):
    model = make_model(name=name, num_classes=3, dtype="bfloat16", **SMALL[name])
    variables = abstract(model, 8)
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


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("resnet", {"stem": "7x7s2"}, 11_689_512),
        ("resnet", {"depth": 50, "stem": "7x7s2"}, 25_557_032),
        ("resnet", {"depth": 50, "stem": "7x7s2", "norm": "group"}, 25_557_032),
        ("vit", {"patch_size": 16, "width": 768}, 86_567_656),
        ("vit", {"patch_size": 16, "width": 384}, 22_050_664),
        ("mlp_mixer", {"patch_size": 16, "width": 768, "depth": 12}, 59_880_472),
        ("convnext", {}, 28_589_128),
    ],
    ids=["ResNet-18", "ResNet-50", "ResNet-50-GN", "ViT-B/16", "ViT-S/16", "Mixer-B/16", "ConvNeXt-T"],
)
def test_parameter_counts_at_224_pixels_and_1000_classes(name, options, parameters):
    assert count(abstract(MODELS[name](num_classes=1000, **options), 224)) == parameters


NO_DROPOUT = {"dropout": 0.0, "stochastic_depth": 0.0}
SHOWN = [
    ("preact_resnet", {"variant": "v2"}, {"stages": (2, 2, 2, 2), "width": 64, "variant": "v2", "stem": "3x3"}),
    ("wide_resnet", {"dropout": 0.3}, {"blocks": 4, "width": 10, "dropout": 0.3, "stem": "3x3", "norm": "batch"}),
    ("resnet", {"depth": 50}, {"stages": (3, 4, 6, 3), "bottleneck": True, "width": 64, "stochastic_depth": 0.0}),
    ("convnext", {"depth": 6}, {"stages": (1, 1, 3, 1), "width": 96, "patch_size": 4, "stochastic_depth": 0.0}),
    ("vit", {}, {"patch_size": 4, "width": 192, "depth": 12, "heads": 3, "pool": "token", **NO_DROPOUT}),
    ("mlp_mixer", {"depth": 2}, {"patch_size": 4, "width": 256, "depth": 2, **NO_DROPOUT}),
]


@pytest.mark.parametrize(("name", "options", "fields"), SHOWN, ids=[row[0] for row in SHOWN])
def test_repr_shows_the_fields_that_tell_models_apart(name, options, fields):
    """Cached predictions are found by this text: a field that is renamed or moved makes all of them stale."""
    shown = re.findall(
        r"^    (\w+) = (.*)$", repr(make_model(name=name, num_classes=7, dtype="float32", **options)), re.M
    )
    common = {"num_classes": 7, "stem": "3x3", "norm": "batch", "dtype": jnp.dtype("float32")}
    assert dict(shown) == {field: repr((common | fields)[field]) for field, _ in shown}
    assert [field for field, _ in shown if field in fields] == list(fields)


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
        ("resnet", {"depth": 34}),
        ("resnet", {"norm": "instance"}),
        ("resnet", {"stem": "5x5"}),
        ("resnet", {"stochastic_depth": 1.0}),
        ("resnet", {"patch_size": 4}),
        ("convnext", {"depth": 5}),
        ("convnext", {"norm": "batch"}),
        ("vit", {"heads": 5}),
        ("vit", {"width": 10}),
        ("vit", {"pool": "max"}),
        ("vit", {"stem": "3x3"}),
        ("vit", {"dropout": -0.1}),
        ("mlp_mixer", {"width": 2}),
        ("mlp_mixer", {"heads": 2}),
        ("resnext", {}),
    ],
)
def test_wrong_options_are_refused(name, options):
    with pytest.raises(ConfigError):
        make_model(name=name, num_classes=2, **options)


@pytest.mark.parametrize("name", ["v1", "v2", "v3", "wrn"])
def test_parity_with_pytorch_in_training(name, rng):
    """Same weights, same images: features and logits to 1e-4, and the running averages after the pass.

    In evaluation mode: test_convert.py.
    """
    torch = pytest.importorskip("torch")
    from experiments.speed import torch_peer as peer

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
    peer.copy_weights(net, variables).train()
    with torch.no_grad():
        features, logits = net(torch.from_numpy(images).permute(0, 3, 1, 2))
    apply = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    outputs, updated = apply(variables, images)
    np.testing.assert_allclose(outputs.features, features.numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(outputs.logits, logits.numpy(), atol=1e-4, rtol=1e-4)
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
    model = MODELS[name](num_classes=3, **SMALL[name])
    images = jax.random.normal(key, (2, 16, 16, 3))
    variables = initialised(model, images)

    @jax.jit  # traced once: which stage is turned around is an argument
    def run(turned):
        seen = {}

        def hook(k, hidden):
            seen[k] = hidden
            return jnp.where(k == turned, hidden[::-1], hidden)

        return model.apply(variables, images, train=False, at_stage=hook), seen

    plain, seen = run(-1)
    assert sorted(seen) == list(range(len(seen))) and len(seen) >= 4
    np.testing.assert_array_equal(seen[0], images)
    last = max(seen)
    pooled = seen[last][:, 0] if name == "vit" else jnp.mean(seen[last], axis=range(1, seen[last].ndim - 1))
    if name == "convnext":  # a LayerNorm comes between; its scale is 1 and its bias 0 here
        pooled -= jnp.mean(pooled, axis=-1, keepdims=True)
        pooled /= jnp.sqrt(jnp.mean(pooled**2, axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(pooled, plain.features, rtol=1e-5, atol=1e-5)
    for k in seen:  # what the hook returns is what is used from there on
        np.testing.assert_allclose(run(k)[0].logits, plain.logits[::-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3, 12])
def test_the_stages_of_a_token_model_are_thirds_of_its_blocks(depth):
    model = MODELS["vit"](num_classes=2, width=16, depth=depth, heads=1)
    images = jnp.zeros((2, 8, 8, 3))
    order = []

    def note(k, x):
        order.append((k, x.shape))
        return x

    jax.eval_shape(lambda v: model.apply(v, images, train=False, at_stage=note), abstract(model, 8))
    assert order == [(0, (2, 8, 8, 3)), *[(k, (2, 5, 16)) for k in (1, 2, 3)]]
    assert tokens.stage_ends(depth) == {1: [1, 1], 2: [1, 2], 3: [1, 2], 12: [4, 8]}[depth]


def test_a_model_without_running_statistics_goes_through_the_step():
    """ViT with dropout and stochastic depth: one optimizer step with SEM, the two passes in one call."""
    model = MODELS["vit"](num_classes=3, dropout=0.2, stochastic_depth=0.2, depth=1, width=16)
    tx = make_optimizer(0.1)
    images = jax.random.normal(jax.random.key(1), (8, 8, 8, 1))
    params = initialised(model, images)["params"]
    state = TrainState(jnp.zeros((), jnp.int32), params, {}, tx.init(params))
    draw = make_draw(make_mix(MIXERS["mixup"](alpha=1.0)), clean_pass=True)
    gradient_of = make_gradient(make_forward(model, stacked=True), make_objective(gamma=0.3))
    step = jax.jit(make_train_step(draw, gradient_of, tx))
    new, metrics = step(state, Batch(images, jnp.arange(8) % 3, jnp.ones(8)), jax.random.key(2))
    assert metrics["finite"] == 1 and metrics["penalty"] > 0 and new.batch_stats == {} and new.step == 1
    before, after = params["patch_embedding"]["kernel"], new.params["patch_embedding"]["kernel"]
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("name", ["resnet", "convnext", "vit"])
def test_stochastic_depth_drops_whole_branches_of_an_image(name):
    """Rates rise from 0 to the given one; in the mean over keys the last branch is what it is without."""
    model = MODELS[name](num_classes=3, stochastic_depth=0.5, **SMALL[name])
    images = jnp.ones((16, 8, 8, 3))
    variables = initialised(model, images)

    @functools.partial(jax.jit, static_argnums=1)
    def features(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, images, train=train, rngs=rngs, mutable=["batch_stats"])[0].features

    np.testing.assert_array_equal(features(0, True), features(0, True))
    assert not np.allclose(features(0, True), features(1, True))
    # The images are equal, so that the kinds of rows count the patterns of branches dropped: some, and not all differ.
    kinds = len(np.unique(np.round(features(0, True), 4), axis=0))
    assert 1 < kinds <= 16
    np.testing.assert_allclose(features(0, False)[0], features(1, False)[1], rtol=1e-5, atol=1e-6)


def test_rates_of_stochastic_depth():
    assert layers.drop_rates(0.2, 3) == (0.0, 0.1, 0.2) and layers.drop_rates(0.2, 1) == (0.0,)
    ones = jnp.ones((1000, 3, 2))
    dropped = DropPath().apply({}, ones, rngs={"dropout": jax.random.key(0)})
    per_image = np.asarray(dropped).reshape(1000, -1)
    np.testing.assert_allclose(per_image, np.broadcast_to(per_image[:, :1], per_image.shape))
    assert set(np.unique(per_image.round(4))) == {0.0, np.float32(1.3333)}
    assert abs(float(np.mean(per_image == 0)) - 0.25) < 0.05


@pytest.mark.parametrize("name", RESNETS)
def test_normalisation_without_running_statistics_keeps_none(name):
    for kind in ("group", "layer"):
        assert set(abstract(MODELS[name](num_classes=3, norm=kind, **SMALL[name]))) == {"params"}


def test_normalisation_without_running_statistics_sees_one_image():
    """An image's features do not depend on what else is in the batch, in training mode too."""
    model = MODELS["wide_resnet"](num_classes=3, norm="group", **SMALL["wide_resnet"])
    images = jax.random.normal(jax.random.key(1), (3, 8, 8, 3))
    variables = initialised(model, images)
    assert set(variables) == {"params"}
    run = jax.jit(lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"])[0].features)
    np.testing.assert_allclose(run(images)[:1], run(images[:1]), rtol=1e-4, atol=1e-5)


def test_group_norm_against_pytorch(rng):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 3, 3, 12)).astype(np.float32) * 3 + 1
    for kind, groups in (("group", 4), ("layer", 1)):  # 4 = gcd(32, 12)
        ours, _ = layers.norm(kind, train=True, dtype=jnp.float32, name=None).init_with_output(jax.random.key(0), x)
        theirs = torch.nn.GroupNorm(groups, 12)(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "mlp_mixer", "convnext"])
def test_an_image_the_patches_do_not_cover_is_refused(name):
    with pytest.raises(ConfigError, match="8x10 pixels; got"):
        MODELS[name](num_classes=2, **SMALL[name]).init(jax.random.key(0), jnp.zeros((1, 8, 10, 3)), train=False)
