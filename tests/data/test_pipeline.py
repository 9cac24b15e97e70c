"""From arrays to batches by index: the order of an epoch, partners, and the two places where arrays live."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.data.pipeline import ArrayFeed, as_rows, epoch_order, make_fetch
from sem_jax.interfaces import Split


def test_an_epoch_uses_every_item_once_and_the_next_another_order():
    order = epoch_order(jax.random.key(0), 3, num_items=23, batch_size=5)
    assert order.shape == (4, 5) and order.dtype == jnp.int32
    assert len(set(order.ravel().tolist())) == 20
    again = epoch_order(jax.random.key(0), 3, num_items=23, batch_size=5)
    np.testing.assert_array_equal(order, again)
    assert not np.array_equal(order, epoch_order(jax.random.key(0), 4, num_items=23, batch_size=5))
    assert not np.array_equal(order, epoch_order(jax.random.key(1), 3, num_items=23, batch_size=5))


@pytest.fixture
def split(rng):
    return Split(rng.integers(0, 256, (30, 6, 6, 3), dtype=np.uint8), np.arange(30, dtype=np.int32))


@pytest.mark.parametrize("tpu", [False, True], ids=["slices", "selects"])
def test_take_gives_the_batch_by_index(split, tpu):
    """The partners' images, gathered again from the data with the same crops, are those of the batch."""
    images = {"image_shape": (6, 6, 3), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    fetch = make_fetch(**images, crop_padding=2, flip=True, tpu=tpu)
    data, pairing = jax.device_put(as_rows(*split)), jnp.asarray([2, 0, 1, 3])

    @jax.jit
    def both(step):
        batch, take = fetch(data, jnp.asarray([4, 9, 28, 0]), jax.random.key(0), step)
        return batch, take(pairing)

    batch, partners = both(7)
    np.testing.assert_array_equal(partners, batch.images[pairing])
    assert batch.labels.tolist() == [4, 9, 28, 0] and batch.mask.tolist() == [1.0] * 4
    assert not np.array_equal(batch.images, both(8)[0].images), "the crops of another step are others"


def test_host_and_device_residency_feed_the_same_batches(split):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    options = {"key": jax.random.key(0), "batch_size": 4, "sharding": place, "by_batch": place}
    device, host = (ArrayFeed(split, steps=steps, **options) for steps in (0, 3))
    order = host.order(0)
    np.testing.assert_array_equal(order, epoch_order(jax.random.key(0), 0, num_items=30, batch_size=4))
    for first, count in ((0, 3), (3, 3), (6, 1)):
        for step in range(count):
            images = []
            for feed in (device, host):
                data, rows, start = feed(order, first, count)
                images.append(np.asarray(data.images)[np.asarray(rows)[start + step]])
            np.testing.assert_array_equal(*images)
