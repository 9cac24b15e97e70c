"""What every row of MIXERS promises; a new row is picked up by itself."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax import mixers
from sem_jax.errors import ConfigError
from sem_jax.mixers import MIXERS, make_mix

SHAPE = (8, 6, 3)
BATCH = 16


def images(seed=0):
    return jax.random.normal(jax.random.key(seed), (BATCH, *SHAPE))


@pytest.fixture(params=sorted(MIXERS))
def mixer(request):
    return MIXERS[request.param](alpha=0.7)


def draws(mixer, count=64):
    return [mixer.sample(key, SHAPE) for key in jax.random.split(jax.random.key(1), count)]


def test_options_are_keyword_only():
    for name, make in MIXERS.items():
        parameters = inspect.signature(make).parameters.values()
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters), name


def test_every_file_names_its_functions():
    for name, make in MIXERS.items():
        module = inspect.getmodule(make)
        assert make.__name__ == f"make_{name}"
        assert hasattr(module, f"sample_{name}") and hasattr(module, f"apply_{name}"), name
        assert next(iter(inspect.signature(getattr(module, f"sample_{name}")).parameters)) == "key"


def test_lam_is_a_weight_and_the_image_keeps_its_shape(mixer):
    x, y = images()[:2]
    for draw in draws(mixer):
        mixed, lam = mixer.apply(draw, x, y)
        assert mixed.shape == x.shape and mixed.dtype == x.dtype
        assert lam.shape == () and lam.dtype == jnp.float32
        assert 0.0 <= float(lam) <= 1.0


def test_label_and_pixels_agree(mixer):
    """With an anchor of ones and a partner of zeros the mean of the image is the anchor's weight."""
    for draw in draws(mixer):
        mixed, lam = mixer.apply(draw, jnp.ones(SHAPE), jnp.zeros(SHAPE))
        np.testing.assert_allclose(np.asarray(mixed, np.float64).mean(), float(lam), atol=1e-6)


@pytest.mark.parametrize("extreme", [make(alpha=0.01) for make in MIXERS.values()], ids=list(MIXERS))
def test_where_lam_is_one_the_anchor_is_returned(extreme):
    """Searched among draws at a tiny alpha, where lam = 1 is common."""
    x, y = images()[:2]
    found = 0
    for key in jax.random.split(jax.random.key(2), 32):
        mixed, lam = extreme.apply(extreme.sample(key, SHAPE), x, y)
        if float(lam) == 1.0:
            found += 1
            np.testing.assert_array_equal(mixed, x)
    assert found


@pytest.mark.parametrize("scope", mixers.mixer.SCOPES)
def test_batch_form(mixer, scope):
    mix = make_mix(mixer, scope=scope)
    x, key = images(), jax.random.key(3)
    mixed, (lam, pairing) = mix(key, x)
    assert mixed.shape == x.shape and lam.shape == (BATCH,) and lam.dtype == jnp.float32
    assert sorted(pairing.tolist()) == list(range(BATCH)) and pairing.dtype == jnp.int32

    same, (lam_again, pairing_again) = mix(key, x)
    np.testing.assert_array_equal(mixed, same)
    np.testing.assert_array_equal(lam, lam_again)
    np.testing.assert_array_equal(pairing, pairing_again)

    compiled, (lam_jit, pairing_jit) = jax.jit(mix)(key, x)
    np.testing.assert_array_equal(pairing, pairing_jit)
    np.testing.assert_allclose(lam, lam_jit, atol=1e-6)
    np.testing.assert_allclose(mixed, compiled, atol=1e-5)

    _, other = mix(jax.random.key(4), x)
    assert not np.array_equal(pairing, other.pairing)
    if scope == "batch":
        assert len(set(lam.tolist())) == 1


def test_sample_scope_is_a_loop_over_keys(mixer):
    """The vmapped form draws and mixes each pair as the functions of one pair do."""
    x, key = images(), jax.random.key(5)
    mixed, (lam, pairing) = make_mix(mixer, scope="sample")(key, x)
    _, draw_key, _ = jax.random.split(key, 3)
    for i, k in enumerate(jax.random.split(draw_key, BATCH)):
        one, weight = mixer.apply(mixer.sample(k, SHAPE), x[i], x[pairing[i]])
        np.testing.assert_allclose(one, mixed[i], atol=1e-6)
        np.testing.assert_allclose(weight, lam[i], atol=1e-6)


def test_take_replaces_the_indexing(mixer):
    x, key = images(), jax.random.key(6)
    mix = make_mix(mixer)
    asked = []

    def take(pairing):
        asked.append(pairing)
        return x[pairing]

    np.testing.assert_array_equal(mix(key, x)[0], mix(key, x, take)[0])
    assert len(asked) == 1


def test_any_size_and_channel_count(mixer):
    for shape in ((4, 1, 1, 1), (3, 5, 9, 4)):
        mixed, _ = make_mix(mixer)(jax.random.key(0), jnp.ones(shape))
        assert mixed.shape == shape


def test_prob_is_the_frequency_of_mixing():
    """prob once, not squared (a bug others shipped): 4 standard errors around 0.3 on 4,000 pairs."""
    x = jnp.zeros((4000, 2, 2, 1))
    _, (lam, _) = make_mix(MIXERS["mixup"](alpha=1.0), prob=0.3)(jax.random.key(0), x)
    assert abs(float(jnp.mean(lam < 1)) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)
    mixed_batches = [
        bool((make_mix(MIXERS["mixup"](), scope="batch", prob=0.3)(k, x[:2])[1].lam < 1).all())
        for k in jax.random.split(jax.random.key(1), 60)
    ]
    assert 5 <= sum(mixed_batches) <= 32
    everything, (lam, _) = make_mix(MIXERS["mixup"](), prob=0.0)(jax.random.key(0), images())
    np.testing.assert_array_equal(everything, images())
    assert (lam == 1).all()


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_wrong_alpha_is_refused(alpha):
    for name in set(MIXERS) - {"none"}:
        with pytest.raises(ConfigError, match="alpha"):
            MIXERS[name](alpha=alpha)


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="scope"):
        make_mix(MIXERS["mixup"](), scope="pair")
    with pytest.raises(ConfigError, match="prob"):
        make_mix(MIXERS["mixup"](), prob=1.5)
