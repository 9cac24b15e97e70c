"""Boxes, grids, bells and shapes: against NumPy in float64, and against the mistakes that others shipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.mixers import MIXERS, make_mix
from sem_jax.mixers.boxes import Box
from sem_jax.mixers.fmix import largest, low_frequency_noise, official_noise, sample_fmix, top_mask
from sem_jax.mixers.gridmix import GridmixDraw, apply_gridmix
from sem_jax.mixers.resizemix import ResizemixDraw, apply_resizemix
from sem_jax.mixers.saliency import as_grid, gradient_saliency, make_scorer, spectral_residual
from sem_jax.mixers.saliencymix import SaliencymixDraw, apply_saliencymix
from sem_jax.mixers.smoothmix import SmoothmixDraw, apply_smoothmix
from tests.helpers.tiny_net import TinyNet

KEYS = jax.random.split(jax.random.key(0), 500)
ONES, ZEROS = jnp.ones((32, 32, 1)), jnp.zeros((32, 32, 1))


def lams(name, shape=(32, 32, 1), **options):
    mixer = MIXERS[name](**options)
    x, y = jnp.ones(shape), jnp.zeros(shape)
    return np.asarray(jax.jit(jax.vmap(lambda k: mixer.apply(mixer.sample(k, shape), x, y)[1]))(KEYS), np.float64)


def test_lam_of_a_box_counts_whole_pixels():
    """Neither the box before it is clipped (off by 0.18 on average) nor a continuous area (by 0.011) is the label."""
    for name in ("cutmix", "resizemix"):
        pixels = lams(name) * 1024
        np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-3)


def test_cutmix_between_a_smallest_and_a_largest_area():
    area = 1 - lams("cutmix", min_area=0.2, max_area=0.5)
    rounding = 33 / 1024  # half a pixel on each side of the box
    assert 0.2 - rounding <= area.min() < 0.22 and 0.48 < area.max() <= 0.5 + rounding
    assert (1 - lams("cutmix")).min() < 0.01


def test_the_two_meanings_of_resizemix_differ_as_documented():
    """Sides of 0.1 to 0.8 or areas of 0.2 to 0.9, before an edge cuts off its part."""
    side, area = 1 - lams("resizemix"), 1 - lams("resizemix", variant="area")
    assert side.max() <= 0.64 and side.max() > 0.55 and side.min() < 0.02
    assert area.max() <= 0.9 and area.max() > 0.8
    assert side.mean() < area.mean() - 0.1
    concentrated = 1 - lams("resizemix", variant="side_beta", alpha=50.0)  # around half the side
    assert concentrated.std() < 0.5 * side.std() and 0.2 < concentrated.max() < 0.45


def test_a_scale_that_resizemix_does_not_allow_is_drawn_again():
    """Most of Beta(0.1, 0.1) is below 0.1 or above 0.8, and would paste nothing or everything."""
    area = 1 - lams("resizemix", variant="side_beta", alpha=0.1)
    assert 0 < area.min() and area.max() <= 0.64


def test_resizemix_pastes_the_whole_partner_where_its_box_is():
    """Rows are rows (a published mask is transposed): 8x6 pixels into 4x3 at row 2, column 1, every second pixel."""
    partner = jnp.arange(48, dtype=jnp.float32).reshape(8, 6, 1) + 100
    draw = ResizemixDraw(Box(*map(jnp.int32, (2, 6, 1, 4))))
    mixed, lam = apply_resizemix(draw, jnp.zeros((8, 6, 1)), partner)
    expected = np.zeros((8, 6))
    # The centre of a target pixel lies on the border of two source pixels, a tie that goes to the even one.
    rows, columns = np.round(np.arange(4) * 2 + 0.5).astype(int), np.round(np.arange(3) * 2 + 0.5).astype(int)
    expected[2:6, 1:4] = np.asarray(partner[..., 0])[rows][:, columns]
    np.testing.assert_array_equal(mixed[..., 0], expected)
    np.testing.assert_allclose(lam, 36 / 48, rtol=1e-6)
    smooth, _ = apply_resizemix(draw, jnp.zeros((8, 6, 1)), partner, smooth=True)
    means = np.asarray(partner[..., 0]).reshape(4, 2, 3, 2).mean((1, 3))
    np.testing.assert_allclose(smooth[2:6, 1:4, 0], means, rtol=1e-6)


def reference_fmix(normal, lam, shape, decay, up):
    """The published recipe in float64: damp, back to pixels, sort, the first lam of them are one."""
    height, width = shape
    frequency = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width)[None, : width // 2 + 1] ** 2)
    spectrum = (normal[0] + 1j * normal[1]) / np.maximum(frequency, 1 / max(shape)) ** decay
    noise = np.fft.irfft2(spectrum, shape)
    order = noise.ravel().argsort()[::-1]
    mask = np.zeros(height * width)
    mask[order[: int(np.ceil(lam * mask.size) if up else np.floor(lam * mask.size))]] = 1
    return noise, mask.reshape(shape)


@pytest.mark.parametrize("shape", [(32, 32), (64, 40), (7, 9)])
def test_fmix_against_float64_numpy(rng, shape):
    normal = rng.normal(size=(2, shape[0], shape[1] // 2 + 1))
    noise, mask = reference_fmix(normal, 0.37, shape, 3.0, True)
    ours = low_frequency_noise(jnp.float32(normal), shape, 3.0)
    np.testing.assert_allclose(ours, noise, atol=2e-4 * np.abs(noise).max())
    np.testing.assert_array_equal(top_mask(jnp.float32(noise), jnp.float32(0.37), True, 0.0), mask)


def test_the_largest_are_those_that_a_stable_sort_puts_first(rng):
    rounded = np.round(rng.normal(size=60), 1)  # with ties
    extreme = np.array([np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38, 0.0, 7.0, -7.0])
    for values in (np.float32(rng.normal(size=101)), np.float32(rounded), np.float32(extreme), np.zeros(5, np.float32)):
        order = np.argsort(-values, kind="stable")
        for count in {0, 1, 2, len(values) // 2, len(values) - 1, len(values)}:
            expected = np.zeros(len(values), bool)
            expected[order[:count]] = True
            np.testing.assert_array_equal(largest(jnp.asarray(values), jnp.int32(count)), expected)


def test_fmix_masks_are_of_the_images_size_and_lam_is_their_mean_up_to_a_pixel():
    mixer = MIXERS["fmix"](max_soft=0.2)
    for shape in ((64, 64, 3), (9, 5, 1)):
        mask = jax.vmap(lambda k, s=shape: mixer.sample(k, s).mask)(KEYS[:8])
        assert mask.shape == (8, *shape[:2])
        assert len({m.tobytes() for m in np.asarray(mask)}) == 8  # one of its own for every pair
    noise = jax.random.normal(KEYS[0], (20, 20))
    for lam in (0.0, 0.1, 0.5, 0.93, 1.0):
        for soft in (0.0, 0.3):
            mask = top_mask(noise, jnp.float32(lam), True, soft)
            assert abs(float(mask.mean()) - lam) <= 1 / 400
            assert (len(np.unique(mask)) > 2) == (soft > 0 and 0 < lam < 1)


def test_fmix_reformulated_prefers_the_anchor():
    assert abs(lams("fmix", (16, 16, 1)).mean() - 1 / 2) < 0.05
    assert abs(lams("fmix", (16, 16, 1), reformulate=True).mean() - 2 / 3) < 0.05


def test_gridmix_against_a_loop_over_its_holes(rng):
    for _ in range(40):
        height, width = 13, 17
        top, left = rng.integers(0, 5, 2)
        bottom, right = top + rng.integers(4, height - top + 1), left + rng.integers(4, width - left + 1)
        patch = rng.integers(2, 7)
        hole = rng.integers(0, patch + 1)
        row, column = rng.integers(0, patch - hole + 1, 2)
        expected = np.ones((height, width))
        for y in range(top + row, bottom, patch):
            for x in range(left + column, right, patch):
                expected[y : min(y + hole, bottom), x : min(x + hole, right)] = 0
        draw = GridmixDraw(
            Box(*map(jnp.int32, (top, bottom, left, right))), *map(jnp.int32, (patch, hole, row, column))
        )
        mixed, lam = apply_gridmix(draw, jnp.ones((height, width, 1)), jnp.zeros((height, width, 1)))
        np.testing.assert_array_equal(mixed[..., 0], expected)
        np.testing.assert_allclose(lam, expected.mean(), atol=1e-6)


def test_fmix_official_has_two_horizontal_frequencies():
    """The indexing of the code that most projects copied, once more in NumPy."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(2, 17, 2))
    frequency = np.hypot(np.fft.fftfreq(32)[:2, None], np.fft.fftfreq(32)[None, :17])
    parts = normal / np.maximum(frequency, 1 / 32)[:, :, None] ** 3
    expected = np.fft.irfft2(parts[0] + 1j * parts[1], (32, 32))
    noise = official_noise(jnp.asarray(normal, jnp.float32), (32, 32), 3.0)
    np.testing.assert_allclose(noise, expected, atol=1e-5 * np.abs(expected).max())
    across = np.abs(np.fft.fft2(np.asarray(noise, np.float64)))[:, 2:31]
    assert across.max() < 1e-5 * np.abs(np.fft.fft2(expected)).max()


