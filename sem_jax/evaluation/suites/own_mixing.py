"""Equivariance of a run's representation under its own mixer.

    own = represent_own(context, count=500)        # OwnMixing(relative f32[n], absolute f32[n], lam f32[n])
    own.relative[own.middle].mean()

The curves against lam need a mixer with a given lam, but many mixers determine lam themselves. Here pairs are mixed as
in training, which draws lam. Runs with the same mixer get the same images, pairs and draws, so that they can be
compared pair by pair (except with PuzzleMix: its lam depends on the net).
"""

import functools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.data.augment import normalise
from sem_jax.evaluation.context import Context
from sem_jax.interfaces import Hooked
from sem_jax.mixers import gradient_saliency, make_mix, make_mixer
from sem_jax.runs.opening import open_scorer

BATCH = 50  # pairs of a call; some mixers draw once a call, such as the layer of Manifold Mixup
MIDDLE = (0.05, 0.95)  # of lam, outside of which hardly anything is mixed


class OwnMixing(NamedTuple):
    """Errors e = ||g(mixed) - (lam g(x_i) + (1 - lam) g(x_j))|| of n pairs."""

    relative: np.ndarray  # f32[n], e / ||g(x_i) - g(x_j)||; NaN for equal features
    absolute: np.ndarray  # f32[n], e
    lam: np.ndarray  # f32[n]

    @property
    def middle(self) -> np.ndarray:
        """bool[n]: pairs that are well mixed and whose features differ."""
        return (self.lam >= MIDDLE[0]) & (self.lam <= MIDDLE[1]) & np.isfinite(self.relative)


def represent_own(context: Context, *, count: int) -> OwnMixing:
    """Errors of pairs of test images under the run's own mixer, in evaluation mode.

    Args:
      context: of a run that mixes.
      count: number of pairs, limited by the number of test images and rounded down to whole batches.

    Raises:
      SemError: the mixer's scorer is not there, or there is only one test image.
    """
    run, test = context.run, context.split("test")
    x = run.config.mixer
    shape = {"image_shape": run.data.image_shape, "mean": run.data.mean, "std": run.data.std}
    scorer = open_scorer(x.scorer, **shape, trust_model=context.options.trust_model) if x.scorer else None
    # Unlike in training, every pair is mixed and no image is its own partner.
    mix = make_mix(make_mixer(x.name, alpha=x.alpha, options=x.options, scorer=scorer), pairing="roll")
    size = min(BATCH, count, len(test.labels))
    total = min(count, len(test.labels)) // size * size
    rows = np.random.default_rng(context.options.seed).permutation(len(test.labels))[:total]
    about = [context.digest(test.images), {**x}, context.options.seed, rows.tolist()]

    def one(variables, images, labels, key):
        model = run.model
        images = normalise(images, run.data.mean, run.data.std)
        saliency = functools.partial(gradient_saliency, model, variables)
        mixed, (lam, pairing) = mix(key, images, labels=labels, scorer=saliency)
        clean = model.apply(variables, images, train=False).features.astype(jnp.float32)
        hooks = {"at_stage": mixed.at_stage_of(model, variables)} if isinstance(mixed, Hooked) else {}
        mixed = mixed.images if isinstance(mixed, Hooked) else mixed
        features = model.apply(variables, mixed, train=False, **hooks).features.astype(jnp.float32)
        partner, weight = clean[pairing], lam[:, None]
        error = jnp.linalg.norm(features - (weight * clean + (1.0 - weight) * partner), axis=1)
        apart = jnp.linalg.norm(clean - partner, axis=1)
        # Features of equal images can differ by rounding, by which nothing should be divided.
        differ = apart > 1e-6 * jnp.linalg.norm(clean, axis=1)
        return jnp.where(differ, error / jnp.where(differ, apart, 1.0), jnp.nan), error, lam

    def make():
        call, key, parts = jax.jit(one), jax.random.key(context.options.seed), []
        for i, part in enumerate(np.split(rows, total // size)):
            batch = jnp.asarray(test.images[part]), jnp.asarray(test.labels[part])
            parts.append(jax.device_get(call(run.variables, *batch, jax.random.fold_in(key, i))))
        return dict(zip(OwnMixing._fields, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    return OwnMixing(**context.cache("pairs, own mixing", json.dumps(about), make, wanted=OwnMixing._fields))
