"""Vision transformer (Dosovitskiy et al. 2021) for any square patch: ViT-B/16 is width 768, depth 12, heads 12.

    model = make_vit(num_classes=10, patch_size=4, width=192, depth=12, heads=3)     # 5.4 M parameters, 32 pixels
    model = make_vit(num_classes=1000, patch_size=16, width=768)                     # 86.6 M, ViT-B/16, 224 pixels

Positions are learned; blocks normalise first; a LayerNorm comes last. The features are its output at the class token
(pool "token"), or its mean over the patches (pool "mean", without a class token). LayerNorm keeps no statistics.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Model, Outputs, StageHook
from sem_jax.models.layers import check_fields, drop_path, no_hook, one_of, outputs
from sem_jax.models.tokens import EMBED_INIT, STAGES, Mlp, check_size, layer_norm, patches, token_blocks

POOLS = ("token", "mean")
HEAD_WIDTH = 64  # of all the published sizes


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) with a hidden layer of 4 times the width."""

    heads: int
    dropout: float
    drop_path: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nn.MultiHeadDotProductAttention(
            num_heads=self.heads,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            force_fp32_for_softmax=True,
            deterministic=True,  # the attention weights have no dropout, the output has
            name="attention",
        )(layer_norm(dtype=self.dtype, name="norm1")(x))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        x = x + drop_path(y, self.drop_path, train=train)
        y = layer_norm(dtype=self.dtype, name="norm2")(x)
        y = Mlp(4 * x.shape[-1], self.dropout, self.dtype, name="mlp")(y, train=train)
        return x + drop_path(y, self.drop_path, train=train)


class ViT(nn.Module):
    """Images f32[b h w c], h and w multiples of patch_size -> Outputs(features f32[b width], logits f32[b k])."""

    num_classes: int
    patch_size: int = 4
    width: int = 192
    depth: int = 12
    heads: int = 3
    pool: str = "token"
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, at_stage: StageHook = no_hook) -> Outputs:
        x = patches(at_stage(0, images), model="vit", width=self.width, size=self.patch_size, dtype=self.dtype)
        if self.pool == "token":
            token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
            token = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, self.width))
            x = jnp.concatenate([token, x], axis=1)
        positions = self.param("positions", EMBED_INIT, (1, x.shape[1], self.width))
        x = nn.Dropout(self.dropout, deterministic=not train)(x + positions.astype(self.dtype))
        block = functools.partial(EncoderBlock, heads=self.heads, dropout=self.dropout, dtype=self.dtype)
        x = token_blocks(x, block, self.depth, stochastic_depth=self.stochastic_depth, train=train, at_stage=at_stage)
        x = at_stage(STAGES, layer_norm(dtype=self.dtype, name="final_norm")(x)).astype(jnp.float32)
        return outputs(x[:, 0] if self.pool == "token" else jnp.mean(x, axis=1), self.num_classes)


def make_vit(
    *,
    num_classes: int,
    patch_size: int = 4,
    width: int = 192,
    depth: int = 12,
    heads: int = 0,
    pool: str = "token",
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
) -> Model:
    """A ViT.

    Args:
      patch_size: pixels; 4 for images of 32, 16 for 224.
      width: entries of a token, and of the features; at least 16.
      depth: number of blocks.
      heads: of the attention, a divisor of width; 0 gives each about 64 entries, as in the published sizes.
      pool: "token" (the class token) or "mean" (over the patches).
      dropout: rate in [0, 1), after the positions, the attention and both layers of the MLP.
      stochastic_depth: rate of the last block, in [0, 1).
    """
    check_size(width, depth, model="vit")
    heads = heads or max(1, width // HEAD_WIDTH)
    if width % heads:
        raise ConfigError(f"model.heads of vit must divide model.width = {width}, got {heads}")
    one_of("pool", pool, POOLS)
    check_fields(dropout=dropout, stochastic_depth=stochastic_depth)
    return ViT(num_classes, patch_size, width, depth, heads, pool, dropout, stochastic_depth, dtype)
