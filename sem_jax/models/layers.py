"""The few layers the residual networks share, with the settings all of them use.

    x = conv(64, kernel=3, stride=2, dtype=jnp.bfloat16, name="conv1")(x)

NHWC, no convolution bias, padding as in PyTorch (symmetric, so that a stride-2 convolution sees the same pixels),
BatchNorm with statistics in float32.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default, which the recipes behind the paper leave as it is for
# PreActResNet and every linear layer. BatchNorm makes the scale of a convolution a matter of the learning rate alone:
# these weights are smaller than He's, so that the same rate moves them further.
TORCH_INIT = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
# He et al. 2015, scaled by the fan-out, as in the code of the WideResNet paper.
HE_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

STEMS = ("3x3", "3x3s2", "7x7s2")


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


def batch_norm(*, train: bool, dtype: jnp.dtype, name: str) -> nn.BatchNorm:
    """BatchNorm with PyTorch's constants (its momentum 0.1 is Flax's 0.9); one call normalises one stream."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)


def stem(
    images: jax.Array, features: int, kind: str, *, init: nn.initializers.Initializer = TORCH_INIT, dtype: jnp.dtype
) -> jax.Array:
    """The first convolution: "3x3" keeps the size, "3x3s2" halves it, "7x7s2" (for 224) quarters it with a max-pool."""
    if kind == "7x7s2":
        x = conv(features, kernel=7, stride=2, init=init, dtype=dtype, name="stem")(images)
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    return conv(features, kernel=3, stride=2 if kind == "3x3s2" else 1, init=init, dtype=dtype, name="stem")(images)


def global_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width in float32, [b h w d] -> f32[b d]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def no_hook(k: int, hidden: jax.Array) -> jax.Array:
    """The default of every model's `at_stage`: leaves the hidden state as it is."""
    del k
    return hidden


classifier = functools.partial(nn.Dense, dtype=jnp.float32, kernel_init=TORCH_INIT, name="classifier")
