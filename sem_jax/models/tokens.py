"""Layers and checks that the models of patches share."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import StageHook
from sem_jax.models.layers import MakeBlock, drop_rates
from sem_jax.models.table import check_count

EMBED_INIT = nn.initializers.truncated_normal(0.02)
STAGES = 3
# A smaller width is a mistake: the configuration files of a WideResNet set the widen factor in the same field.
MIN_WIDTH = 16


def check_grid(images: jax.Array, patch_size: int, *, model: str, times: int = 1) -> None:
    """Raises a ConfigError unless the sides of the images are multiples of `times` patch_size."""
    height, width = images.shape[1:3]
    if height % (patch_size * times) or width % (patch_size * times):
        many = f"{times} * model.patch_size" if times > 1 else "model.patch_size"
        raise ConfigError(f"{model} needs {many} to divide the image, {height}x{width} pixels; got {patch_size}")


def check_size(width: int, depth: int, *, model: str) -> None:
    """Raises a ConfigError for a width that is too small for a model of patches, or for too many parameters."""
    check_count(model, 8 * depth * width**2)  # of the MLPs alone
    if width < MIN_WIDTH:
        raise ConfigError(
            f"model.width of {model} must be >= {MIN_WIDTH}, got {width}",
            "A configuration file sets depth and width of its own model: give both with model.name.",
        )


def patch_conv(features: int, *, size: int, init: nn.initializers.Initializer, dtype: jnp.dtype, name: str) -> nn.Conv:
    """A linear map of each square patch of `size` pixels a side."""
    side = (size, size)
    return nn.Conv(features, side, strides=side, padding="VALID", dtype=dtype, kernel_init=init, name=name)


def patches(images: jax.Array, *, model: str, width: int, size: int, dtype: jnp.dtype) -> jax.Array:
    """The linear map "patch_embedding" of each square patch, [b h w c] -> [b n d], row by row."""
    check_grid(images, size, model=model)
    init = nn.initializers.lecun_normal()
    x = patch_conv(width, size=size, init=init, dtype=dtype, name="patch_embedding")(images.astype(dtype))
    return x.reshape(x.shape[0], -1, width)


def layer_norm(*, dtype: jnp.dtype, name: str) -> nn.LayerNorm:
    """LayerNorm over the last axis with the epsilon of the papers' code."""
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)


class Mlp(nn.Module):
    """Dense-GELU-Dense over the last axis, back to its size."""

    hidden: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        init = nn.initializers.xavier_uniform()
        y = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype, kernel_init=init, name="fc1")(x), approximate=False)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="fc2")(y)
        return nn.Dropout(self.dropout, deterministic=not train)(y)


def stage_ends(depth: int) -> list[int]:
    """Numbers of the blocks that end stages 1 and 2; each stage has a third of all blocks."""
    return [math.ceil(k * depth / STAGES) for k in range(1, STAGES)]


def token_blocks(
    x: jax.Array, block: MakeBlock, depth: int, *, stochastic_depth: float, train: bool, at_stage: StageHook
) -> jax.Array:
    """The blocks, each made by `block` from drop_path and name; `at_stage` is called after stages 1 and 2."""
    for i, rate in enumerate(drop_rates(stochastic_depth, depth), start=1):
        x = block(drop_path=rate, name=f"block{i}")(x, train=train)
        for stage, end in enumerate(stage_ends(depth), start=1):
            x = at_stage(stage, x) if end == i else x
    return x
