"""Contract of every row of MIXERS; new rows are tested by themselves."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Hooked, Mix, Outputs
from sem_jax.mixers import MIXERS, SCOPES, make_mix
from sem_jax.objectives.build import make_objective

SHAPE = (8, 6, 3)
BATCH = 48
LABELS = jnp.arange(BATCH) % 3
NEVER_THE_ANCHOR_ALONE = {"smoothmix", "attentive_cutmix"}  # a bell is 1 in one point; k cells are always pasted


def images(seed=0, shape=SHAPE):
    return jax.random.normal(jax.random.key(seed), (BATCH, *shape))


def scorer(images, labels):
    """A scorer without a net: the brightness of each cell of a grid of 4 rows and 3 columns."""
    del labels
    return jax.image.resize(jnp.abs(images).mean(-1), (len(images), 4, 3), "linear")


@functools.cache
def made(name):
    return MIXERS[name](alpha=0.1)  # where lam = 1 is common


@functools.cache
def batch_form(name, **options):
    """The compiled batch form, with labels and a scorer for the rows that need them."""
    return jax.jit(functools.partial(make_mix(made(name), **options), labels=LABELS, scorer=scorer))


def pixels(mixed):
    return mixed.images if isinstance(mixed, Hooked) else mixed


@pytest.fixture(params=sorted(MIXERS))
def name(request):
    return request.param


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
        assert list(inspect.signature(getattr(module, f"apply_{name}")).parameters)[:3] == ["draw", "anchor", "partner"]


def test_the_default_concentrations_are_the_usual_ones():
    usual = dict.fromkeys(MIXERS, 1.0) | {"manifold_mixup": 2.0, "alignmix": 2.0}
    assert {n: inspect.signature(make).parameters["alpha"].default for n, make in MIXERS.items()} == usual


def test_lam_is_a_weight_and_label_and_pixels_agree(name):
    """Of images of one value each, the mean of a mixed one agrees with its label to 1e-6."""
    value = jnp.arange(BATCH) / BATCH
    x = jnp.broadcast_to(value[:, None, None, None], (BATCH, *SHAPE))
    mixed, (lam, pairing) = batch_form(name, scope="sample")(jax.random.key(1), x)
    assert (lam >= 0).all() and (lam <= 1).all()
    if made(name).hook is None:  # those of hidden states: tests/mixers/test_hidden.py
        expected = lam * value + (1 - lam) * value[pairing]
        np.testing.assert_allclose(np.asarray(mixed, np.float64).mean((1, 2, 3)), expected, atol=1e-6)


def test_where_lam_is_one_the_anchor_is_returned(name):
    x, alone = images(), []
    for key in jax.random.split(jax.random.key(2), 3):
        mixed, (lam, _) = batch_form(name, scope="sample")(key, x)
        alone.extend(found := np.flatnonzero(lam == 1.0).tolist())
        np.testing.assert_array_equal(pixels(mixed)[jnp.array(found, int)], x[jnp.array(found, int)])
    assert bool(alone) == (name not in NEVER_THE_ANCHOR_ALONE)


@pytest.mark.parametrize("scope", SCOPES)
def test_batch_form(name, scope):
    mix = batch_form(name, scope=scope)
    x, key = images(), jax.random.key(3)
    mixed, (lam, pairing) = mix(key, x)
    assert pixels(mixed).shape == x.shape and pixels(mixed).dtype == x.dtype
    assert lam.shape == (BATCH,) and lam.dtype == jnp.float32
    assert sorted(pairing.tolist()) == list(range(BATCH)) and pairing.dtype == jnp.int32
    jax.tree.map(np.testing.assert_array_equal, mix(key, x), (mixed, Mix(lam, pairing)))
    _, other = mix(jax.random.key(4), x)
    assert not np.array_equal(pairing, other.pairing)
    looks = made(name).score is not None
    if scope == "batch" and not looks:  # where the place depends on the image, so does what an edge cuts off
        assert len(set(lam.tolist())) == 1
    if scope == "sample" and name not in ("none", "attentive_cutmix"):
        assert len(set(lam.tolist())) > 3


def test_compiled_equals_eager_and_batched_equals_a_loop_over_keys(name):
    """The vmapped, compiled form equals the functions of one pair, called one by one."""
    x, key, mixer = images(), jax.random.key(5), made(name)
    mixed, (lam, pairing) = batch_form(name, scope="sample")(key, x)
    _, draw_key, _ = jax.random.split(key, 3)
    maps = None if mixer.score is None else mixer.score(x, LABELS, scorer)
    for i, k in list(enumerate(jax.random.split(draw_key, BATCH)))[: 1 if mixer.score else 3]:
        of = () if maps is None else [jax.tree.map(lambda m, j=j: m[j], maps) for j in (i, pairing[i])]
        one, weight = mixer.apply(mixer.sample(k, SHAPE), x[i], x[pairing[i]], *of)
        np.testing.assert_allclose(one, pixels(mixed)[i], atol=1e-5)
        np.testing.assert_allclose(weight, lam[i], atol=1e-6)


def test_what_happens_to_a_pair_depends_on_that_pair_alone(name):
    """No mask, box or saliency of one image serves the others (as in published SaliencyMix and AttentiveMix code)."""
    x, key, mix = images(), jax.random.key(7), batch_form(name, scope="sample")
    mixed, (lam, pairing) = mix(key, x)
    changed = x.at[0].set(jnp.flip(5.0 * x[0], axis=(0, 1)))
    again, (lam_again, _) = mix(key, changed)
    others = [i for i in range(BATCH) if i != 0 and int(pairing[i]) != 0]
    np.testing.assert_array_equal(pixels(mixed)[jnp.array(others)], pixels(again)[jnp.array(others)])
    np.testing.assert_array_equal(lam[jnp.array(others)], lam_again[jnp.array(others)])


def test_smoothed_targets_are_the_mixture_of_smoothed_labels(name):
    """The objective's own targets, from its gradient at logits of 0; its loss is log(k) there if rows sum to one."""
    smoothing, classes = 0.2, 5
    _, (lam, pairing) = batch_form(name, scope="sample")(jax.random.key(7), images())
    batch = Batch(images(), LABELS, jnp.ones(BATCH))
    objective = make_objective(gamma=0.0, label_smoothing=smoothing)

    def loss_of(logits):
        return objective({"mixed": Outputs(jnp.zeros((BATCH, 1)), logits)}, batch, Mix(lam, pairing))[0]

    loss, gradient = jax.value_and_grad(loss_of)(jnp.zeros((BATCH, classes)))
    found = 1 / classes - BATCH * np.asarray(gradient, np.float64)
    labels, share = np.eye(classes)[np.asarray(LABELS)], np.asarray(lam, np.float64)[:, None]
    smooth = (1 - smoothing) * labels + smoothing / classes
    expected = share * smooth + (1 - share) * smooth[np.asarray(pairing)]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(loss, np.log(classes), rtol=1e-6)


