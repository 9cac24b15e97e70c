"""PreActResNet-18 and -34 (He et al. 2016), in three variants that mixup papers call by this one name.

    model = make_preact_resnet(num_classes=10, depth=18)        # 11.17 M parameters at width 64

  v1  the stem is a convolution alone; an identity shortcut carries the raw x; no BatchNorm or ReLU at the end
  v2  stem convolution + BatchNorm + ReLU; every shortcut starts from relu(bn1(x)); nothing at the end
  v3  v1 with a final BatchNorm + ReLU, as in He et al. 2016

The features of v1 and v2 have both signs, those of v3 are not negative, so a good gamma differs between them.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.interfaces import Model, Outputs, StageHook
from sem_jax.models import layers
from sem_jax.models.layers import conv, no_hook, norm, one_of

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
VARIANTS = ("v1", "v2", "v3")


class PreActBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv plus a shortcut."""

    features: int
    stride: int
    variant: str
    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nn.relu(norm(self.norm, train=train, dtype=self.dtype, name="bn1")(x))
        if self.stride != 1 or x.shape[-1] != self.features:
            shortcut = conv(self.features, kernel=1, stride=self.stride, dtype=self.dtype, name="shortcut")(y)
        else:
            shortcut = y if self.variant == "v2" else x
        y = conv(self.features, kernel=3, stride=self.stride, dtype=self.dtype, name="conv1")(y)
        y = nn.relu(norm(self.norm, train=train, dtype=self.dtype, name="bn2")(y))
        return conv(self.features, kernel=3, dtype=self.dtype, name="conv2")(y) + shortcut


class PreActResNet(nn.Module):
    """Images f32[b h w c] of any size -> Outputs(features f32[b 8 width], logits f32[b num_classes])."""

    num_classes: int
    stages: tuple[int, ...] = STAGES[18]
    width: int = 64
    variant: str = "v1"
    stem: str = "3x3"
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, at_stage: StageHook = no_hook) -> Outputs:
        x = layers.stem(at_stage(0, images).astype(self.dtype), self.width, self.stem, dtype=self.dtype)
        if self.variant == "v2":
            x = nn.relu(norm(self.norm, train=train, dtype=self.dtype, name="stem_bn")(x))
        block = functools.partial(PreActBlock, variant=self.variant, norm=self.norm, dtype=self.dtype)
        x = layers.residual_stages(x, block, self.stages, width=self.width, train=train, at_stage=at_stage)
        if self.variant == "v3":
            x = nn.relu(norm(self.norm, train=train, dtype=self.dtype, name="final_bn")(x))
        return layers.outputs(layers.global_pool(at_stage(len(self.stages), x)), self.num_classes)


def make_preact_resnet(
    *,
    num_classes: int,
    depth: int = 18,
    width: int = 64,
    variant: str = "v1",
    stem: str = "3x3",
    norm: str = "batch",
    dtype: jnp.dtype = jnp.float32,
) -> Model:
    """A PreActResNet.

    Args:
      depth: 18 or 34.
      width: channels of the first stage; the features have 8 width entries.
      variant: "v1", "v2" or "v3".
      stem: "3x3", "3x3s2" or "7x7s2".
      norm: "batch", "group" or "layer".
    """
    one_of("depth of preact_resnet", depth, STAGES)
    one_of("variant of preact_resnet", variant, VARIANTS)
    layers.check_fields(stem=stem, norm=norm)
    return PreActResNet(num_classes, STAGES[depth], width, variant, stem, norm, dtype)
