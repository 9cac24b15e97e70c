"""FMix (Harris et al. 2020): a mask of random low-frequency shape with mean lam.

Gaussian noise in Fourier space is damped by 1 / max(f, 1 / max(h, w))^decay and brought back to pixels. The mask is one
at the largest lam h w of them. It has the image's size, and every pair has its own. (In the published code it is 32x32
by default, and one serves a batch.)

The code that most projects copied from the authors draws another spectrum than the paper writes: it takes real and
imaginary parts from the axis of the vertical frequencies instead of the last one. Of the horizontal frequencies 0 and 1
are left, and of the vertical ones those that are not negative. Its masks vary along the width: at 32x32 their slowest
wave across has 3.7 times the power of their slowest wave down. Here that is 1.7, since a real transform counts the
waves down by half. `variant="official"` makes such masks.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.interfaces import Key
from sem_jax.mixers.masks import blend
from sem_jax.mixers.mixer import Mixer, check_alpha, require, sample_beta

VARIANTS = ("paper", "official")


class FmixDraw(NamedTuple):
    mask: jax.Array  # f32[h w] in [0, 1]


def low_frequency_noise(normal: jax.Array, shape: tuple[int, int], decay: float) -> jax.Array:
    """Noise f32[h w] with power f^-decay, of normal deviates f32[2 h w//2+1] (real and imaginary parts)."""
    height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    damping = jnp.asarray(np.maximum(frequency, 1.0 / max(height, width)) ** -decay, jnp.float32)
    return jnp.fft.irfft2(jax.lax.complex(normal[0] * damping, normal[1] * damping), s=shape)


def official_noise(normal: jax.Array, shape: tuple[int, int], decay: float) -> jax.Array:
    """The noise f32[h w] of `variant="official"`, of normal deviates f32[2 w//2+1 2] (w//2+2 for an odd width).

    Entry k, m is the wave of vertical frequency k and horizontal frequency m. Real parts are damped as if k were the
    horizontal frequency and the vertical one 0, imaginary parts as if that one were 1 / h.
    """
    height, width = shape
    along = np.fft.fftfreq(width)[: normal.shape[1]]
    damping = np.maximum(np.stack([np.abs(along), np.hypot(along, 1.0 / height)]), 1.0 / max(height, width)) ** -decay
    real, imaginary = normal * jnp.asarray(damping, jnp.float32)[:, :, None]
    return jnp.fft.irfft2(jax.lax.complex(real, imaginary), s=shape)


def top_mask(noise: jax.Array, lam: jax.Array, up: jax.Array, max_soft: float) -> jax.Array:
    """f32[h w]: one for the lam h w largest pixels of the noise, zero for the rest, with a ramp between if asked.

    Args:
      noise: f32[h w].
      lam: f32[] in [0, 1].
      up: bool[]; lam h w is rounded up or down.
      max_soft: half width of the ramp as a share of the pixels; at most min(lam, 1 - lam), so that the mean stays lam.
    """
    size = noise.size
    count = jnp.where(up, jnp.ceil(lam * size), jnp.floor(lam * size))
    if not max_soft:
        return largest(noise.ravel(), count.astype(jnp.int32)).astype(jnp.float32).reshape(noise.shape)
    rank = jnp.argsort(jnp.argsort(-noise.ravel())).astype(jnp.float32)
    soft = jnp.floor(size * jnp.minimum(max_soft, jnp.minimum(lam, 1.0 - lam)))
    soft = jnp.minimum(soft, jnp.minimum(count, size - count))
    ramp = 1.0 - (rank - (count - soft)) / jnp.maximum(2.0 * soft - 1.0, 1.0)
    mask = jnp.where(rank < count - soft, 1.0, jnp.where(rank < count + soft, ramp, 0.0))
    return mask.reshape(noise.shape)


def largest(values: jax.Array, count: jax.Array) -> jax.Array:
    """True for the `count` largest of f32[n], bool[n]; of equal ones the first.

    The smallest of them is found two bits at a time, on the bits of the floats rearranged so that they order as
    integers. On XLA:CPU sorting takes 20 times as long as drawing the noise, this about as long.
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    order = jnp.where(bits >= sign, ~bits, bits | sign)
    least = jnp.uint32(0)
    for shift in range(30, -1, -2):
        candidates = least | (jnp.arange(1, 4, dtype=jnp.uint32) << shift)
        reached = jnp.sum(order[None, :] >= candidates[:, None], axis=1) >= count  # true, then false
        least |= jnp.sum(reached, dtype=jnp.uint32) << shift
    above, equal = order > least, order == least
    return above | (equal & (jnp.cumsum(equal) <= count - jnp.sum(above)))


def sample_fmix(
    key: Key,
    image_shape: tuple[int, int, int],
    *,
    alpha: float,
    decay: float = 3.0,
    max_soft: float = 0.0,
    reformulate: bool = False,
    variant: str = "paper",
) -> FmixDraw:
    """lam ~ Beta(alpha, alpha) and a mask with that mean, up to one pixel."""
    height, width, _ = image_shape
    lam_key, noise_key, up_key = jax.random.split(key, 3)
    if reformulate:
        lam = jax.random.beta(lam_key, alpha + 1.0, alpha, dtype=jnp.float32)
    else:
        lam = sample_beta(lam_key, alpha)
    if variant == "official":
        normal = jax.random.normal(noise_key, (2, width // 2 + 1 + width % 2, 2), jnp.float32)
        noise = official_noise(normal, (height, width), decay)
    else:
        normal = jax.random.normal(noise_key, (2, height, width // 2 + 1), jnp.float32)
        noise = low_frequency_noise(normal, (height, width), decay)
    return FmixDraw(top_mask(noise, lam, jax.random.bernoulli(up_key), max_soft))


def apply_fmix(draw: FmixDraw, anchor: jax.Array, partner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """mask x_i + (1 - mask) x_j, and lam = mean(mask); see `Mixer.apply`."""
    return blend(draw.mask, anchor, partner)


def make_fmix(
    *,
    alpha: float = 1.0,
    decay: float = 3.0,
    max_soft: float = 0.0,
    reformulate: bool = False,
    variant: str = "paper",
) -> Mixer:
    """FMix with Beta(alpha, alpha), alpha > 0.

    Args:
      decay: exponent of the frequency, > 0; a higher one gives fewer and larger patches.
      max_soft: half width of the soft edge as a share of the pixels, in [0, 0.5].
      reformulate: lam ~ Beta(alpha + 1, alpha), for a loss with only the anchor's label.
      variant: "paper", or "official" for the spectrum of the code that most projects copied.
    """
    check_alpha(alpha)
    fitting = 0.0 < decay < float("inf") and 0.0 <= max_soft <= 0.5
    require(fitting, "fmix needs decay > 0 and max_soft in [0, 0.5]", decay, max_soft)
    require(variant in VARIANTS, f"fmix needs variant to be one of {', '.join(VARIANTS)}", repr(variant))
    options = {"decay": float(decay), "max_soft": float(max_soft), "reformulate": reformulate, "variant": variant}
    return Mixer(partial(sample_fmix, alpha=alpha, **options), apply_fmix)
