"""MLP-Mixer (Tolstikhin et al. 2021) for any square patch: Mixer-B/16 is width 768, depth 12.

    model = make_mlp_mixer(num_classes=10, patch_size=4, width=256, depth=8)        # 32 pixels
    model = make_mlp_mixer(num_classes=1000, patch_size=16, width=768, depth=12)    # 59.9 M, Mixer-B/16, 224 pixels

The hidden layers have width / 2 entries over tokens and 4 width over channels, as in all published sizes. The
parameters fit one number of patches only.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.interfaces import Model, Outputs, StageHook
from sem_jax.models.layers import check_fields, drop_path, no_hook, outputs
from sem_jax.models.tokens import STAGES, Mlp, check_size, layer_norm, patches, token_blocks


class MixerBlock(nn.Module):
    """x + mlp over the tokens of norm(x), then x + mlp over the channels of norm(x)."""

    dropout: float
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        width = x.shape[-1]
        y = layer_norm(dtype=self.dtype, name="norm1")(x).swapaxes(1, 2)
        y = Mlp(width // 2, self.dropout, self.dtype, name="token_mlp")(y, train=train).swapaxes(1, 2)
        x = x + drop_path(y, self.drop_path, train=train)
        y = layer_norm(dtype=self.dtype, name="norm2")(x)
        y = Mlp(4 * width, self.dropout, self.dtype, name="channel_mlp")(y, train=train)
        return x + drop_path(y, self.drop_path, train=train)


class MlpMixer(nn.Module):
    """Images f32[b h w c] of the size it was initialised with -> Outputs(features f32[b width], logits f32[b k])."""

    num_classes: int
    patch_size: int = 4
    width: int = 256
    depth: int = 8
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, at_stage: StageHook = no_hook) -> Outputs:
        x = patches(at_stage(0, images), model="mlp_mixer", width=self.width, size=self.patch_size, dtype=self.dtype)
        block = functools.partial(MixerBlock, dropout=self.dropout, dtype=self.dtype)
        x = token_blocks(x, block, self.depth, stochastic_depth=self.stochastic_depth, train=train, at_stage=at_stage)
        x = at_stage(STAGES, layer_norm(dtype=self.dtype, name="final_norm")(x))
        return outputs(jnp.mean(x.astype(jnp.float32), axis=1), self.num_classes)


def make_mlp_mixer(
    *,
    num_classes: int,
    patch_size: int = 4,
    width: int = 256,
    depth: int = 8,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
) -> Model:
    """An MLP-Mixer.

    Args:
      patch_size: pixels; 4 for images of 32, 16 for 224.
      width: entries of a token, and of the features; at least 16.
      depth: number of blocks.
      dropout: rate in [0, 1), after both layers of every MLP.
      stochastic_depth: rate of the last block, in [0, 1).
    """
    check_size(width, depth, model="mlp_mixer")
    check_fields(dropout=dropout, stochastic_depth=stochastic_depth)
    return MlpMixer(num_classes, patch_size, width, depth, dropout, stochastic_depth, dtype)
