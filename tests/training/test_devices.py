"""Eight devices compute what one does, and what travels between them is counted."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sem_jax.data.pipeline import DeviceData, as_rows, epoch_order, make_fetch
from sem_jax.interfaces import Split
from sem_jax.runs.state import jit_init_state
from sem_jax.training.calls import make_advance, make_call, zero_sums
from sem_jax.training.optim import make_optimizer
from tests.helpers.tiny_net import TinyNet
from tests.helpers.training import build_step

B, SIZE = 32, 12
pytestmark = pytest.mark.devices(8)


def program(devices, mixer="cutmix", gamma=0.3, batched=False, groups=1):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    everywhere, by_item = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, SIZE, SIZE, 3), dtype=np.uint8)
    split = Split(images, rng.integers(0, 4, 100).astype(np.int32))
    model, key = TinyNet(num_classes=4), jax.device_put(jax.random.key(0), everywhere)
    tx = make_optimizer(0.1)
    images = {"image_shape": (SIZE, SIZE, 3), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    fetch = make_fetch(**images, crop_padding=2, flip=True, sharding=by_item, batched=batched)
    step = build_step(model, tx, mixer=mixer, clean=gamma > 0, gamma=gamma, groups=groups)
    state = jit_init_state(model, tx, image_shape=(SIZE, SIZE, 3))(key)
    state, data = jax.device_put((state, as_rows(*split)), everywhere)
    order = jax.device_put(
        epoch_order(key, 0, num_items=100, batch_size=B), NamedSharding(mesh, PartitionSpec(None, "data"))
    )
    if batched:
        place = NamedSharding(mesh, PartitionSpec(None, "data"))
        data = jax.device_put(DeviceData(split.images[order], split.labels[order]), place)
        order = np.arange(3, dtype=np.int32)
    sums = jax.device_put(zero_sums([step], fetch, state, data, order[0], key), everywhere)
    arguments = state, sums, data, order, 0, 3, key
    return make_call(make_advance(step, fetch), looped=True).lower(*arguments).compile(), arguments


def test_eight_devices_give_the_numbers_of_one():
    results = []
    for devices in (1, 8):
        call, arguments = program(devices)
        results.append(call(*arguments))
    (state, sums), (state8, sums8) = results
    for name, mean in sums.means.items():
        np.testing.assert_allclose(mean, sums8.means[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(state8.params), strict=True):
        assert float(jnp.abs(a - jax.device_get(b)).max()) < 1e-3


COLLECTIVE = re.compile(r"= (\(.*?\)|\S+) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\S*\(")


def collectives(compiled):
    """(kind, [(dtype, shape), ...]) of every collective of a compiled program."""
    found = []
    for shapes, kind in COLLECTIVE.findall(compiled.as_text()):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        found.append((kind, [(dtype, tuple(int(d) for d in dims.split(",") if d)) for dtype, dims in arrays]))
    return found


@pytest.mark.parametrize("mixer, gamma", [("mixup", 0.0), ("cutmix", 0.3)])
def test_no_image_travels_between_devices(mixer, gamma):
    """Counted: indices, labels and draws are gathered, for SEM the clean features too; gradients, BatchNorm's sums and
    metrics are reduced, for SEM the gradient of the gathered features too. Nothing else moves.

    (With stacked passes images would: two for every device. The loop does not stack on several devices.)
    """
    call, (state, *_) = program(8, mixer, gamma)
    found = collectives(call)
    assert {kind for kind, _ in found} == {"all-gather", "all-reduce"}
    gathered = [array for kind, arrays in found if kind == "all-gather" for array in arrays]
    features = 8
    small = {(B,), (B, 2)}  # pairing, labels, flips; offsets of crops
    assert sum(shape == (B, features) for _, shape in gathered) == (1 if gamma else 0)
    assert {shape for _, shape in gathered} <= small | {(B, features)}
    assert len(gathered) <= (6 if gamma else 5)
    reduced = [shape for kind, arrays in found if kind == "all-reduce" for _, shape in arrays]
    params = jax.tree.leaves(state.params)
    known = {(), (B, features)} | {x.shape for x in params} | {x.shape[::-1] for x in params if x.ndim == 2}
    assert set(reduced) <= known
    assert sum(shape == (B, features) for shape in reduced) == (1 if gamma else 0)
    passes = 2 if gamma else 1
    # Each convolution's kernel once a pass; a BatchNorm's two sums forward and two backward, and its scale and bias.
    assert sum(len(shape) == 4 for shape in reduced) == 2 * passes
    assert sum(shape == (8,) for shape in reduced) <= 2 * passes * 6


@pytest.mark.parametrize("mixer", ["cutmix", "manifold_mixup"])
def test_with_partners_on_the_same_device_no_feature_and_no_hidden_state_travels(mixer):
    """Pairs within each device's part of the batch, as with mixer.across_device=False."""
    call, arguments = program(8, mixer, groups=8)
    gathered = [shape for kind, arrays in collectives(call) if kind == "all-gather" for _, shape in arrays]
    assert set(gathered) <= {(B,), (B, 2)}
    one, others = program(1, mixer, groups=8)
    (state, _), (expected, _) = call(*arguments), one(*others)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(jax.device_get(a), b, rtol=1e-3, atol=1e-4)


def test_images_of_ready_batches_travel_once_as_bytes():
    """Each device has its own part of a ready batch, and the partners of its images are anywhere."""
    call, arguments = program(8, batched=True)
    images = [arrays for _, arrays in collectives(call) if any(SIZE in shape for _, shape in arrays)]
    assert images == [[("u8", (B, SIZE, SIZE, 3))]]
    resident, others = program(8)
    (_, sums), (_, expected) = call(*arguments), resident(*others)
    for name, mean in sums.means.items():
        np.testing.assert_allclose(mean, expected.means[name], rtol=1e-5, err_msg=name)
