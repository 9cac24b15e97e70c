"""Runs a model over images: features and logits of each image, or sums of scores over a split.

    predictor = make_predictor(open_run("runs/digits"))
    features, logits = predictor.outputs(images)    # NumPy, one row an image, on all devices of this process

    score = make_score(model, mean=mean, std=std)
    sums = score(variables, to_batches(split, batch_size=500))     # {"correct", "nll", "count"}: divide at the end

No array is donated and nothing is random: the same images give the same predictions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sem_jax.data.augment import normalise
from sem_jax.errors import RunError
from sem_jax.interfaces import Images, Model, Outputs, Split
from sem_jax.runs.opening import Run
from sem_jax.system.progress import bar


class Predictions(NamedTuple):
    """`Outputs` of many images on the host, one row an image."""

    features: np.ndarray  # f32[n d]
    logits: np.ndarray  # f32[n k]


class Batches(NamedTuple):
    """A split cut into batches, on the host or on the device."""

    images: Any  # u8[m b h w c]
    labels: Any  # i32[m b]
    mask: Any  # f32[m b], 0 for padding


def to_batches(split: Split, *, batch_size: int, multiple_of: int = 1) -> Batches:
    """Cuts a split into m = ceil(n / b) batches, in order; zeros fill the last one.

    b is min(batch_size, n), rounded up to a multiple of `multiple_of`, the number of devices.
    """
    count = len(split.labels)
    batch_size = -(-min(batch_size, count) // multiple_of) * multiple_of
    padding = -count % batch_size

    def cut(x):
        return np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, batch_size, *x.shape[1:])

    return Batches(cut(split.images), cut(split.labels), cut(np.ones(count, np.float32)))


def make_predict_step(model: Model, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[..., Outputs]:
    """predict(variables, images u8[b h w c]) -> Outputs, in evaluation mode."""

    def predict(variables, images: jax.Array) -> Outputs:
        return model.apply(variables, normalise(images, mean, std), train=False)

    return predict


def make_score(model: Model, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable:
    """score(variables, batches: Batches) -> {"correct", "nll", "count"}, f32[] each, summed over the real items.

    It is one compiled call for a whole split. Counts are exact up to 2**24 items.
    """
    predict = make_predict_step(model, mean=mean, std=std)

    def score(variables, batches: Batches):
        def body(sums, batch):
            images, labels, mask = batch
            logits = predict(variables, images).logits
            values = {
                "correct": jnp.argmax(logits, axis=-1) == labels,
                "nll": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
                "count": jnp.ones_like(mask),
            }
            # `where`, not a product: a padded row may give NaN, and 0 * NaN is NaN.
            return {k: sums[k] + jnp.sum(jnp.where(mask > 0, v, 0.0)) for k, v in values.items()}, None

        zeros = {name: jnp.zeros(()) for name in ("correct", "nll", "count")}
        return jax.lax.scan(body, zeros, batches)[0]

    return jax.jit(score)


class Predictor:
    """Runs a model on all devices: the images of a batch are sharded over them, the parameters copied to each.

    Args:
      model, variables: the net and its {"params", "batch_stats"}.
      mean, std: of the training data, per channel.
      batch_size: images on all devices together; halved while a batch does not fit the device's memory.
      devices: all of this process by default.
      progress: whether to draw a bar on a terminal.
    """

    def __init__(
        self, model: Model, variables, *, mean, std, batch_size: int = 500, devices=None, progress: bool = True
    ):
        devices = devices or jax.local_devices()
        mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
        self._by_item = NamedSharding(mesh, PartitionSpec("data"))
        self._variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
        self._count, self._batch_size, self._progress = len(devices), batch_size, progress
        self._predict = jax.jit(make_predict_step(model, mean=mean, std=std))

        def predict_mixed(apply, variables, draws, anchor, partner):
            images = (normalise(x, mean, std) for x in (anchor, partner))
            mixed, lam = jax.vmap(apply)(draws, *images)
            return model.apply(variables, mixed, train=False).features, lam

        self._predict_mixed = jax.jit(predict_mixed, static_argnums=0)

    def outputs(self, images: Images, *, label: str = "", features: bool = True) -> Predictions:
        """Predictions in evaluation mode, in order.

        Args:
          images: u8[n h w c], n >= 1; may be memory-mapped, or encoded on disk.
          label: text of the progress bar.
          features: if False, features are f32[n 0], which saves copying them from the device.
        """

        def predict(batch):
            out = self._predict(self._variables, batch)
            return out if features else Outputs(out.features[:, :0], out.logits)

        return Predictions(*self._map(predict, images, label))

    def mixed(self, apply: Callable, draws, anchor: np.ndarray, partner: np.ndarray, *, label: str = ""):
        """Features of mixed pairs and their weights, (f32[n d], lam f32[n]).

        Args:
          apply: deterministic half of a mixer, (draw, anchor f32[h w c], partner f32[h w c]) -> (mixed, lam).
          draws: the mixer's Draw, of arrays [n].
          anchor, partner: u8[n h w c].
          label: text of the progress bar.
        """

        def predict(batch):
            return self._predict_mixed(apply, self._variables, *batch)

        return self._map(predict, (draws, anchor, partner), label)

    def _map(self, predict: Callable, arrays, label: str):
        """predict(batch) over all rows of `arrays` (a tree), in batches that fit the device's memory."""
        while True:
            try:
                return self._map_batches(predict, arrays, label)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                if self._batch_size <= self._count:
                    raise RunError("the device's memory does not hold one image's activations") from error
                self._batch_size //= 2

    def _map_batches(self, predict: Callable, arrays, label: str):
        count = len(jax.tree.leaves(arrays)[0])
        # Batches of small sets have a power of two of images, so that few shapes are compiled.
        size = min(self._batch_size, 1 << (count - 1).bit_length())
        size = -(-size // self._count) * self._count
        parts, waiting = [], None
        with bar(total=count, desc=label, unit="img", shown=self._progress, leave=False) as shown:
            for first in range(0, count, size):
                batch = jax.tree.map(lambda x, first=first: _filled(x[first : first + size], size), arrays)
                # The device works on this batch while the one before is fetched.
                started = predict(jax.device_put(batch, jax.tree.map(lambda _: self._by_item, batch)))
                if waiting is not None:
                    parts.append(jax.device_get(waiting))
                waiting = started
                shown.update(min(size, count - first))
            parts.append(jax.device_get(waiting))
        return jax.tree.map(lambda *rows: np.concatenate(rows)[:count].astype(np.float32), *parts)


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows of a batch; the last one is repeated up to `size`."""
    rows = np.asarray(rows)
    return rows if len(rows) == size else np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def make_predictor(run: Run, *, batch_size: int = 0, progress: bool = False) -> Predictor:
    """The Predictor of an opened run; with a `batch_size` of 0, its runtime.eval_batch_size."""
    batch_size = batch_size or run.config.runtime.eval_batch_size
    options = {"mean": run.data.mean, "std": run.data.std, "batch_size": batch_size}
    return Predictor(run.model, run.variables, **options, progress=progress)
