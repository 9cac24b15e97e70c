"""Layers and checks that the backbones share.

Images are NHWC. Convolutions have no bias and are padded as in PyTorch: on both sides alike, so that a stride-2
convolution sees the same pixels. Statistics of normalisation are in float32.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Outputs, StageHook

# PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)). The recipes behind the paper use it for PreActResNet and for
# every linear layer. Under BatchNorm the scale of a convolution only changes how far a learning rate moves it: these
# weights are smaller than He's, so the same rate moves them further.
TORCH_INIT = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
# He et al. 2015, scaled by the fan-out, as in the code of the WideResNet paper.
HE_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

STEMS = {"3x3": (3, 1), "3x3s2": (3, 2), "7x7s2": (7, 2)}  # kernel and stride
NORMS = ("batch", "group", "layer")
MakeBlock = Callable[..., nn.Module]


def conv(
    features: int, *, kernel: int, stride: int = 1, init: nn.initializers.Initializer = TORCH_INIT, **options: Any
) -> nn.Conv:
    """A square convolution without bias, padded by kernel // 2 on every side; options of `nn.Conv`: dtype, name."""
    sides, strides = (kernel, kernel), (stride, stride)
    return nn.Conv(features, sides, strides, padding=kernel // 2, use_bias=False, kernel_init=init, **options)


he_conv = functools.partial(conv, init=HE_INIT)


def norm(kind: str, *, train: bool, dtype: jnp.dtype, name: str) -> nn.Module:
    """Normalisation of a convolution's output.

    "batch" is BatchNorm with PyTorch's constants (its momentum 0.1 is Flax's 0.9). The others keep no statistics:
    "group" is GroupNorm of at most 32 groups (Wu and He 2018), "layer" is GroupNorm of one group.
    """
    if kind == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)
    return _GroupNorm(groups=32 if kind == "group" else 1, dtype=dtype, name=name)


class _GroupNorm(nn.Module):
    """GroupNorm with a number of groups that divides the number of channels."""

    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        groups = math.gcd(self.groups, x.shape[-1])
        return nn.GroupNorm(num_groups=groups, epsilon=1e-5, dtype=self.dtype, name="group_norm")(x)


def drop_path(x: jax.Array, rate: float, *, train: bool) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): an image's branch is set to 0 with probability `rate`, else / (1 - rate).

    Called inside a compact module; draws from the rng "dropout".
    """
    return nn.Dropout(rate, broadcast_dims=tuple(range(1, x.ndim)), deterministic=not train)(x)


def drop_rates(rate: float, blocks: int) -> tuple[float, ...]:
    """Rates of stochastic depth, rising linearly from 0 at the first block to `rate` at the last."""
    return tuple(rate * i / max(blocks - 1, 1) for i in range(blocks))


def stem(
    images: jax.Array,
    features: int,
    kind: str,
    *,
    init: nn.initializers.Initializer = TORCH_INIT,
    before_pool: Callable[[jax.Array], jax.Array] = lambda x: x,
    dtype: jnp.dtype,
) -> jax.Array:
    """The first convolution: "3x3" keeps the size, "3x3s2" halves it, "7x7s2" (for 224) quarters it with a max-pool."""
    kernel, stride = STEMS[kind]
    x = before_pool(conv(features, kernel=kernel, stride=stride, init=init, dtype=dtype, name="stem")(images))
    if kind != "7x7s2":
        return x
    return nn.pooling.pool(x, -jnp.inf, jax.lax.max, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def residual_stages(
    x: jax.Array, block: MakeBlock, stages: Sequence[int], *, width: int, train: bool, at_stage: StageHook
) -> jax.Array:
    """The blocks of a residual net. Every stage after the first doubles the channels and halves the sides.

    `block` makes a block from features, stride and name. `at_stage` is called after every stage but the last one.
    """
    for stage, blocks in enumerate(stages, start=1):
        for i in range(1, blocks + 1):
            stride = 2 if stage > 1 and i == 1 else 1
            x = block(features=width * 2 ** (stage - 1), stride=stride, name=f"stage{stage}_block{i}")(x, train=train)
        if stage < len(stages):
            x = at_stage(stage, x)
    return x


def global_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width in float32, [b h w d] -> f32[b d]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def no_hook(k: int, hidden: jax.Array) -> jax.Array:
    """The default of `at_stage`: the hidden state as it is."""
    del k
    return hidden


def outputs(features: jax.Array, num_classes: int) -> Outputs:
    """The features f32[b d] and what the linear layer "classifier" makes of them."""
    classifier = nn.Dense(num_classes, dtype=jnp.float32, kernel_init=TORCH_INIT, name="classifier")
    return Outputs(features, classifier(features))


def one_of(field: str, value: str | int, known: Iterable) -> None:
    """Raises a ConfigError unless the value of `model.<field>` is among the known ones."""
    if value not in known:
        raise ConfigError(f"model.{field} must be one of {', '.join(map(str, known))}, got {value!r}")


def check_fields(*, stem: str = "3x3", norm: str = "batch", **rates: float) -> None:
    """Raises a ConfigError for a wrong value of a field that several models have; `rates` must be in [0, 1)."""
    one_of("stem", stem, STEMS)
    one_of("norm", norm, NORMS)
    for field, rate in rates.items():
        if not 0.0 <= rate < 1.0:
            raise ConfigError(f"model.{field} must be in [0, 1), got {rate}")
