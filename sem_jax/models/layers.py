"""The few layers the backbones share, with the settings all of them use.

    x = conv(64, kernel=3, stride=2, dtype=jnp.bfloat16, name="conv1")(x)
    x = norm("batch", train=train, dtype=jnp.bfloat16, name="bn1")(x)

NHWC, no convolution bias, padding as in PyTorch (symmetric, so that a stride-2 convolution sees the same pixels),
normalisation with statistics in float32.
"""

import functools
import math
from collections.abc import Callable, Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default, which the recipes behind the paper leave as it is for
# PreActResNet and every linear layer. BatchNorm makes the scale of a convolution a matter of the learning rate alone:
# these weights are smaller than He's, so that the same rate moves them further.
TORCH_INIT = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
# He et al. 2015, scaled by the fan-out, as in the code of the WideResNet paper.
HE_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

STEMS = {"3x3": (3, 1), "3x3s2": (3, 2), "7x7s2": (7, 2)}  # kernel and stride
NORMS = ("batch", "group", "layer")


def conv(
    features: int,
    *,
    kernel: int,
    stride: int = 1,
    init: nn.initializers.Initializer = TORCH_INIT,
    dtype: jnp.dtype,
    name: str,
) -> nn.Conv:
    """A square convolution without bias, padded by kernel // 2 on every side."""
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=kernel // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=init,
        name=name,
    )


he_conv = functools.partial(conv, init=HE_INIT)


def norm(kind: str, *, train: bool, dtype: jnp.dtype, name: str) -> nn.Module:
    """Normalisation of a convolution's output; one call normalises one pass.

    "batch": BatchNorm with PyTorch's constants (its momentum 0.1 is Flax's 0.9). Without running statistics: "group",
    GroupNorm of at most 32 groups (Wu and He 2018), and "layer", its case of a single group: over all pixels and
    channels of an image.
    """
    if kind == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)
    return _GroupNorm(groups=32 if kind == "group" else 1, dtype=dtype, name=name)


class _GroupNorm(nn.Module):
    """GroupNorm whose number of groups divides the number of channels, whatever that is."""

    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        groups = math.gcd(self.groups, x.shape[-1])
        return nn.GroupNorm(num_groups=groups, epsilon=1e-5, dtype=self.dtype, name="group_norm")(x)


def drop_path(x: jax.Array, rate: float, *, train: bool) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): the whole branch of an image is 0 with probability `rate`, else 1/(1-rate).

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


def global_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width in float32, [b h w d] -> f32[b d]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def no_hook(k: int, hidden: jax.Array) -> jax.Array:
    """The default of every model's `at_stage`: leaves the hidden state as it is."""
    del k
    return hidden


classifier = functools.partial(nn.Dense, dtype=jnp.float32, kernel_init=TORCH_INIT, name="classifier")


def one_of(field: str, value: str | int, known: Iterable) -> None:
    """Raises a ConfigError unless the value of `model.<field>` is among the known ones."""
    if value not in known:
        raise ConfigError(f"model.{field} must be one of {', '.join(map(str, known))}, got {value!r}")


def check_fields(*, stem: str = "3x3", norm: str = "batch", **rates: float) -> None:
    """Raises a ConfigError for wrong values of the fields that several models have; `rates` have to be in [0, 1)."""
    one_of("stem", stem, STEMS)
    one_of("norm", norm, NORMS)
    for field, rate in rates.items():
        if not 0.0 <= rate < 1.0:
            raise ConfigError(f"model.{field} must be in [0, 1), got {rate}")