def test_fmix_official_varies_along_the_width():
    """Power of the slowest wave across to that of the slowest wave down: 3.7, and 1.7 in our own masks."""

    def ratio(variant):
        sample = jax.jit(jax.vmap(lambda key: sample_fmix(key, (32, 32, 3), alpha=1.0, variant=variant).mask))
        power = (np.abs(np.fft.fft2(np.asarray(sample(jax.random.split(KEYS[0], 1000))))) ** 2).mean(0)
        return power[0, 1] / power[1, 0]

    assert 3.2 < ratio("official") < 4.3 and 1.5 < ratio("paper") < 1.9


def test_gridmix_has_several_holes_inside_its_crop():
    draw = jax.vmap(lambda k: MIXERS["gridmix"]().sample(k, (32, 32, 3)))(KEYS)
    columns = np.asarray(draw.crop.right - draw.crop.left)
    holes = np.ceil(columns / np.asarray(draw.patch))
    assert holes.min() >= 2 and holes.max() == 6
    area = columns * np.asarray(draw.crop.bottom - draw.crop.top) / 1024
    assert 0.4 < area.min() and area.max() <= 1


def test_smoothmix_weighs_the_label_of_the_image_under_the_bell():
    """A bell in a corner of 0.25: mean(G) = 0.13 of the anchor in pixels and in label, not 0.87 of it."""
    draw = SmoothmixDraw(jnp.float32(0.0), jnp.float32(0.0), jnp.float32(0.25))
    mixed, lam = apply_smoothmix(draw, ONES, ZEROS)
    axis = np.exp(-0.5 * ((np.arange(32) + 0.5) / 8) ** 2)
    np.testing.assert_allclose(mixed[..., 0], axis[:, None] * axis[None], atol=1e-6)
    np.testing.assert_allclose(lam, axis.mean() ** 2, rtol=1e-5)
    assert float(mixed[0, 0, 0]) > 0.99
    assert abs(lams("smoothmix").mean() - 0.43) < 0.03


