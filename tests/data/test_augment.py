"""Crop and flip against NumPy, and the order of an epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.data.augment import AugmentDraw, apply_augment, draw_augment, normalise
from sem_jax.data.pipeline import ArrayFeed, DeviceData, epoch_order, make_fetch
from sem_jax.interfaces import Split


def test_crop_and_flip_as_numpy_does(rng):
    image = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    for row, column, flip in [(0, 0, False), (4, 1, True), (2, 2, False), (3, 4, True)]:
        expected = padded[row : row + 7, column : column + 9]
        expected = expected[:, ::-1] if flip else expected
        draw = AugmentDraw(jnp.asarray([row, column]), jnp.asarray(flip))
        np.testing.assert_array_equal(apply_augment(draw, jnp.asarray(image), padding=2), expected)


def test_draws_cover_all_offsets_and_both_sides():
    draws = jax.vmap(lambda k: draw_augment(k, padding=1, flip=True))(jax.random.split(jax.random.key(0), 500))
    offsets, counts = np.unique(np.asarray(draws.offset), axis=0, return_counts=True)
    assert offsets.tolist() == [[i, j] for i in range(3) for j in range(3)]
    assert counts.min() > 25 and 190 < int(draws.flip.sum()) < 310
    still = draw_augment(jax.random.key(0), padding=0, flip=False)
    assert still.offset.tolist() == [0, 0] and not bool(still.flip)


def test_normalise_against_float64(rng):
    images = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    expected = (images.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(normalise(jnp.asarray(images), mean, std), expected, atol=1e-5)


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


def test_take_gives_the_batch_by_index(split):
    """The partners' images, gathered again from the data with the same crops, are those of the batch."""
    fetch = make_fetch(mean=(0.5,) * 3, std=(0.2,) * 3, crop_padding=2, flip=True)
    data, pairing = DeviceData(*map(jnp.asarray, split)), jnp.asarray([2, 0, 1, 3])

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
