"""Combinators: choice, strengths, and mixers from the texts of a configuration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import ConfigError
from sem_jax.mixers import MIXERS, STRENGTHS, make_mix, make_mixer, make_strength
from sem_jax.mixers.mixer import _sample_batch

B = 400
KEY = jax.random.key(0)


def lams(mixer, scope="sample", keys=1, **call):
    x = jnp.zeros((B, 8, 8, 1))
    mix = jax.jit(lambda k: make_mix(mixer, scope=scope)(k, x, **call)[1].lam)
    return np.asarray(jax.vmap(mix)(jax.random.split(KEY, keys)))


def test_choice_follows_the_weights_per_pair_and_per_batch():
    mixer = MIXERS["choice"](choices=("none", "mixup"), weights=(3, 1))
    share = (lams(mixer) < 1).mean()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / B)
    batches = lams(mixer, scope="batch", keys=60) < 1
    assert (batches.all(axis=1) | ~batches.any(axis=1)).all()
    assert 5 <= batches[:, 0].sum() <= 27
    assert (lams(MIXERS["choice"](choices=("none", "mixup"), weights=(1, 0))) == 1).all()


def test_choice_gives_each_mixer_its_own_alpha_and_options():
    mixer = MIXERS["choice"](alpha=50.0, choices=("mixup", "cutmix(alpha=1, min_area=0.7)"))
    found = lams(mixer)[0]
    assert ((found > 0.3) | (found < 0.36)).all()
    assert 0.35 < (found > 0.36).mean() < 0.65


def test_choice_of_a_mixer_of_pixels_and_one_of_hidden_states():
    """A pair is mixed once: by its pixels or by its hidden state, never by both."""
    x = jax.random.normal(KEY, (64, 4, 4, 1))
    mixer = MIXERS["choice"](choices=("mixup", "manifold_mixup(layers=(1,))"))
    for scope in ("sample", "batch"):
        mixed, (lam, pairing) = make_mix(mixer, scope=scope)(jax.random.key(3), x)
        w = lam[:, None, None, None]
        expected = w * x + (1 - w) * x[pairing]
        by_pixels = np.abs(mixed.images - x).max((1, 2, 3)) > 0
        hidden = mixed.at_stage(last=1)(1, x)
        by_hidden = np.abs(hidden - x).max((1, 2, 3)) > 0
        alone = np.asarray((pairing == jnp.arange(64)) | (lam == 1))
        assert (by_pixels ^ by_hidden | alone).all()
        np.testing.assert_allclose(
            jnp.where(jnp.asarray(by_pixels)[:, None, None, None], mixed.images, hidden), expected, atol=1e-5
        )


@pytest.mark.parametrize("choices", [("mixup", "manifold_mixup(layers=(1,))"), ("manifold_mixup", "alignmix")])
def test_with_hidden_states_in_a_choice_no_image_is_mixed_twice(choices):
    """One mixer a batch: else a partner's hidden state may be that of an image that was mixed already."""
    anchors = jnp.eye(32).reshape(32, 4, 8, 1)  # an image of 4 x 8 is one of 32 basis vectors
    mixed, (lam, pairing) = make_mix(MIXERS["choice"](choices=choices), pairing="derangement")(KEY, anchors)
    if choices[1] == "alignmix":
        assert jax.tree.leaves(mixed.drawn.draw.index)[0].shape == ()
        return
    hidden = mixed.at_stage(last=1)(1, mixed.images).reshape(32, 32)
    expected = lam[:, None] * jnp.eye(32) + (1 - lam[:, None]) * jnp.eye(32)[pairing]
    np.testing.assert_allclose(hidden, expected, atol=1e-6)


def test_in_a_choice_what_a_mixer_shares_stays_shared():
    """PuzzleMix draws one grid a batch: a grid a pair would compute all grids for every pair."""
    mixer = MIXERS["choice"](choices=("mixup", "puzzlemix"))
    draw, axes = _sample_batch(mixer, KEY, (32, 32, 3), 8, "sample")
    assert draw.draws[1].grid.shape == () and draw.draws[1].lam.shape == draw.index.shape == (8,)
    assert axes.draws[1].grid is None and axes.index == 0


def test_in_a_choice_puzzlemix_looks_at_the_net_as_it_is_and_attentive_cutmix_at_the_frozen_one():
    frozen, now = (lambda images, labels, v=v: jnp.full((len(images), 4, 4), v) for v in (1.0, 2.0))
    mixer = MIXERS["choice"](choices=("puzzlemix", "mixup", "attentive_cutmix"), scorer=frozen)
    of_puzzle, of_mixup, of_attentive = mixer.score(jnp.zeros((2, 8, 8, 1)), None, now)
    assert of_mixup is None and float(of_attentive.max()) == 1.0 and float(of_puzzle.min()) == 2.0
    assert float(MIXERS["puzzlemix"](scorer=frozen).score(jnp.zeros((2, 8, 8, 1)), None, None).max()) == 1.0


def test_one_program_serves_every_strength():
    mix = jax.jit(lambda k, s: make_mix(MIXERS["mixup"](), prob=0.8)(k, jnp.zeros((B, 2, 2, 1)), strength=s)[1].lam)
    for strength in (0.0, 0.25, 1.0):
        share = float((mix(KEY, strength) < 1).mean())
        assert abs(share - 0.8 * strength) <= 4 * np.sqrt(0.2 / B)
    assert mix._cache_size() == 1


def test_strengths_by_hand():
    at = jnp.asarray([0, 25, 50, 100, 150])
    expected = {
        "constant": [1, 1, 1, 1, 1],
        "linear": [1, 0.75, 0.5, 0, 0],
        "cosine": [1, 0.5 + np.sqrt(0.125), 0.5, 0, 0],
        "alternating": [1, 0, 1, 1, 1],
    }
    assert set(expected) == set(STRENGTHS)
    for name, values in expected.items():
        strength = make_strength(name, total_steps=100, steps_per_epoch=25)
        np.testing.assert_allclose(jax.vmap(strength)(at), values, atol=1e-6, err_msg=name)


def test_options_are_texts_and_nothing_is_executed():
    mixer = make_mixer("cutmix", alpha=1.0, options="min_area=0.25, max_area=1")
    assert lams(mixer).max() <= 0.8
    for text in ("0.3", "min_area", "min_area=__import__('os')", "min_area=)", "**{}", "min_area=0.1; x"):
        with pytest.raises(ConfigError, match="mixer.options"):
            make_mixer("cutmix", options=text)
    with pytest.raises(ConfigError, match="Unknown option 'min_aera' of mixer 'cutmix'.*Did you mean 'min_area'"):
        make_mixer("cutmix", options="min_aera=0.1")
    with pytest.raises(ConfigError, match="max_area of cutmix must be like 1.0, got 'all'"):
        make_mixer("cutmix", options="max_area='all'")
    with pytest.raises(ConfigError, match="scorer"):
        make_mixer("puzzlemix", options="scorer=None")


def test_a_text_may_name_the_options_in_brackets_too():
    assert lams(make_mixer("cutmix(min_area=0.25)")).max() <= 0.8
    assert lams(make_mixer("cutmix(min_area=0.25)", options="min_area=0.5")).max() <= 0.55
    with pytest.raises(ConfigError, match=r"a mixer is given as .* got 'cutmix\('"):
        make_mixer("cutmix(")
    with pytest.raises(ConfigError, match="Unknown option 'min_aera' of mixer 'cutmix'"):
        make_mixer("cutmix(min_aera=0.25)")
