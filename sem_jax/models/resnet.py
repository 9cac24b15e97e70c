"""ResNet-18 and -50 (He et al. 2015), post-activation, version 1.5: the 3x3 convolution has the stride.

    model = make_resnet(num_classes=1000, depth=50, stem="7x7s2")     # 25.56 M parameters, for 224 pixels
    model = make_resnet(num_classes=10, depth=18)                     # the 3x3 stem keeps 32 pixels

The layout is torchvision's, so that its weights fit (see `sem_jax.convert`). Every block ends in a ReLU, so features
are not negative.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.interfaces import Model, Outputs, StageHook
from sem_jax.models import layers
from sem_jax.models.layers import drop_path, he_conv, no_hook, norm

# depth -> (blocks per stage, bottleneck or not)
STAGES = {18: ((2, 2, 2, 2), False), 50: ((3, 4, 6, 3), True)}


class ResNetBlock(nn.Module):
    """conv-norm-ReLU-...-conv-norm plus a shortcut, then ReLU; with `bottleneck` 1x1, 3x3, 1x1 to 4 times the width."""

    features: int
    stride: int
    bottleneck: bool
    norm: str
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        normed = functools.partial(norm, self.norm, train=train, dtype=self.dtype)
        convolved = functools.partial(he_conv, dtype=self.dtype)
        out = self.features * (4 if self.bottleneck else 1)
        if self.bottleneck:
            y = nn.relu(normed(name="bn1")(convolved(self.features, kernel=1, name="conv1")(x)))
            y = convolved(self.features, kernel=3, stride=self.stride, name="conv2")(y)
            y = nn.relu(normed(name="bn2")(y))
            y = normed(name="bn3")(convolved(out, kernel=1, name="conv3")(y))
        else:
            y = convolved(self.features, kernel=3, stride=self.stride, name="conv1")(x)
            y = nn.relu(normed(name="bn1")(y))
            y = normed(name="bn2")(convolved(out, kernel=3, name="conv2")(y))
        if self.stride != 1 or x.shape[-1] != out:
            x = convolved(out, kernel=1, stride=self.stride, name="shortcut")(x)
            x = normed(name="shortcut_bn")(x)
        return nn.relu(drop_path(y, self.drop_path, train=train) + x)


class ResNet(nn.Module):
    """Images f32[b h w c] of any size -> Outputs(features f32[b d], logits f32[b k]); d = 8 width, 32 at depth 50."""

    num_classes: int
    stages: tuple[int, ...] = STAGES[18][0]
    bottleneck: bool = False
    width: int = 64
    stem: str = "3x3"
    norm: str = "batch"
    stochastic_depth: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, at_stage: StageHook = no_hook) -> Outputs:
        x = at_stage(0, images).astype(self.dtype)
        normed = norm(self.norm, train=train, dtype=self.dtype, name="stem_bn")
        x = layers.stem(
            x, self.width, self.stem, init=layers.HE_INIT, before_pool=lambda y: nn.relu(normed(y)), dtype=self.dtype
        )
        rates = iter(layers.drop_rates(self.stochastic_depth, sum(self.stages)))
        same = {"bottleneck": self.bottleneck, "norm": self.norm, "dtype": self.dtype}

        def block(**place):
            return ResNetBlock(drop_path=next(rates), **same, **place)

        x = layers.residual_stages(x, block, self.stages, width=self.width, train=train, at_stage=at_stage)
        return layers.outputs(layers.global_pool(at_stage(len(self.stages), x)), self.num_classes)


def make_resnet(
    *,
    num_classes: int,
    depth: int = 18,
    width: int = 64,
    stem: str = "3x3",
    norm: str = "batch",
    stochastic_depth: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
) -> Model:
    """A ResNet.

    Args:
      depth: 18 or 50.
      width: channels of the first stage.
      stem: "3x3" (32 pixels), "3x3s2" or "7x7s2" with a max-pool (224 pixels).
      norm: "batch", "group" or "layer".
      stochastic_depth: rate of the last block, in [0, 1).
    """
    layers.one_of("depth of resnet", depth, STAGES)
    layers.check_fields(stem=stem, norm=norm, stochastic_depth=stochastic_depth)
    stages, bottleneck = STAGES[depth]
    return ResNet(num_classes, stages, bottleneck, width, stem, norm, stochastic_depth, dtype)