def test_saliencymix_centres_its_box_on_the_peak_of_the_partner_and_clips_before_it_counts():
    peak = jnp.zeros((8, 8)).at[6, 1].set(1.0)  # of a map of 8x8 cells: pixel (26, 6) of 32
    mixed, lam = apply_saliencymix(SaliencymixDraw(jnp.float32(0.5)), ONES, ZEROS, jnp.zeros((8, 8)), peak)
    expected = np.ones((32, 32))
    expected[18:32, 0:14] = 0
    np.testing.assert_array_equal(mixed[..., 0], expected)
    np.testing.assert_allclose(lam, 1 - 14 * 14 / 1024, rtol=1e-6)


def test_spectral_residual_finds_the_odd_one_out():
    """A square unlike the regular stripes around it, in each image at another place."""
    stripes = jnp.broadcast_to(jnp.sin(jnp.arange(32) * 0.8)[None, :, None], (32, 32, 3))
    images = jnp.stack([stripes.at[4:9, 20:25].set(2.0), stripes.at[22:27, 6:11].set(2.0)])
    peaks = [np.unravel_index(int(m.argmax()), m.shape) for m in spectral_residual(images)]
    assert abs(peaks[0][0] - 6) <= 4 and abs(peaks[0][1] - 22) <= 4
    assert abs(peaks[1][0] - 24) <= 4 and abs(peaks[1][1] - 8) <= 4
    assert spectral_residual(jnp.zeros((2, 100, 40, 3))).shape == (2, 64, 40)


