"""mixup and CutMix against images made by hand, and the laws their weights follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sem_jax.mixers import MIXERS
from sem_jax.mixers.cutmix import CutmixDraw, apply_cutmix
from sem_jax.mixers.mixer import sample_beta
from sem_jax.mixers.mixup import MixupDraw, apply_mixup

WHITE, BLACK = jnp.ones((2, 2, 1)), jnp.zeros((2, 2, 1))


def test_mixup_by_hand():
    mixed, lam = apply_mixup(MixupDraw(jnp.float32(0.25)), WHITE, BLACK)
    np.testing.assert_array_equal(mixed[..., 0], [[0.25, 0.25], [0.25, 0.25]])
    assert float(lam) == 0.25


def test_cutmix_by_hand():
    draw = CutmixDraw(*map(jnp.int32, (0, 1, 1, 2)))  # row 0, column 1
    mixed, lam = apply_cutmix(draw, WHITE, BLACK)
    np.testing.assert_array_equal(mixed[..., 0], [[1, 0], [1, 1]])
    assert float(lam) == 0.75


def test_cutmix_rows_are_rows():
    """The box of an image that is not square lies where its numbers say (others have mixed up width and height)."""
    draw = CutmixDraw(*map(jnp.int32, (1, 3, 4, 5)))
    mixed, lam = apply_cutmix(draw, jnp.ones((4, 6, 1)), jnp.zeros((4, 6, 1)))
    expected = np.ones((4, 6))
    expected[1:3, 4:5] = 0
    np.testing.assert_array_equal(mixed[..., 0], expected)
    np.testing.assert_allclose(lam, 22 / 24, rtol=1e-6)


def reference_box(lam, row, column, height, width):
    """The published recipe, in Python's integers."""
    ratio = np.sqrt(np.float32(1.0) - np.float32(lam))
    half_height, half_width = int(height * ratio) // 2, int(width * ratio) // 2
    return (
        max(row - half_height, 0),
        min(row + half_height, height),
        max(column - half_width, 0),
        min(column + half_width, width),
    )


def test_cutmix_box_is_the_published_one():
    mixer = MIXERS["cutmix"](alpha=1.0)
    for key in jax.random.split(jax.random.key(0), 64):
        lam_key, row_key, column_key = jax.random.split(key, 3)
        box = reference_box(
            float(sample_beta(lam_key, 1.0)),
            int(jax.random.randint(row_key, (), 0, 12)),
            int(jax.random.randint(column_key, (), 0, 20)),
            12,
            20,
        )
        assert tuple(map(int, mixer.sample(key, (12, 20, 3)))) == box


def test_cutmix_correction_is_no_detail():
    """At alpha 1 on 32x32 the drawn and the real lam differ by 0.20 on average, the real mean is 0.70."""
    mixer = MIXERS["cutmix"](alpha=1.0)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda k: sample_beta(jax.random.split(k, 3)[0], 1.0))(keys)
    box = jax.vmap(lambda k: mixer.sample(k, (32, 32, 3)))(keys)
    real = 1 - (box.bottom - box.top) * (box.right - box.left) / 1024
    assert abs(float(jnp.mean(jnp.abs(real - drawn))) - 0.20) < 0.02
    assert abs(float(jnp.mean(real)) - 0.70) < 0.02


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_lam_follows_beta_and_not_another_one(alpha):
    keys = jax.random.split(jax.random.key(0), 4000)
    lam = np.asarray(jax.vmap(lambda k: MIXERS["mixup"](alpha=alpha).sample(k, (2, 2, 1)).lam)(keys), np.float64)
    assert scipy.stats.kstest(lam, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    for wrong in (alpha * 0.7, alpha * 1.4):
        assert scipy.stats.kstest(lam, scipy.stats.beta(wrong, wrong).cdf).pvalue < 1e-3
    assert scipy.stats.kstest(lam, scipy.stats.beta(alpha + 1, alpha).cdf).pvalue < 1e-3


def test_every_pair_has_a_lam_of_its_own():
    from sem_jax.mixers import make_mix

    _, (lam, _) = make_mix(MIXERS["cutmix"](alpha=1.0))(jax.random.key(0), jnp.zeros((256, 16, 16, 1)))
    assert len(set(lam.tolist())) > 40
