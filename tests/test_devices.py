"""Eight devices compute what one does, and no image travels between them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sem_jax.data.pipeline import DeviceData, epoch_order, make_fetch
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.objectives.build import make_objective
from sem_jax.optim import make_optimizer
from sem_jax.state import jit_init_state
from sem_jax.step import make_forward, make_train_call, make_train_step, zero_sums
from tests.tiny_net import TinyNet

B, SIZE = 32, 12
pytestmark = pytest.mark.devices(8)


def program(devices):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    everywhere, by_item = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, SIZE, SIZE, 3), dtype=np.uint8)
    data = DeviceData(images, rng.integers(0, 4, 100).astype(np.int32))
    model, key = TinyNet(num_classes=4), jax.device_put(jax.random.key(0), everywhere)
    tx, _ = make_optimizer(total_steps=10, learning_rate=0.1)
    fetch = make_fetch(mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=2, flip=True, sharding=by_item)
    step = make_train_step(
        make_forward(model, stacked=False),
        tx,
        make_mix(MIXERS["cutmix"](alpha=1.0)),
        make_objective(gamma=0.3),
        clean_pass=True,
    )
    state, data = jax.device_put((jit_init_state(model, tx, image_shape=(SIZE, SIZE, 3))(key), data), everywhere)
    order = jax.device_put(
        epoch_order(key, 0, num_items=100, batch_size=B), NamedSharding(mesh, PartitionSpec(None, "data"))
    )
    sums = jax.device_put(zero_sums(step, fetch, state, data, order[0], key), everywhere)
    arguments = state, sums, data, order, 0, 3, key
    return make_train_call(step, fetch, looped=True).lower(*arguments).compile(), arguments


def test_eight_devices_give_the_numbers_of_one():
    results = []
    for devices in (1, 8):
        call, arguments = program(devices)
        results.append(call(*arguments))
    (state, sums), (state8, sums8) = results
    for name in sums:
        np.testing.assert_allclose(sums[name], sums8[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(state8.params), strict=True):
        assert float(jnp.abs(a - jax.device_get(b)).max()) < 1e-3


def test_no_image_travels_between_devices():
    """Collectives move gradients, statistics, features and indices; an array of images is none of these.

    (With stacked streams it would: two images for every device. The loop does not stack on several devices.)
    """
    text = program(8)[0].as_text()
    moved = re.findall(r"= \S*?(\w+)\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)", text)
    assert moved, "no collective at all: the batch was not sharded"
    for _, shape in moved:
        dims = [int(d) for d in shape.split(",") if d]
        assert SIZE not in dims, f"an array of images is moved: [{shape}]"
