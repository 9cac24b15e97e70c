"""A backbone that compiles in a moment: two convolutions with BatchNorm, dropout, pooled features, linear head.

model = TinyNet(num_classes=4)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.interfaces import Outputs, StageHook
from sem_jax.models.layers import no_hook


class TinyNet(nn.Module):
    num_classes: int
    width: int = 8
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, at_stage: StageHook = no_hook) -> Outputs:
        x = nn.Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype)(at_stage(0, images))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = at_stage(1, x)
        x = nn.Conv(self.width, (3, 3), strides=2, use_bias=False, dtype=self.dtype)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = at_stage(2, nn.relu(x))
        features = jnp.mean(x, axis=(1, 2)).astype(jnp.float32)
        return Outputs(features, nn.Dense(self.num_classes)(features))
