"""ECE against a plain loop, reliability bins by hand, temperatures that are known."""

import numpy as np
import pytest
from scipy.special import softmax

from sem_jax.errors import RunError
from sem_jax.evaluation.measures import calibration as cal


def plain_ece_width(confidence, correct, bins=15):
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        members = [
            (p, c) for p, c in zip(confidence, correct, strict=True) if low < p <= high or (index == 0 and p == 0)
        ]
        if members:
            gap = abs(sum(c for _, c in members) - sum(p for p, _ in members)) / len(members)
            total += gap * len(members) / len(confidence)
    return total


def plain_ece_mass(confidence, correct, bins=15):
    pairs = sorted(zip(confidence, correct, strict=True))
    total, start = 0.0, 0
    for index in range(bins):
        size = len(pairs) // bins + (index < len(pairs) % bins)
        members = pairs[start : start + size]
        start += size
        total += abs(sum(c for _, c in members) - sum(p for p, _ in members)) / len(pairs)
    return total


def case(seed=0, n=1000, k=10, sharpness=2.0):
    """Labels drawn from softmax(z): `sharpness * z` has temperature `sharpness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 1.5
    p = softmax(logits, axis=1)
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1)
    return (logits * sharpness).astype(np.float32), labels.astype(np.int32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [7, 100, 1009])
def test_ece_equals_a_plain_loop(seed, n):
    logits, labels = case(seed, n)
    p = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    correct = logits.argmax(axis=1) == labels
    for scheme, plain in (("width", plain_ece_width), ("mass", plain_ece_mass)):
        found = cal.reliability(*cal.confidences(logits, labels), scheme=scheme).ece
        np.testing.assert_allclose(found, plain(p, correct), rtol=0, atol=1e-12)


def test_bins_are_half_open_with_zero_in_the_first():
    result = cal.reliability([0.0, 0.25, 0.5, 0.500001, 1.0], [0, 0, 1, 1, 1], bins=4)
    assert result.count.tolist() == [2, 1, 1, 1]
    np.testing.assert_allclose(result.confidence, [0.125, 0.5, 0.500001, 1.0])
    np.testing.assert_allclose(result.accuracy, [0.0, 1.0, 1.0, 1.0])


def test_hand_computed_ece():
    confidence, correct = [0.6, 0.6, 0.9, 0.9], [1, 0, 1, 1]
    result = cal.reliability(confidence, correct, bins=2)
    np.testing.assert_allclose(result.ece, 0.0, atol=1e-15)  # one bin: 0.75 confident, 0.75 right
    result = cal.reliability(confidence, correct, bins=10)
    np.testing.assert_allclose(result.ece, 0.5 * 0.1 + 0.5 * 0.1)
    np.testing.assert_allclose(result.max_error, 0.1)
    assert np.isnan(result.accuracy[0]) and result.count[0] == 0


def test_bins_that_are_not_monotone_keep_their_own_items():
    # Sorting accuracies and confidences apart from each other would give 0 here.
    result = cal.reliability([0.2] * 10 + [0.8] * 10, [1] * 8 + [0] * 2 + [1] * 2 + [0] * 8, bins=2)
    np.testing.assert_allclose(result.ece, 0.6)


def test_equal_mass_bins_are_equal_and_do_not_depend_on_the_order_of_ties():
    rng = np.random.default_rng(0)
    confidence = np.where(rng.random(100) < 0.5, 1.0, rng.random(100))
    correct = rng.random(100) < confidence - 0.1
    result = cal.reliability(confidence, correct, scheme="mass", bins=15)
    assert result.count.sum() == 100 and set(result.count) == {6, 7}
    for _ in range(5):
        order = rng.permutation(100)
        other = cal.reliability(confidence[order], correct[order], scheme="mass", bins=15)
        np.testing.assert_allclose(other.ece, result.ece, rtol=0, atol=1e-13)
    tied = cal.reliability(np.full(100, 0.5), np.arange(100) < 50, scheme="mass")
    np.testing.assert_allclose(tied.ece, 0.0, atol=1e-15)  # in whatever order the right ones come
    assert len(cal.reliability([0.5, 0.6], [1, 0], scheme="mass").count) == 2


def test_confidences_are_probabilities_and_temperature_moves_no_prediction():
    logits, labels = case(sharpness=30.0)
    for temperature in (0.1, 1.0, 7.0):
        p, correct = cal.confidences(logits, labels, temperature)
        expected = softmax(logits.astype(np.float64) / temperature, axis=1).max(axis=1)
        np.testing.assert_allclose(p, expected, rtol=1e-12)
        assert np.array_equal(correct, logits.argmax(axis=1) == labels) and p.max() <= 1


def test_raw_logits_are_refused():
    with pytest.raises(RunError, match="are these logits"):
        cal.reliability([3.0, 0.5], [1, 1])
    with pytest.raises(RunError, match="not finite"):
        cal.reliability([np.nan, 0.5], [1, 1])
    with pytest.raises(RunError, match="scheme='equal'"):
        cal.reliability([0.5], [1], scheme="equal")
    with pytest.raises(RunError, match="bins=0"):
        cal.reliability([0.5], [1], bins=0)
    with pytest.raises(RunError, match="shapes"):
        cal.reliability([0.5, 0.6], [1])
    with pytest.raises(RunError, match="1 of 2 rows"):
        cal.confidences(np.array([[np.nan, 0], [0, 1]]), np.array([0, 1]))


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_temperature_is_found_again(sharpness):
    logits, labels = case(1, 20_000, sharpness=sharpness)
    fit = cal.fit_temperature(logits, labels)
    np.testing.assert_allclose(fit.value, sharpness, rtol=0.04)
    assert not fit.at_bound and fit.nll_after <= fit.nll_before
    grid = np.exp(np.linspace(-0.1, 0.1, 21)) * fit.value
    labels_own = np.arange(len(labels)), labels
    losses = [-np.log(softmax(logits.astype(np.float64) / t, axis=1)[labels_own]).mean() for t in grid]
    assert fit.nll_after <= min(losses) + 1e-12


def test_temperature_says_when_it_hits_a_bound():
    perfect = np.eye(4, dtype=np.float32) * 2
    fit = cal.fit_temperature(perfect, np.arange(4))
    assert fit.at_bound and fit.value == pytest.approx(0.05, rel=1e-3)
    fit = cal.fit_temperature(perfect, (np.arange(4) + 1) % 4)
    assert fit.at_bound and fit.value == pytest.approx(20, rel=1e-3)
    flat = cal.fit_temperature(np.zeros((4, 3)), np.arange(4) % 3)
    assert flat == (1.0, False, pytest.approx(np.log(3)), pytest.approx(np.log(3)))


def test_calibrate_fits_on_val_and_improves_test():
    test, val = case(2, 5000, sharpness=3.0), case(3, 5000, sharpness=3.0)
    result = cal.calibrate(*test, *val)
    assert result.temperature == cal.fit_temperature(*val)
    for scheme in cal.SCHEMES:
        assert result.after[scheme].ece < 0.3 * result.before[scheme].ece
    alone = cal.calibrate(*test)
    assert alone.after is None and alone.temperature is None
    assert alone.before["width"].ece == result.before["width"].ece == cal.reliability(*cal.confidences(*test)).ece
