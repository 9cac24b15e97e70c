"""The training calls of a configuration for devices that need not be here, lowered from shapes alone.

    with targets.compiling_for(target) as devices:
        calls = Calls(cfg, dataset, devices, memory=target.chip.memory)
        (lowered,) = calls.lower("mixing")
        lowered.compile().as_text()

They are the calls that `programs` compiles for devices that are here.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sem_jax.data.pipeline import DeviceData
from sem_jax.interfaces import Dataset, Key
from sem_jax.mixers import make_scorer
from sem_jax.runs.state import TrainState, init_state
from sem_jax.training import assemble
from sem_jax.training.averages import Average, start
from sem_jax.training.calls import make_advance, make_call, zero_sums
from sem_jax.training.programs import DEVICE_SHARE, HOST_STEPS_PER_CALL
from sem_jax.training.step import TrainStep

EVERYWHERE = PartitionSpec()


class Net(NamedTuple):
    """The sizes of a net and of the state of its training."""

    parameters: int
    features: int  # entries of g(x)
    checkpoint: int  # bytes, about
    state: TrainState  # shapes


def sizes_of(model: Any, tx: Any, key: Key, shape: tuple[int, ...], averages: Mapping[str, Average]) -> Net:
    """Traces the net with an image (h, w, c); nothing is computed."""
    state = jax.eval_shape(lambda key: start(averages, init_state(model, tx, key, image_shape=shape)), key)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    features = jax.eval_shape(lambda v, x: model.apply(v, x, train=False).features, variables, image).shape[-1]
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    return Net(sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)), features, size, state)


class Calls:
    """The training calls of a configuration for devices that need not be here, lowered from shapes alone.

    Args:
      cfg: a validated configuration.
      dataset: of which shapes matter.
      devices: as from `targets.compiling_for`.
      memory: bytes of one device; images that take too large a part of it are sent for each call.

    Attributes:
      lengths, net: steps, and the net's sizes.
    """

    def __init__(self, cfg: ConfigDict, dataset: Dataset, devices: list[Any], *, memory: int):
        self._cfg, self._dataset = cfg, dataset
        platform = str(devices[0].platform)
        self._on = assemble.Platform("gpu" if platform == "cuda" else platform, len(devices))
        self._mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
        train = dataset.splits["train"]
        self.lengths = assemble.lengths(cfg, len(train.labels))
        self._model = assemble.model(cfg, len(dataset.class_names))
        self._tx = assemble.optimizer(cfg, assemble.learning_rate(cfg, self.lengths))
        key = jax.eval_shape(lambda: jax.random.key(0))
        self._key: Any = self._struct(key)
        self.net = sizes_of(self._model, self._tx, key, train.images.shape[1:], assemble.averages(cfg))
        scorer = self._scorer() if cfg.mixer.name == "attentive_cutmix" else None
        assemble.check(cfg, dataset, on=self._on, scorer=scorer)
        self._steps: dict[str, tuple[TrainStep, ...]] = {
            "plain": (assemble.plain_step(cfg, self._model, self._tx, on=self._on),)
        }
        if cfg.mixer.name != "none":
            self._steps["mixing"] = assemble.mixing_steps(
                cfg, self.lengths, self._model, self._tx, on=self._on, scorer=scorer
            )
        self._encoded = bool(cfg.data.crop_scale) or cfg.runtime.residency == "disk"
        size = math.prod(train.images.shape)
        self._sent = self._encoded or cfg.runtime.residency == "host" or size > DEVICE_SHARE * memory

    def lower(self, name: str) -> list[Any]:
        """The looped calls of a kind of step, "mixing" or "plain", as `jax.stages.Lowered`."""
        by_item = NamedSharding(self._mesh, PartitionSpec("data"))
        fetch = assemble.fetch(self._cfg, self._dataset, on=self._on, batched=self._encoded, sharding=by_item)
        state = jax.tree.map(self._struct, self.net.state)
        data, order = self._data()
        row: Any = jax.ShapeDtypeStruct(order.shape[1:], order.dtype)
        lowered = []
        for step in self._steps[name]:
            sums = jax.eval_shape(lambda s=step: zero_sums([s], fetch, state, data, row, self._key))
            call = make_call(make_advance(step, fetch), looped=True)
            lowered.append(call.trace(state, jax.tree.map(self._struct, sums), data, order, 0, 1, self._key).lower())
        return lowered

    def _data(self) -> tuple[DeviceData, Any]:
        images, batch_size = self._dataset.splits["train"].images, self._cfg.train.batch_size
        by_batch = PartitionSpec(None, "data")
        steps = min(self._cfg.runtime.steps_per_call or HOST_STEPS_PER_CALL, self.lengths.epoch)
        if self._encoded:
            shape = (steps, batch_size)
            pixels = self._array((*shape, *images.shape[1:]), np.uint8, by_batch)
            return DeviceData(pixels, self._array(shape, np.int32, by_batch)), self._array((steps,), np.int32)
        rows, epoch = (steps * batch_size, steps) if self._sent else (len(images), self.lengths.epoch)
        pixels = self._array((rows, math.prod(images.shape[1:])), np.uint8)
        return DeviceData(pixels, self._array((rows,), np.int32)), self._array((epoch, batch_size), np.int32, by_batch)

    def _array(self, shape: tuple[int, ...], dtype: Any, spec: PartitionSpec = EVERYWHERE) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self._mesh, spec))

    def _struct(self, like: Any) -> jax.ShapeDtypeStruct:
        return self._array(like.shape, like.dtype)

    def _scorer(self) -> Any:
        """A net such as this one, whose weights do not matter."""
        params, stats = self.net.state.params, self.net.state.batch_stats

        def scorer(images, labels):
            zeros = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), {"params": params, "batch_stats": stats})
            return make_scorer(self._model, zeros)(images, labels)

        return scorer
