"""Detection metrics against scikit-learn on 1,000 cases with ties; scores against plain definitions."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from sem_jax.errors import RunError
from sem_jax.evaluation.measures import ood


def test_equals_scikit_learn_on_1000_random_cases_with_ties():
    rng = np.random.default_rng(0)
    for index in range(1000):
        n, m = rng.integers(1, 120, 2)
        inside, outside = rng.normal(rng.uniform(-0.5, 2), 1, n), rng.normal(0, 1, m)
        if index % 4:  # three of four cases have ties, from many to nothing but ties
            inside, outside = np.round(inside, index % 4 - 1), np.round(outside, index % 4 - 1)
        if index % 50 == 0:
            inside, outside = np.zeros(n), np.zeros(m)
        positive = np.r_[np.ones(n, int), np.zeros(m, int)]
        scores = np.r_[inside, outside]
        ours = ood.detection(inside, outside)
        fpr, tpr, _ = sk.roc_curve(positive, scores, drop_intermediate=False)
        expected = (
            sk.roc_auc_score(positive, scores),
            sk.average_precision_score(positive, scores),
            sk.average_precision_score(1 - positive, -scores),
            fpr[np.argmax(tpr >= 0.95)],
        )
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12, err_msg=f"case {index}")
        if index % 100 == 1:
            curve = ood.roc_curve(inside, outside, points=10_000)
            np.testing.assert_allclose(curve, (fpr, tpr), rtol=0, atol=1e-15)


def test_detection_by_hand():
    assert ood.detection([2, 3], [0, 1]) == (1.0, 1.0, 1.0, 0.0)
    assert ood.detection([0, 1], [2, 3]).auroc == 0.0
    assert ood.detection([1.0], [1.0]) == (0.5, 0.5, 0.5, 1.0)
    result = ood.detection([3, 1], [2, 0])
    np.testing.assert_allclose(result, (0.75, (1 + 2 / 3) / 2, (1 + 2 / 3) / 2, 0.5))
    # 19 of 20 is 95%: the comparison must not lose it to rounding.
    assert ood.detection(np.r_[np.ones(19), -1], np.zeros(5)).fpr95 == 0.0


def test_roc_curve_is_thinned_but_keeps_its_area():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1.5, 1, 10_000), rng.normal(0, 1, 26_032)
    fpr, tpr = ood.roc_curve(inside, outside)
    assert len(fpr) <= 512 and (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
    assert abs(np.trapezoid(tpr, fpr) - ood.detection(inside, outside).auroc) < 1e-3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(RunError, match="OOD scores: 1 of 2 rows"):
        ood.detection([0.0, 1.0], [0.0, bad])
    with pytest.raises(RunError, match="ID scores has no rows"):
        ood.roc_curve([], [1.0])
    for score in ood.SCORES.values():
        with pytest.raises(RunError, match="1 of 2 rows"):
            score(np.array([[0.0, bad], [0.0, 1.0]]))
    with pytest.raises(RunError, match=r"logits must be \[n k\]"):
        ood.msp(np.zeros(3))


def test_logit_scores_by_definition():
    logits = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32) * 4
    exact = logits.astype(np.float64)
    p = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    expected = {
        "msp": p.max(axis=1),
        "max_logit": exact.max(axis=1),
        "energy": np.log(np.exp(exact).sum(axis=1)),
        "entropy": (p * np.log(p)).sum(axis=1),
    }
    assert set(expected) == set(ood.SCORES)
    for name, values in expected.items():
        np.testing.assert_allclose(ood.SCORES[name](logits), values, rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("name", ood.SCORES)
def test_a_confident_item_scores_above_an_undecided_one_without_overflow(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = ood.SCORES[name](np.array([[1.0, 1.0, 1.0], [5e4, 0.0, -5e4]], np.float32))
    assert high > low


def train_set(seed=0, n=300, d=6, k=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    return (rng.normal(size=(k, d))[labels] * 4 + rng.normal(size=(n, d))).astype(np.float32), labels


@pytest.mark.parametrize("k", [1, 5, 50, 10_000])
def test_knn_equals_a_sorted_distance_matrix(k, monkeypatch):
    monkeypatch.setattr(ood, "_CHUNK", 3000)  # several chunks, the last one short
    train, _ = train_set()
    queries = np.random.default_rng(1).normal(size=(47, 6)).astype(np.float32)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train.astype(float), queries.astype(float))]
    distance = np.sort(np.linalg.norm(unit[1][:, None] - unit[0][None], axis=2), axis=1)
    np.testing.assert_allclose(ood.fit_knn(train, k=k)(queries), -distance[:, min(k, 300) - 1], atol=2e-6)


def test_knn_bank_is_a_seeded_subset_with_k_in_proportion(monkeypatch):
    train, _ = train_set(n=300)
    queries = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)
    asked, search = [], np.partition

    def partition(rows, place, axis):
        asked.append((rows.shape[1], rows.shape[1] - place))
        return search(rows, place, axis=axis)

    monkeypatch.setattr(ood.np, "partition", partition)
    scores = [ood.fit_knn(train, k=20, bank=bank, seed=seed)(queries) for bank, seed in ((0, 0), (150, 1), (150, 1))]
    assert asked == [(300, 20), (150, 10), (150, 10)]
    assert np.array_equal(scores[1], scores[2]) and not np.array_equal(scores[0], scores[1])
    assert np.corrcoef(scores[0], scores[1])[0, 1] > 0.97
    # Scaling a feature vector changes nothing; a vector of zeros is far from everything, and no NaN.
    np.testing.assert_allclose(ood.fit_knn(train)(queries * 7), ood.fit_knn(train)(queries), atol=1e-6)
    assert ood.fit_knn(train)(np.zeros((1, 6)))[0] == pytest.approx(-1.0)


def test_mahalanobis_equals_the_plain_formula():
    train, labels = train_set()
    queries = np.random.default_rng(1).normal(size=(40, 6)) * 3
    means = np.stack([train[labels == c].mean(axis=0, dtype=np.float64) for c in range(3)])
    residual = train - means[labels]
    gap = queries[:, None] - means[None]
    expected = -np.einsum("ncd,de,nce->nc", gap, np.linalg.inv(residual.T @ residual / len(train)), gap).min(axis=1)
    np.testing.assert_allclose(ood.fit_mahalanobis(train, labels)(queries), expected, rtol=1e-8)


def test_mahalanobis_of_rank_deficient_features():
    train, labels = train_set()
    queries = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    plain = ood.fit_mahalanobis(train, labels)(queries)
    # A dead channel, and one that copies another: nothing of the data is lost, nothing may change.
    # Nor by a sum of others beside a large offset, although float32 leaves rounding of 1e-5 in that direction.
    rank = [np.c_[x, 0 * x[:, 0] + 5, x[:, 0], x[:, 0] + x[:, 1] + 99] for x in (train, queries)]
    np.testing.assert_allclose(ood.fit_mahalanobis(rank[0], labels)(rank[1]), plain, rtol=1e-4)
    moved = rank[1] + np.eye(9)[6]  # only in the dead channel
    np.testing.assert_allclose(ood.fit_mahalanobis(rank[0], labels)(moved), plain, rtol=1e-4)
    with pytest.raises(RunError, match="do not vary within any of 3 classes"):
        ood.fit_mahalanobis(np.ones((300, 4)), labels)
    double = train.astype(np.float64)
    ood.fit_mahalanobis(double, labels)
    assert np.array_equal(double, train)  # the caller's array is as it was


@pytest.mark.parametrize("name", ood.DETECTORS)
def test_detectors_separate_and_check_their_input(name):
    train, labels = train_set()
    score = ood.DETECTORS[name](train, labels)
    far = np.random.default_rng(2).normal(size=(100, 6)) * 4
    assert ood.detection(score(train), score(far)).auroc > 0.9
    with pytest.raises(RunError, match="width 5, the detector was fitted on 6"):
        score(np.zeros((3, 5)))
    with pytest.raises(RunError, match="not finite"):
        score(np.full((3, 6), np.nan))
    with pytest.raises(RunError, match="train features: 1 of"):
        ood.DETECTORS[name](np.r_[train, np.full((1, 6), np.nan)], np.r_[labels, 0])


def test_wrong_settings_are_refused():
    train, labels = train_set()
    for call in (lambda: ood.fit_knn(train, k=0), lambda: ood.fit_knn(train, bank=-1)):
        with pytest.raises(RunError, match="k must be >= 1"):
            call()
    with pytest.raises(RunError, match="n=300"):
        ood.fit_mahalanobis(train, labels[:10])


def test_all_scores_has_every_row():
    train, labels = train_set()
    fitted = {name: fit(train, labels) for name, fit in ood.DETECTORS.items()}
    scores = ood.all_scores(np.zeros((5, 3)), train[:5], fitted)
    assert set(scores) == set(ood.SCORES) | set(ood.DETECTORS)
    assert all(values.shape == (5,) and values.dtype == np.float64 for values in scores.values())
