"""Pairings: permutations where they say so, classes kept or changed, nobody lost, partners within a device's part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import ConfigError
from sem_jax.interfaces import partners_of
from sem_jax.mixers import MIXERS, PAIRINGS, make_mix
from sem_jax.mixers.pairing import BY_LABEL, paired_within

LABELS = jnp.asarray([0, 1, 2, 0, 1, 0, 0, 3, 2, 0, 1, 0, 0, 0, 0, 0])  # 3 once, 0 in most places
B = len(LABELS)
KEYS = jax.random.split(jax.random.key(0), 300)


def drawn(name, labels=LABELS):
    return np.asarray(jax.jit(jax.vmap(PAIRINGS[name], in_axes=(0, None)))(KEYS, labels))


@pytest.mark.parametrize("name", sorted(PAIRINGS))
def test_every_pairing_is_made_of_indices_and_says_if_it_is_a_permutation(name):
    pairing = drawn(name)
    assert pairing.dtype == np.int32 and pairing.min() >= 0 and pairing.max() < B
    permutations = (np.sort(pairing, axis=1) == np.arange(B)).all(axis=1)
    assert permutations.all() if name != "other_class" else not permutations.any()
    assert (pairing == pairing[0]).all() == (name in ("roll", "flip"))


def test_permutation_is_often_with_oneself_and_derangement_never():
    with_oneself = {n: (drawn(n) == np.arange(B)).any(axis=1).mean() for n in ("permutation", "derangement", "roll")}
    assert abs(with_oneself["permutation"] - 0.63) < 0.1
    assert with_oneself["derangement"] == with_oneself["roll"] == 0.0
    partners = drawn("derangement")
    counts = np.bincount(partners[:, 0], minlength=B)
    assert counts[0] == 0 and counts[1:].min() > 5  # any other item may be the partner


def test_roll_and_flip_are_the_libraries_own():
    assert PAIRINGS["roll"](KEYS[0], jnp.zeros(4)).tolist() == [3, 0, 1, 2]  # x.roll(1)
    assert PAIRINGS["flip"](KEYS[0], jnp.zeros(5)).tolist() == [4, 3, 2, 1, 0]  # x.flip(0)


def test_same_class_keeps_the_label_and_the_only_one_of_a_class_to_itself():
    pairing, labels = drawn("same_class"), np.asarray(LABELS)
    assert (labels[pairing] == labels).all()
    itself = (pairing == np.arange(B)).any(axis=0)
    assert itself.tolist() == (labels == 3).tolist()
    assert len(set(pairing[:, 0].tolist())) == (labels == 0).sum() - 1


def test_other_class_changes_the_label_evenly_even_of_a_majority():
    pairing, labels = drawn("other_class"), np.asarray(LABELS)
    assert (labels[pairing] != labels).all()
    counts = np.bincount(pairing[:, labels == 0].ravel(), minlength=B)[labels != 0]
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()


def test_with_one_class_alone_other_class_is_oneself():
    """And then nothing is mixed: under mixup the image is the anchor for any lam."""
    labels = jnp.zeros(B, jnp.int32)
    assert (drawn("other_class", labels) == np.arange(B)).all()
    x = jax.random.normal(jax.random.key(1), (B, 2, 2, 1))
    mixed, _ = make_mix(MIXERS["mixup"](), pairing="other_class")(jax.random.key(0), x, labels=labels)
    np.testing.assert_allclose(mixed, x, atol=1e-6)


@pytest.mark.parametrize("name", sorted(PAIRINGS))
def test_one_item_is_its_own_partner(name):
    assert PAIRINGS[name](KEYS[0], jnp.zeros(1, jnp.int32)).tolist() == [0]


@pytest.mark.parametrize("name", sorted(PAIRINGS))
def test_within_a_device_nobody_leaves_his_part(name):
    pairing = np.asarray(paired_within(PAIRINGS[name], 4)(KEYS[0], LABELS))
    assert (pairing // 4 == np.arange(B) // 4).all()
    if name == "permutation":  # the parts are drawn apart from each other
        assert len({tuple(p % 4) for p in pairing.reshape(4, 4)}) > 1


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_partners_are_those_of_the_pairing_whatever_the_groups(groups):
    pairing = paired_within(PAIRINGS["permutation"], groups)(KEYS[0], LABELS)
    values = jax.random.normal(KEYS[1], (B, 3, 2))
    np.testing.assert_array_equal(partners_of(values, pairing, groups=groups), values[pairing])


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(ConfigError, match="16.*3 equal parts"):
        make_mix(MIXERS["mixup"](), groups=3)(jax.random.key(0), jnp.zeros((B, 2, 2, 1)))


@pytest.mark.parametrize("name", sorted(BY_LABEL))
def test_labels_are_asked_for(name):
    with pytest.raises(ConfigError, match="needs the labels"):
        make_mix(MIXERS["mixup"](), pairing=name)(jax.random.key(0), jnp.zeros((B, 2, 2, 1)))
