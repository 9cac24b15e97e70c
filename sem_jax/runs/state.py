"""The training state: arrays only. Seed and step give every key and the data order, so neither is stored here.

state = jit_init_state(model, tx, image_shape=(32, 32, 3))(key)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sem_jax.interfaces import Key, Model
from sem_jax.rngs import key_for


class TrainState(NamedTuple):
    """The arrays that a training step updates."""

    step: jax.Array  # i32[], optimizer updates so far
    params: Any  # float32
    batch_stats: Any  # BatchNorm's running averages, float32; {} for a model without
    opt_state: Any  # optax's
    averages: Any = {}  # moving averages by name, see `training.averages`; {} = none


def init_state(model: Model, tx: optax.GradientTransformation, key: Key, *, image_shape: tuple[int, ...]) -> TrainState:
    """A new state for images (h, w, c); a run's key gives the same parameters on any number of devices."""
    variables = model.init(key_for(key, "init", 0), jnp.zeros((1, *image_shape)), train=False)
    params = variables["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), tx.init(params))


def jit_init_state(model: Model, tx: optax.GradientTransformation, *, image_shape: tuple[int, ...]):
    """`init_state` as a compiled function of the key.

    On CPU most optimization is turned off: it would take LLVM half a minute for the random draws of a ResNet-18.
    """
    cheap = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(
        lambda key: init_state(model, tx, key, image_shape=image_shape),
        compiler_options=cheap if jax.default_backend() == "cpu" else None,
    )