def test_take_replaces_the_indexing():
    x, key = images(), jax.random.key(6)
    mix, asked = make_mix(made("cutmix")), []

    def take(pairing):
        asked.append(pairing)
        return x[pairing]

    np.testing.assert_array_equal(mix(key, x)[0], mix(key, x, take)[0])
    assert len(asked) == 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 9, 4)], ids=str)
def test_any_size_and_channel_count(name, shape):
    """Traced, not run: sizes are static, so a wrong shape fails in tracing."""
    mix = functools.partial(make_mix(made(name)), labels=LABELS[:4], scorer=scorer)
    mixed, (lam, _) = jax.eval_shape(mix, jax.random.key(0), jax.ShapeDtypeStruct((4, *shape), jnp.float32))
    assert pixels(mixed).shape == (4, *shape) and lam.shape == (4,)


def test_float32_where_the_user_has_float64_on(name):
    mix = functools.partial(make_mix(made(name)), labels=LABELS[:4], scorer=scorer)
    with jax.enable_x64(True):
        mixed, (lam, _) = jax.eval_shape(mix, jax.random.key(0), jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32))
    assert pixels(mixed).dtype == lam.dtype == jnp.float32


def test_prob_is_the_frequency_of_mixing():
    """prob once, not squared (a bug others shipped): 4 standard errors around 0.3 on 4,000 pairs."""
    x = jnp.zeros((4000, 2, 2, 1))
    _, (lam, _) = make_mix(MIXERS["mixup"](alpha=1.0), prob=0.3)(jax.random.key(0), x)
    assert abs(float(jnp.mean(lam < 1)) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)
    lams = jax.vmap(lambda k: make_mix(MIXERS["mixup"](), scope="batch", prob=0.3)(k, x[:2])[1].lam)
    mixed_batches = (lams(jax.random.split(jax.random.key(1), 60)) < 1).all(axis=1)
    assert 5 <= int(mixed_batches.sum()) <= 32
    everything, (lam, _) = make_mix(MIXERS["mixup"](), prob=0.0)(jax.random.key(0), images())
    np.testing.assert_array_equal(everything, images())
    assert (lam == 1).all()


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_wrong_alpha_is_refused(alpha):
    for name in set(MIXERS) - {"none"}:
        with pytest.raises(ConfigError, match="alpha"):
            MIXERS[name](alpha=alpha)


