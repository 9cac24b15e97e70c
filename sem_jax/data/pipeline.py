"""From arrays to batches: the order of items and their augmentation are functions of seed, step and index.

order = epoch_order(key, epoch, num_items=50_000, batch_size=128)          # i32[390 128]
fetch = make_fetch(image_shape=(32, 32, 3), mean=mean, std=std, crop_padding=4, flip=True)
batch, take = fetch(as_rows(images, labels), order[0], key, step)    # inside jit
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.data.augment import apply_augment, apply_augment_by_selects, draw_augment, normalise, pick
from sem_jax.data.randaugment import RandAugment
from sem_jax.interfaces import Batch, Key, Split
from sem_jax.rngs import key_for

RESIDENCY = ("auto", "device", "host", "disk")


class DeviceData(NamedTuple):
    """A split, or the rows that a call needs, on every device; or ready batches, sharded by item."""

    images: Any  # u8[n h*w*c]; ready batches u8[m b h w c]
    labels: Any  # i32[n]; ready batches i32[m b]


def as_rows(images: Any, labels: Any) -> DeviceData:
    """Images u8[n h w c] as one row of h*w*c pixels each: a TPU would pad an axis of 3 channels in its memory."""
    return DeviceData(images.reshape(len(images), -1), labels)


def epoch_order(key: Key, epoch: jax.Array | int, *, num_items: int, batch_size: int) -> jax.Array:
    """The items of each step of an epoch: a new permutation, i32[num_items // batch_size, batch_size].

    An incomplete last batch is left out; its items differ every epoch.
    """
    steps = num_items // batch_size
    permutation = jax.random.permutation(key_for(key, "order", epoch), num_items)
    return permutation[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def make_fetch(
    *,
    image_shape: tuple[int, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    crop_padding: int,
    flip: bool,
    tpu: bool = False,
    randaugment: RandAugment | None = None,
    sharding: jax.sharding.NamedSharding | None = None,
    batched: bool = False,
) -> Callable:
    """Makes the function, to be called inside jit, that gathers and augments a training batch.

    Args:
      image_shape: (h, w, c) of the data's rows.
      mean, std: per channel, of pixels in [0, 1].
      crop_padding: pixels of black border for the random crop; 0 = none.
      flip: mirror with probability 0.5.
      tpu: write it as a TPU computes it fast, without slices and gathers at drawn places; the images are the same bit
        for bit.
      randaugment: applied after crop and flip; None or no operations = not at all.
      sharding: sharding of a batch's leading axis; None on one device.
      batched: the data are ready batches, and `rows` is the number of one, i32[].

    Returns:
      fetch(data, rows i32[b], key, step) -> (Batch, take). `take(pairing)` is `batch.images[pairing]`, gathered from
      the data again, so that between devices only indices travel. Ready batches travel themselves, as uint8.
    """
    apply = apply_augment_by_selects if tpu else apply_augment
    further = randaugment or RandAugment(0, 0)
    everywhere = sharding and jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    alone = sharding is None or sharding.mesh.size == 1

    def local(x):
        return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)

    def fetch(data: DeviceData, rows: jax.Array, key: Key, step: jax.Array) -> tuple[Batch, Callable]:
        if batched:
            data = DeviceData(local(data.images[rows]), local(data.labels[rows]))
            rows = jnp.arange(len(data.labels))
        keys = jax.random.split(key_for(key, "augment", step), len(rows))
        draws: tuple = (jax.vmap(lambda k: draw_augment(k, padding=crop_padding, flip=flip))(keys),)
        if further.operations:
            keys = jax.random.split(key_for(key, "randaugment", step), len(rows))
            draws += (jax.vmap(further.draw)(keys),)

        def pixels_of(images, draws):
            first, *more = jax.tree.map(local, draws)
            images = images.reshape(-1, *image_shape)
            pixels = jax.vmap(lambda draw, image: apply(draw, image, padding=crop_padding))(first, images)
            for draw in more:
                pixels = jax.vmap(further.apply)(draw, pixels)
            return pixels

        def take(pairing):
            if tpu and alone:
                return normalise(pick(pairing, pixels), mean, std)
            if alone and len(draws) > 1:  # cheaper than to augment once more
                return normalise(pixels[pairing], mean, std)
            source = data.images
            if batched and sharding is not None:
                # Without this, XLA may move every image to every device as float32.
                source = jax.lax.with_sharding_constraint(source, everywhere)
            partners = pixels_of(source[local(rows[pairing])], jax.tree.map(lambda x: x[pairing], draws))
            return local(normalise(partners, mean, std))

        images, labels = data if batched else (data.images[local(rows)], local(data.labels[rows]))
        pixels = pixels_of(images, draws)
        return Batch(local(normalise(pixels, mean, std)), labels, jnp.ones(len(rows), jnp.float32)), take

    return fetch


class ArrayFeed:
    """`interfaces.Feed` of a split in host memory. Its order is i32[steps an epoch, b], the rows of each step.

    Args:
      key: key of the run.
      steps: steps a call, whose images are sent for each call; 0 keeps the whole split on the devices, as uint8.
      sharding: sharding of arrays that every device holds; by_batch: sharding of the order.
    """

    def __init__(self, split: Split, *, key: Key, batch_size: int, steps: int, sharding, by_batch):
        self.steps = steps
        self._split, self._batch_size, self._sharding = split, batch_size, sharding
        self._data = None if steps else jax.device_put(as_rows(*split), sharding)

        def order(epoch):
            return epoch_order(key, epoch, num_items=len(split.labels), batch_size=batch_size)

        self.order = jax.jit(order, out_shardings=by_batch)

    def close(self) -> None:
        """Does nothing: nothing runs beside the steps."""

    def example(self, order: jax.Array) -> tuple[DeviceData, jax.Array, int]:
        """Arguments of a call, of which the shapes matter."""
        return self(order, 0, 1)

    def __call__(self, order: jax.Array, first: int, count: int) -> tuple[DeviceData, Any, int]:
        """(data, order, first) with which the compiled call runs `count` steps from row `first` of `order`."""
        if self._data is not None:
            return self._data, order, first
        rows = np.asarray(order)[first : first + count].reshape(-1)
        # All calls have one shape: the last one of an epoch is filled with rows that no step reads.
        rows = np.pad(rows, (0, self.steps * self._batch_size - len(rows)))
        data = as_rows(self._split.images[rows], self._split.labels[rows])
        local = np.arange(len(rows), dtype=np.int32).reshape(self.steps, self._batch_size)
        return jax.device_put(data, self._sharding), local, 0
