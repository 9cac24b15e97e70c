"""Operations and bytes of one training step, from the shapes in the net: the same constant for every framework.

    cost = count(model, image_shape=(32, 32, 3))
    cost.step_flops          # 3.33e9 for one image through PreActResNet18, forward and backward

An operation count of a compiler differs between compilers (XLA leaves out multiplications with padding, 13% of
PreActResNet18 at 32x32), so it can't be the base of a utilisation that is compared between frameworks.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.interfaces import Model


class Cost(NamedTuple):
    """Of one image.

    Attributes:
      macs: multiply-adds of the forward pass in convolutions and matrix products.
      stem_macs: of the first of them, whose input needs no gradient.
      layers: (macs, input + output elements) of each.
      norm_elements: elements that BatchNorm (with its ReLU) normalises.
      add_elements: elements of the residual sums.
      parameters: of the net; not per image.
    """

    macs: int
    stem_macs: int
    layers: tuple[tuple[int, int], ...]
    norm_elements: int
    add_elements: int
    parameters: int

    @property
    def step_flops(self) -> float:
        """Forward and backward: 6 per multiply-add, less the gradient of the images."""
        return 6.0 * self.macs - 2.0 * self.stem_macs


def count(model: Model, *, image_shape: tuple[int, int, int]) -> Cost:
    """Traces the model with one image; nothing is computed.

    Args:
      model: a Linen module, as those of `sem_jax.models` are.
      image_shape: (h, w, c).
    """
    normalised = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            normalised.append(args[0].size)
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    with nn.intercept_methods(record):
        jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, images)
    layers, adds = [], 0
    for eqn in _equations(jaxpr.jaxpr):
        shapes = [v.aval.shape for v in eqn.invars]
        out = eqn.outvars[0].aval.shape
        elements = int(np.prod(shapes[0])) + int(np.prod(out))
        if eqn.primitive.name == "conv_general_dilated":
            kernel = [shapes[1][i] for i in eqn.params["dimension_numbers"].rhs_spec]  # out, in, then space
            layers.append((int(np.prod(out) * np.prod(kernel[1:])), elements))
        elif eqn.primitive.name == "dot_general":
            contracted = eqn.params["dimension_numbers"][0][0]
            layers.append((int(np.prod(out) * np.prod([shapes[0][i] for i in contracted])), elements))
        elif eqn.primitive.name == "add" and len(shapes[0]) == 4 and shapes[0] == shapes[1]:
            adds += int(np.prod(out))
    parameters = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(variables["params"]))
    return Cost(sum(m for m, _ in layers), layers[0][0], tuple(layers), sum(normalised), adds, parameters)


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        inner = [p for p in eqn.params.values() if hasattr(p, "eqns") or hasattr(p, "jaxpr")]
        for part in inner:
            yield from _equations(getattr(part, "jaxpr", part))
        if not inner:
            yield eqn


def floor_seconds(cost: Cost, *, batch: int, peak_flops: float, bandwidth: float, itemsize: int = 2) -> float:
    """The least time of one plain (mixup) step, if convolutions run at the roofline and BatchNorm from memory.

    A convolution reads its input and writes its output forward, twice that backward; BatchNorm + ReLU move three
    times their elements forward and five times backward, a residual sum three times and three times; the weights and
    SGD with momentum in float32 move 28 bytes a parameter. Convolutions and BatchNorm do not overlap, because
    BatchNorm needs the whole output. Tensors that stay in a cache can beat this: it is meant for batches >= 512.

    Args:
      cost: of one image.
      batch: images.
      peak_flops: operations per second.
      bandwidth: bytes per second.
      itemsize: bytes per activation; 2 is bfloat16.
    """
    flops = [6.0 * m for m, _ in cost.layers]
    flops[0] -= 2.0 * cost.stem_macs
    convolutions = sum(
        max(f / peak_flops, 3.0 * n * itemsize / bandwidth) for f, (_, n) in zip(flops, cost.layers, strict=True)
    )
    elementwise = itemsize * (8.0 * cost.norm_elements + 6.0 * cost.add_elements) / bandwidth
    return batch * (convolutions + elementwise) + 28.0 * cost.parameters / bandwidth
