"""Running averages as the three passes of Algorithm 1 make them in PyTorch."""

import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Outputs
from sem_jax.training.forward import make_forward
from sem_jax.training.running import change_of, one_after_the_other, watched
from tests.helpers.tiny_net import TinyNet

B = 6
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def net():
    rng = np.random.default_rng(0)
    images = {
        name: rng.normal(scale, size=(B, 8, 8, 3)).astype(np.float32) for name, scale in (("mixed", 1), ("clean", 2))
    }
    model = TinyNet(num_classes=4)
    variables = jax.jit(lambda key, x: model.init(key, x, train=False))(jax.random.key(0), images["clean"])
    stats = jax.tree.map(lambda x: x + 0.3, variables["batch_stats"])  # averages that were updated before
    return model, variables["params"], stats, images


def by_hand(model, params, stats, order):
    """One train-mode pass after the other in float64, with the unbiased variance; the first BatchNorm alone."""
    kernel = np.asarray(params["Conv_0"]["kernel"], np.float64)
    mean, var = (np.asarray(stats["BatchNorm_0"][name], np.float64) for name in ("mean", "var"))
    for images in order:
        padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        hidden = np.einsum("bhwcij,ijco->bhwo", windows, kernel).reshape(-1, kernel.shape[-1])
        mean, var = 0.9 * mean + 0.1 * hidden.mean(0), 0.9 * var + 0.1 * hidden.var(0, ddof=1)
    return mean, var


@pytest.mark.parametrize("stacked", [False, True])
def test_three_passes_are_three_updates_with_the_unbiased_variance(net, stacked):
    model, params, stats, images = net
    run = jax.jit(make_forward(model, stacked=stacked, bn_running="three_passes"))
    new = run(params, stats, images, jax.random.key(0))[1]["BatchNorm_0"]
    mean, var = by_hand(model, params, stats, [images["mixed"], images["clean"], images["clean"][::-1]])
    np.testing.assert_allclose(new["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new["var"], var, rtol=1e-5)


def test_a_pass_alone_is_one_update_with_the_unbiased_variance(net):
    model, params, stats, images = net
    forward = make_forward(model, stacked=False, bn_running="three_passes", remat="full")
    for name in ("mixed", "clean"):
        new = jax.jit(forward)(params, stats, {name: images[name]}, jax.random.key(0))[1]["BatchNorm_0"]
        mean, var = by_hand(model, params, stats, [images[name]])
        np.testing.assert_allclose(new["mean"], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(new["var"], var, rtol=1e-5)


def test_averages_that_a_pass_uses_stay_bit_for_bit(net):
    """As those of a frozen layer."""
    model, params, stats, images = net
    with watched() as seen:
        after = model.apply(
            {"params": params, "batch_stats": stats}, images["clean"], train=False, mutable=["batch_stats"]
        )
    changes = dict.fromkeys(images, change_of(stats, after[1]["batch_stats"], seen))
    jax.tree.map(np.testing.assert_array_equal, one_after_the_other(stats, changes), stats)


class Counts(nn.Module):
    """Keeps something in batch_stats that is no BatchNorm."""

    @nn.compact
    def __call__(self, images, *, train):
        self.variable("batch_stats", "calls", lambda: jnp.zeros(())).value += float(train)
        return Outputs(jnp.mean(images, (1, 2)), jnp.mean(images, (1, 2)))


def test_statistics_of_another_kind_are_refused(net):
    images = net[3]
    forward = make_forward(Counts(), stacked=False, bn_running="three_passes")
    with pytest.raises(ConfigError, match="three_passes.*flax.linen.BatchNorm alone, the model keeps 'calls'"):
        forward({}, {"calls": jnp.zeros(())}, images, jax.random.key(0))


@needs_torch
def test_equals_pytorch_run_three_times():
    """Running averages of every BatchNorm of PreActResNet18 in float64, from the same weights."""
    import torch

    from experiments.speed.torch_peer import copy_weights, preact_resnet18
    from sem_jax.models.preact_resnet import make_preact_resnet

    rng = np.random.default_rng(1)
    mixed, clean = rng.normal(size=(2, 4, 16, 16, 3))
    partner = clean[[2, 0, 3, 1]]
    with jax.enable_x64(True):
        model = make_preact_resnet(num_classes=5, width=2, variant="v2", dtype=jnp.float64)
        variables = jax.jit(lambda k, x: model.init(k, x, train=False))(jax.random.key(0), clean)
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
        forward = jax.jit(make_forward(model, stacked=False, bn_running="three_passes"))
        passes = {"mixed": jnp.asarray(mixed), "clean": jnp.asarray(clean)}
        ours = jax.device_get(forward(variables["params"], variables["batch_stats"], passes, jax.random.key(0))[1])
    peer = preact_resnet18(2, "v2", 5).double()
    copy_weights(peer, variables)
    peer.train()
    for images in (mixed, clean, partner):
        peer(torch.from_numpy(images).permute(0, 3, 1, 2))
    theirs = preact_resnet18(2, "v2", 5).double()
    copy_weights(theirs, {"params": variables["params"], "batch_stats": ours})
    for name, value in peer.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            expected = value.numpy()
            found = dict(theirs.named_buffers())[name].numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=name)
