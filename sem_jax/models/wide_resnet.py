"""Wide residual networks (Zagoruyko and Komodakis 2016): WRN-depth-width, WRN-28-10 in the paper.

    model = make_wide_resnet(num_classes=10, depth=28, width=10)        # 36.5 M parameters

Three stages of pre-activation blocks have 16, 32 and 64 times `width` channels. The shortcut of a block is the raw x
or, where the shape changes, a 1x1 convolution of relu(bn1(x)). BatchNorm and ReLU come last: features are not negative.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Model, Outputs, StageHook
from sem_jax.models import layers
from sem_jax.models.layers import HE_INIT, he_conv, no_hook, norm
from sem_jax.models.table import check_count


class WideBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-(dropout)-conv plus a shortcut."""

    features: int
    stride: int
    dropout: float
    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nn.relu(norm(self.norm, train=train, dtype=self.dtype, name="bn1")(x))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = he_conv(self.features, kernel=1, stride=self.stride, dtype=self.dtype, name="shortcut")(y)
        y = he_conv(self.features, kernel=3, stride=self.stride, dtype=self.dtype, name="conv1")(y)
        y = nn.relu(norm(self.norm, train=train, dtype=self.dtype, name="bn2")(y))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return he_conv(self.features, kernel=3, dtype=self.dtype, name="conv2")(y) + x


class WideResNet(nn.Module):
    """Images f32[b h w c] of any size -> Outputs(features f32[b 64 width], logits f32[b num_classes])."""

    num_classes: int
    blocks: int = 4  # per stage: (depth - 4) / 6
    width: int = 10
    dropout: float = 0.0
    stem: str = "3x3"
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, at_stage: StageHook = no_hook) -> Outputs:
        x = layers.stem(at_stage(0, images).astype(self.dtype), 16, self.stem, init=HE_INIT, dtype=self.dtype)
        block = functools.partial(WideBlock, dropout=self.dropout, norm=self.norm, dtype=self.dtype)
        x = layers.residual_stages(x, block, (self.blocks,) * 3, width=16 * self.width, train=train, at_stage=at_stage)
        x = nn.relu(norm(self.norm, train=train, dtype=self.dtype, name="final_bn")(x))
        return layers.outputs(layers.global_pool(at_stage(3, x)), self.num_classes)


def make_wide_resnet(
    *,
    num_classes: int,
    depth: int = 28,
    width: int = 10,
    stem: str = "3x3",
    dropout: float = 0.0,
    norm: str = "batch",
    dtype: jnp.dtype = jnp.float32,
) -> Model:
    """WRN-depth-width.

    Args:
      depth: 10, 16, 22, 28, ...: 4 + 6 blocks per stage.
      width: the widen factor; the features have 64 width entries.
      stem: "3x3", "3x3s2" or "7x7s2".
      dropout: rate in [0, 1) between the two convolutions of a block.
      norm: "batch", "group" or "layer".
    """
    if depth < 10 or (depth - 4) % 6:
        raise ConfigError(f"model.depth of wide_resnet must be 10, 16, 22, 28, ... (4 + 6 n), got {depth}")
    layers.check_fields(stem=stem, norm=norm, dropout=dropout)
    check_count("wide_resnet", 3 * (depth - 4) * (64 * width) ** 2)  # of the last stage alone
    return WideResNet(num_classes, (depth - 4) // 6, width, dropout, stem, norm, dtype)
