"""Backbones by name: `MODELS[name](num_classes=..., depth=..., ...)` makes a Linen module that returns Outputs.

    >>> import jax
    >>> from sem_jax.models import make_model
    >>> model = make_model(name="wide_resnet", num_classes=10, depth=10, width=1)
    >>> images = jax.numpy.zeros((2, 8, 8, 3))
    >>> variables = model.init(jax.random.key(0), images, train=False)
    >>> features, logits = model.apply(variables, images, train=False)
    >>> features.shape, logits.shape
    ((2, 64), (2, 10))

To add one: a file with `make_<name>(*, num_classes, dtype, ...)` and a line in `table.py`; the contract tests pick it
up. It names the fields of the `model` group that it uses, and any other is refused. The logits must be linear in the
features. Importing this package imports no model and no jax.
"""

from sem_jax.models.table import DTYPES, MODELS, make_model

__all__ = ["DTYPES", "MODELS", "make_model"]
