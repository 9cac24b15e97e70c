"""Backbones by name: `MODELS[name](num_classes=..., depth=..., ...)` makes a Linen module that returns Outputs.

    model = MODELS["preact_resnet"](num_classes=10, depth=18, width=64)
    features, logits = model.apply(variables, images, train=False)

To add one: a file with `make_<name>(*, num_classes, depth, width, variant, stem, dropout, dtype)` and a line here;
the contract tests pick it up. `features` are what the classifier, which must be linear, is given.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sem_jax.models.preact_resnet import make_preact_resnet
from sem_jax.models.wide_resnet import make_wide_resnet
from sem_jax.registry import lookup

MODELS = {
    "preact_resnet": make_preact_resnet,
    "wide_resnet": make_wide_resnet,
}

__all__ = ["MODELS", "make_model"]


def make_model(*, name: str, num_classes: int, dtype: str = "auto", **options) -> nn.Module:
    """The model that the `model` group of a configuration describes.

    Args:
      name: a key of MODELS.
      num_classes: k.
      dtype: "float32", "bfloat16" or "auto": float32 on CPU, where bfloat16 is emulated, else bfloat16.
      **options: the row's own: depth, width, variant, stem, dropout.

    Raises:
      ConfigError: for an unknown name or an option the model does not take.
    """
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return lookup(MODELS, "model", name)(num_classes=num_classes, dtype=jnp.dtype(dtype), **options)