WRONG = [
    ("cutmix", {"min_area": 0.5, "max_area": 0.5}),
    ("cutmix", {"max_area": 1.5}),
    ("resizemix", {"variant": "sides"}),
    ("fmix", {"decay": 0.0}),
    ("fmix", {"max_soft": 0.6}),
    ("gridmix", {"min_holes": 3, "max_holes": 2}),
    ("gridmix", {"min_crop": 0.0}),
    ("smoothmix", {"min_sigma": 0.5, "max_sigma": 0.25}),
    ("attentive_cutmix", {"k": -1}),
    ("puzzlemix", {"eta": -1.0}),
    ("puzzlemix", {"beta": float("inf")}),
    ("puzzlemix", {"blocks": ()}),
    ("manifold_mixup", {"layers": ()}),
    ("alignmix", {"epsilon": 0.0}),
    ("alignmix", {"epsilon": float("inf")}),
    ("alignmix", {"stage": 0}),
    ("alignmix", {"input_prob": 2.0}),
    ("choice", {"choices": ()}),
    ("choice", {"choices": ("mixup", "cutmx")}),
    ("choice", {"choices": ("mixup", 2)}),
    ("choice", {"choices": "mixup"}),
    ("choice", {"choices": ("mixup", "cutmix"), "weights": (1.0,)}),
    ("choice", {"choices": ("mixup",), "weights": (0.0,)}),
    ("choice", {"choices": ("mixup",), "weights": ("1",)}),
]


@pytest.mark.parametrize(("name", "options"), WRONG, ids=[f"{n}-{list(o)}" for n, o in WRONG])
def test_wrong_options_are_refused(name, options):
    with pytest.raises(ConfigError):
        MIXERS[name](**options)


def test_wrong_scopes_and_probabilities_are_refused_and_a_missing_scorer_is_asked_for():
    with pytest.raises(ConfigError, match="scope"):
        make_mix(MIXERS["mixup"](), scope="pair")
    with pytest.raises(ConfigError, match="prob"):
        make_mix(MIXERS["mixup"](), prob=1.5)
    with pytest.raises(ConfigError, match="Unknown pairing 'rol'. Did you mean 'roll'"):
        make_mix(MIXERS["mixup"](), pairing="rol")
    for name in ("puzzlemix", "attentive_cutmix"):
        with pytest.raises(ConfigError, match="scorer"):
            make_mix(MIXERS[name]())(jax.random.key(0), images())
