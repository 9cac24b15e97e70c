"""Saliency maps f32[b gh gw] for mixers; larger = more salient.

    maps = spectral_residual(images)                                       # no net
    maps = make_scorer(model, variables)(images, labels)                    # a frozen net's feature map
    maps = gradient_saliency(model, variables, images, labels)              # of the label's loss, one backward pass

A net is anything with Linen's `apply(variables, images, train=False)`; the second also needs `at_stage`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Scorer

LARGEST = 64  # pixels a side of the image whose spectral residual is taken, as in the paper
ROWS = 7  # a scorer takes the deepest stage with as many rows


def _smooth(x: jax.Array, kernel: np.ndarray) -> jax.Array:
    """[h w] convolved with a short kernel along both axes; edges are repeated."""
    half = len(kernel) // 2
    for axis in (0, 1):
        width = [(half, half) if i == axis else (0, 0) for i in (0, 1)]
        padded = jnp.pad(x, width, mode="edge")
        side, x = x.shape[axis], jnp.zeros_like(x)
        for i, weight in enumerate(kernel):
            x += weight * jax.lax.slice_in_dim(padded, i, i + side, axis=axis)
    return x


def spectral_residual(images: jax.Array) -> jax.Array:
    """The spectral residual of Hou & Zhang (2007): the log spectrum minus its local mean, back in pixels.

    Of images f32[b h w c], averaged over channels: f32[b min(h, 64) min(w, 64)], >= 0.
    """
    gray = jnp.mean(images.astype(jnp.float32), axis=-1)
    size = tuple(min(side, LARGEST) for side in gray.shape[1:])
    gray = jax.image.resize(gray, (len(gray), *size), "linear")
    bell = np.exp(-0.5 * (np.arange(-4, 5) / 2.5) ** 2)

    def one(x):
        spectrum = jnp.fft.fft2(x)
        amplitude = jnp.abs(spectrum)
        log = jnp.log(amplitude + 1e-6)
        residual = log - _smooth(log, np.full(3, 1 / 3))
        unit = spectrum / jnp.maximum(amplitude, 1e-6)  # the phase alone
        power = jnp.square(jnp.abs(jnp.fft.ifft2(jnp.exp(residual) * unit)))
        return _smooth(power, bell / bell.sum())

    return jax.vmap(one)(gray)


def gradient_saliency(model: Any, variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """sqrt(mean_c (d CE / d x)^2), as in PuzzleMix, f32[b h w]; costs a forward and a backward pass.

    BatchNorm uses its running averages, unlike there, so that an image's map depends on that image alone.
    """

    def loss(x):
        logits = model.apply(variables, x, train=False).logits
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels))

    return jnp.sqrt(jnp.mean(jnp.square(jax.grad(loss)(images)), axis=-1))


def as_grid(hidden: jax.Array) -> jax.Array | None:
    """Root mean square over the channels of a map [b h w d] or of tokens [b n d], f32[b gh gw]; None if neither.

    Tokens are the rows of a square grid, with or without a class token in front.
    """
    energy = jnp.sqrt(jnp.mean(jnp.square(hidden.astype(jnp.float32)), axis=-1))
    if energy.ndim == 2:
        count = energy.shape[1]
        side = int(np.sqrt(count))
        if side * side != count and int(np.sqrt(count - 1)) ** 2 != count - 1:
            return None
        return energy[:, count - side * side :].reshape(-1, side, side)
    return energy if energy.ndim == 3 else None


def make_scorer(model: Any, variables: Any) -> Scorer:
    """A frozen net as a scorer: the feature map of its deepest stage with at least 7 rows, or else of its first stage.

    Returns:
      scorer(images f32[b h w c], labels) -> f32[b gh gw]; labels are unused. It raises a ConfigError for a model
      without any feature map.
    """

    def scorer(images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        del labels
        grids = []

        def at_stage(k, hidden):
            if k > 0 and (grid := as_grid(hidden)) is not None:
                grids.append(grid)
            return hidden

        model.apply(variables, images, train=False, at_stage=at_stage)
        if not grids:
            raise ConfigError(f"{type(model).__name__} has no stage whose output is a map [b h w d] or tokens [b n d]")
        return next((grid for grid in reversed(grids) if grid.shape[1] >= ROWS), grids[0])

    return scorer