def test_attentive_cutmix_pastes_the_k_strongest_cells_of_each_partner():
    images = jnp.stack([ONES, ZEROS, ONES * 2])
    maps = jax.random.uniform(KEYS[0], (3, 4, 4))
    mixer = MIXERS["attentive_cutmix"](k=3, scorer=lambda images, labels: maps)
    mixed, (lam, pairing) = make_mix(mixer, pairing="roll")(KEYS[1], images)
    np.testing.assert_allclose(lam, 13 / 16)
    for i, j in enumerate(pairing.tolist()):
        pasted = np.asarray(mixed[i, ..., 0] == images[j, 0, 0, 0]).reshape(4, 8, 4, 8).all((1, 3))
        assert set(np.flatnonzero(pasted)) == set(np.argsort(np.asarray(maps[j]).ravel())[-3:])


def test_attentive_cutmix_with_a_drawn_k_gives_every_pair_a_lam_of_its_own():
    """(Published code takes the first pair's for the whole batch.)"""
    value = jnp.arange(64.0)
    images = jnp.broadcast_to(value[:, None, None, None], (64, 8, 8, 1))
    mixer = MIXERS["attentive_cutmix"](k=0, scorer=lambda images, labels: jax.random.uniform(KEYS[0], (64, 4, 4)))
    mixed, (lam, pairing) = jax.jit(make_mix(mixer, pairing="roll"))(KEYS[1], images)
    assert len(set(lam.tolist())) > 8 and abs(float(lam.mean()) - 0.5) < 0.15
    np.testing.assert_allclose(lam * 16, np.round(lam * 16), atol=1e-5)
    np.testing.assert_allclose(mixed.mean((1, 2, 3)), lam * value + (1 - lam) * value[pairing], atol=1e-4)


def test_scorers_of_a_net():
    model = TinyNet(num_classes=4)
    images = jax.random.normal(KEYS[0], (2, 16, 16, 3))
    variables = model.init(KEYS[1], images, train=False)
    assert make_scorer(model, variables)(images).shape == (2, 8, 8)  # stage 2; stage 1 has 16 rows
    assert make_scorer(model, variables)(images[:, :8, :8]).shape == (2, 8, 8)  # stage 2 has 4 rows alone
    assert as_grid(jnp.zeros((2, 65, 3))).shape == as_grid(jnp.zeros((2, 64, 3))).shape == (2, 8, 8)
    assert as_grid(jnp.zeros((2, 60, 3))) is None and as_grid(jnp.zeros((2, 60))) is None
    labels, step = jnp.asarray([1, 3]), 0.02
    saliency = gradient_saliency(model, variables, images, labels)

    def loss(x):
        logits = model.apply(variables, x, train=False).logits
        return float(-jax.nn.log_softmax(logits)[jnp.arange(2), labels].sum())

    at = [
        (loss(images.at[1, 5, 9, c].add(step)) - loss(images.at[1, 5, 9, c].add(-step))) / (2 * step) for c in range(3)
    ]
    np.testing.assert_allclose(saliency[1, 5, 9], np.sqrt(np.mean(np.square(at))), rtol=0.1, atol=1e-4)
