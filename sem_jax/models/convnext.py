"""ConvNeXt (Liu et al. 2022): ConvNeXt-T is depth 18, width 96.

    model = make_convnext(num_classes=1000)                        # 28.6 M parameters, ConvNeXt-T, 224 pixels
    model = make_convnext(num_classes=10, depth=6, patch_size=2)   # 32 pixels

Four stages of 7x7 depthwise blocks with LayerNorm over the channels. The features are the output of a last LayerNorm,
of the mean over the pixels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.interfaces import Model, Outputs, StageHook
from sem_jax.models.layers import check_fields, drop_path, drop_rates, global_pool, no_hook, one_of, outputs
from sem_jax.models.tokens import EMBED_INIT, check_grid, layer_norm, patch_conv

# Depth 18 is the published T, 36 is S (width 96) and B (width 128); 6 and 12 keep T's proportions.
STAGES = {6: (1, 1, 3, 1), 12: (2, 2, 6, 2), 18: (3, 3, 9, 3), 36: (3, 3, 27, 3)}


class ConvNeXtBlock(nn.Module):
    """x + scale * (depthwise 7x7, norm, Dense, GELU, Dense); the scale of a channel starts at 1e-6."""

    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        width = x.shape[-1]
        options: dict[str, Any] = {"dtype": self.dtype, "kernel_init": EMBED_INIT}
        y = nn.Conv(width, (7, 7), padding=3, feature_group_count=width, name="depthwise", **options)(x)
        y = layer_norm(dtype=self.dtype, name="norm")(y)
        y = nn.gelu(nn.Dense(4 * width, name="fc1", **options)(y), approximate=False)
        y = nn.Dense(width, name="fc2", **options)(y)
        scale = self.param("scale", nn.initializers.constant(1e-6), (1, 1, 1, width))
        return x + drop_path(y * scale.astype(self.dtype), self.drop_path, train=train)


class ConvNeXt(nn.Module):
    """Images f32[b h w c], h and w multiples of 8 patch_size -> Outputs(features f32[b 8 width], logits f32[b k])."""

    num_classes: int
    stages: tuple[int, ...] = STAGES[18]
    width: int = 96
    patch_size: int = 4
    stochastic_depth: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, at_stage: StageHook = no_hook) -> Outputs:
        check_grid(images, self.patch_size, model="convnext", times=2 ** (len(self.stages) - 1))
        x = at_stage(0, images).astype(self.dtype)
        rates = iter(drop_rates(self.stochastic_depth, sum(self.stages)))
        for stage, blocks in enumerate(self.stages, start=1):
            size = self.patch_size if stage == 1 else 2
            if stage > 1:
                x = layer_norm(dtype=self.dtype, name=f"stage{stage}_norm")(x)
            width, name = self.width * 2 ** (stage - 1), f"stage{stage}_down"
            x = patch_conv(width, size=size, init=EMBED_INIT, dtype=self.dtype, name=name)(x)
            if stage == 1:
                x = layer_norm(dtype=self.dtype, name="stage1_norm")(x)
            for block in range(blocks):
                name = f"stage{stage}_block{block + 1}"
                x = ConvNeXtBlock(next(rates), self.dtype, name=name)(x, train=train)
            x = at_stage(stage, x)
        return outputs(layer_norm(dtype=jnp.float32, name="final_norm")(global_pool(x)), self.num_classes)


def make_convnext(
    *,
    num_classes: int,
    depth: int = 18,
    width: int = 96,
    patch_size: int = 4,
    stochastic_depth: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
) -> Model:
    """A ConvNeXt.

    Args:
      depth: number of blocks, 6, 12, 18 or 36.
      width: channels of the first stage; the features have 8 width entries.
      patch_size: pixels of the stem's patches; 8 of them divide the image's sides. 4 for 224 pixels, 2 for 32.
      stochastic_depth: rate of the last block, in [0, 1).
    """
    one_of("depth of convnext", depth, STAGES)
    check_fields(stochastic_depth=stochastic_depth)
    return ConvNeXt(num_classes, STAGES[depth], width, patch_size, stochastic_depth, dtype)
