"""Crop and flip against NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sem_jax.data.augment import AugmentDraw, apply_augment, apply_augment_by_selects, draw_augment, normalise, pick


def test_crop_and_flip_as_numpy_does(rng):
    image = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    for row, column, flip in [(0, 0, False), (4, 1, True), (2, 2, False), (3, 4, True)]:
        expected = padded[row : row + 7, column : column + 9]
        expected = expected[:, ::-1] if flip else expected
        draw = AugmentDraw(jnp.asarray([row, column]), jnp.asarray(flip))
        np.testing.assert_array_equal(apply_augment(draw, jnp.asarray(image), padding=2), expected)


def test_selects_give_the_pixels_of_slices(rng):
    """Bit for bit after normalising, for every offset, mirrored or not, compiled, on a side that is no power of two."""
    images = jnp.asarray(rng.integers(0, 256, (98, 9, 7, 3), dtype=np.uint8))
    offsets = np.stack(np.meshgrid(range(7), range(7)), -1).reshape(-1, 2)
    draws = AugmentDraw(jnp.asarray(np.tile(offsets, (2, 1))), jnp.arange(98) < 49)

    @jax.jit
    def results(draws, images):
        functions = (apply_augment, apply_augment_by_selects)
        return [normalise(jax.vmap(partial(f, padding=3))(draws, images), (0.4,), (0.2,)) for f in functions]

    sliced, selected = results(draws, images)
    np.testing.assert_array_equal(sliced, selected)


def test_a_product_picks_the_images_of_indices(rng):
    images = jnp.asarray(rng.integers(0, 256, (40, 5, 4, 3), dtype=np.uint8))
    indices = jnp.asarray(rng.permutation(40))
    np.testing.assert_array_equal(jax.jit(pick)(indices, images), images[indices])


def test_draws_cover_all_offsets_and_both_sides():
    draws = jax.vmap(lambda k: draw_augment(k, padding=1, flip=True))(jax.random.split(jax.random.key(0), 500))
    offsets, counts = np.unique(np.asarray(draws.offset), axis=0, return_counts=True)
    assert offsets.tolist() == [[i, j] for i in range(3) for j in range(3)]
    assert counts.min() > 25 and 190 < int(draws.flip.sum()) < 310
    still = draw_augment(jax.random.key(0), padding=0, flip=False)
    assert still.offset.tolist() == [0, 0] and not bool(still.flip)


def test_normalise_against_float64(rng):
    images = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    expected = (images.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(normalise(jnp.asarray(images), mean, std), expected, atol=1e-5)
