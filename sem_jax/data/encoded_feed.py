"""From encoded images to batches on the devices: grain decodes in worker processes, a thread sends batches ahead.

Batch k of a run is a function of (seed, k): `pipeline.epoch_order` gives the order of an epoch, and
`encoded.RecordImages.cropped` the crop of an item. So a run saves no state here and can start at any batch, and the
numbers of workers and hosts change nothing.

>>> from sem_jax.data import load
>>> digits = load("digits").splits["train"]
>>> source = BatchSource(digits, seed=0, batch_size=64, epochs=2)     # an array works too
>>> len(source), source[0]["images"].shape
(44, (64, 8, 8, 1))
"""

import functools
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field

import jax
import numpy as np

from sem_jax.data.pipeline import DeviceData, epoch_order
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

CHUNK_BYTES = 32 << 20  # bytes of images sent at a time, or one batch if that is larger
MAX_WORKERS = 16


@dataclass(eq=False)
class BatchSource:
    """Batches by number, the source that grain reads: `source[k] -> {"images": u8[b h w c], "labels": i32[b]}`.

    Args:
      epochs: length of the source.
      crop_scale: smallest area of a random resized crop; 0 centre crops as an evaluation does.
      shard: (i, n) for host i of n: the i-th of n equal parts of every batch.
    """

    split: Split = field(repr=False)
    _: KW_ONLY
    seed: int
    batch_size: int
    epochs: int
    crop_scale: float = 0.0
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        self._steps = len(self.split.labels) // self.batch_size

    def __len__(self) -> int:
        return self._steps * self.epochs

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        epoch, step = divmod(index, self._steps)
        host, part = self.shard[0], self.batch_size // self.shard[1]
        order = _epoch_rows(self.seed, epoch, len(self.split.labels), self.batch_size)
        rows = order[step, host * part : (host + 1) * part]
        images = self.split.images
        if isinstance(images, np.ndarray):
            pixels = images[rows]
        elif self.crop_scale:
            pixels = images.cropped(rows, seed=self.seed, epoch=epoch, scale=self.crop_scale)
        else:
            pixels = images.batch(rows)
        return {"images": pixels, "labels": self.split.labels[rows]}


@functools.lru_cache(maxsize=2)
def _epoch_rows(seed: int, epoch: int, num_items: int, batch_size: int) -> np.ndarray:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # the same numbers on every platform
        return np.asarray(epoch_order(jax.random.key(seed), epoch, num_items=num_items, batch_size=batch_size))


def open_batches(source: BatchSource, position: int, workers: int) -> Iterator[dict[str, np.ndarray]]:
    """Iterator over source[position:], which `workers` processes make ahead of time (0: threads of this process).

    Raises:
      DataError: grain is not installed.
    """
    try:
        import grain
        from absl import flags
    except ImportError as error:
        message = "encoded images need the package grain, which is not installed"
        raise DataError(message, "Run: pip install grain") from error
    if not flags.FLAGS.is_parsed():  # grain passes absl's flags to its workers; a notebook has parsed none
        flags.FLAGS.mark_as_parsed()
    batches = grain.MapDataset.source(source).slice(slice(position, None))
    if not workers:
        threads = min(8, os.cpu_count() or 1)
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))
    # One thread a worker: the workers share the cores already.
    made = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    return iter(made.mp_prefetch(options, worker_init_fn=_start_worker))


def _start_worker(index: int = 0, count: int = 1) -> None:
    """Keeps a worker off the accelerator, and leaves Ctrl-C to the main process, which saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")


def default_workers(cores: int) -> int:
    """0 (threads) up to four cores, where they were measured faster: Pillow decodes without the interpreter lock."""
    return 0 if cores <= 4 else min(cores, MAX_WORKERS)


class EncodedFeed:
    """`interfaces.Feed` of a split with encoded images: ready batches. Its order is i32[steps an epoch], batch numbers.

    Args:
      seed, batch_size, epochs, crop_scale: see `BatchSource`.
      workers: processes that decode; 0 = threads of this process; -1 = `default_workers` of the machine's cores.
      steps: most batches a call; 0 = CHUNK_BYTES worth of them.
      sharding: sharding of [steps b ...] by item.
    """

    def __init__(self, split: Split, *, seed, batch_size, epochs, crop_scale, workers: int, steps: int, sharding):
        shard = (jax.process_index(), jax.process_count())
        options = {"batch_size": batch_size, "epochs": epochs, "crop_scale": crop_scale}
        self._source = BatchSource(split, seed=seed, shard=shard, **options)
        self._per_epoch = len(split.labels) // batch_size
        shape = (batch_size, *split.images.shape[1:])
        self.steps = min(steps or max(1, CHUNK_BYTES // int(np.prod(shape))), self._per_epoch)
        self._shape, self._sharding = (self.steps, *shape), sharding
        self._workers = default_workers(os.cpu_count() or 1) if workers < 0 else workers
        self._batches: Iterator[dict[str, np.ndarray]] | None = None
        self._at = -1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._ahead: tuple[tuple[int, int], Future] | None = None

    def order(self, epoch: int) -> np.ndarray:
        """Numbers of an epoch's batches."""
        return np.arange(epoch * self._per_epoch, (epoch + 1) * self._per_epoch, dtype=np.int32)

    def example(self, order) -> tuple[DeviceData, np.ndarray, int]:
        """Shapes of the arguments of a call."""
        images = jax.ShapeDtypeStruct(self._shape, np.uint8, sharding=self._sharding)
        labels = jax.ShapeDtypeStruct(self._shape[:2], np.int32, sharding=self._sharding)
        return DeviceData(images, labels), np.arange(self.steps, dtype=np.int32), 0

    def __call__(self, order: np.ndarray, first: int, count: int) -> tuple[DeviceData, np.ndarray, int]:
        """(data, order, first) for `count` steps from batch order[first] on; sends the data of the next call ahead."""
        wanted = (int(order[first]), count)
        if self._ahead is None or self._ahead[0] != wanted:
            self._ahead = (wanted, self._thread.submit(self._load, *wanted))
        data = self._ahead[1].result()
        position = wanted[0] + count
        self._ahead = None
        if position < len(self._source):
            after = (position, min(self.steps, self._per_epoch - position % self._per_epoch))
            self._ahead = (after, self._thread.submit(self._load, *after))
        return data, np.arange(self.steps, dtype=np.int32), 0

    def close(self) -> None:
        """Ends the workers."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._drop()

    def _load(self, position: int, count: int) -> DeviceData:
        batches = self._batches
        if batches is None or self._at != position:
            self._drop()
            batches = self._batches = open_batches(self._source, position, self._workers)
        parts = [next(batches) for _ in range(count)]
        self._at = position + count
        # All calls have one shape: a shorter one is filled with batches that no step reads.
        parts += parts[-1:] * (self.steps - count)
        images, labels = (np.stack([part[name] for part in parts]) for name in ("images", "labels"))
        place = lambda x: jax.make_array_from_process_local_data(self._sharding, x)  # noqa: E731
        return DeviceData(place(images), place(labels))

    def _drop(self) -> None:
        if close := getattr(self._batches, "close", None):
            close()
        self._batches = None
