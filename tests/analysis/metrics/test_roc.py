import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score, roc_curve

from analysis.metrics.roc import auc, auc_difference, auc_interval, threshold_at_sensitivity

CASES = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60)


def split(pairs: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([t for t, _ in pairs]), np.array([s for _, s in pairs], float)


@settings(deadline=None)
@given(CASES)
def test_auc_is_the_mann_whitney_statistic_with_ties(pairs: list[tuple[bool, int]]) -> None:
    truth, scores = split(pairs)
    if truth.all() or not truth.any():
        assert auc(truth, scores) is None
        return
    u = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert auc(truth, scores) == pytest.approx(u / (truth.sum() * (~truth).sum()))
    assert auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores))


@settings(deadline=None, max_examples=50)
@given(CASES)
def test_the_interval_is_that_of_the_covariance_written_out(pairs: list[tuple[bool, int]]) -> None:
    """DeLong's formulas 3 to 5, one pair of cases after the other."""
    truth, scores = split(pairs)
    positives, negatives = scores[truth], scores[~truth]
    if len(positives) < 2 or len(negatives) < 2:
        return
    wins = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in negatives] for x in positives])
    theta = wins.mean()
    s10 = sum((row.mean() - theta) ** 2 for row in wins) / (len(positives) - 1)
    s01 = sum((column.mean() - theta) ** 2 for column in wins.T) / (len(negatives) - 1)
    half = 1.959963984540054 * np.sqrt(s10 / len(positives) + s01 / len(negatives))
    found = auc_interval(truth, scores)
    assert found is not None
    assert found.value == pytest.approx(theta)
    assert found.low == pytest.approx(max(0.0, theta - half), abs=1e-9)
    assert found.high == pytest.approx(min(1.0, theta + half), abs=1e-9)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Two normal distributions one deviation apart: the true AUC is Phi(1 / sqrt 2) = 0.7602."""
    rng = np.random.default_rng(1)
    truth = np.arange(120) < 40
    inside = 0
    for _ in range(400):
        found = auc_interval(truth, rng.normal(size=120) + truth)
        assert found is not None
        inside += found.low <= 0.76025 <= found.high
    assert 0.91 <= inside / 400 <= 0.98


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 6)), min_size=6, max_size=40))
def test_the_paired_difference_is_that_of_the_covariance_written_out(rows: list[tuple[bool, int, int]]) -> None:
    truth = np.array([t for t, _, _ in rows])
    a, b = (np.array([row[i] for row in rows], float) for i in (1, 2))
    if truth.sum() < 2 or (~truth).sum() < 2:
        return

    def wins(scores: np.ndarray) -> np.ndarray:
        gap = scores[truth][:, None] - scores[~truth][None]
        return (gap > 0) + 0.5 * (gap == 0)

    wins_a, wins_b = wins(a), wins(b)
    variance = 0.0
    for axis in (1, 0):
        covariance = np.cov(wins_a.mean(axis=axis), wins_b.mean(axis=axis))
        variance += (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / len(wins_a.mean(axis=axis))
    found = auc_difference(truth, a, b)
    assert found is not None
    assert found.value == pytest.approx(wins_a.mean() - wins_b.mean())
    assert found.high - found.value == pytest.approx(1.959963984540054 * np.sqrt(max(variance, 0)), abs=1e-6)


def test_equal_scores_do_not_differ_and_a_clear_difference_shows() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(400) < 200
    good, bad = rng.normal(size=400) + 2.0 * truth, rng.normal(size=400)
    same = auc_difference(truth, good, good)
    assert same is not None
    assert same == (0.0, 0.0, 0.0, 1.0)
    apart = auc_difference(truth, good, bad)
    assert apart is not None
    assert apart.low > 0.2
    assert apart.p < 1e-6


@pytest.mark.parametrize("truth", [[True, True], [False, False], []])
def test_one_class_alone_has_no_interval(truth: list[bool]) -> None:
    scores = np.zeros(len(truth))
    assert auc(truth, scores) is None
    assert auc_interval(truth, scores) is None
    assert auc_difference(truth, scores, scores) is None


def test_a_single_case_of_each_class_is_judged_without_a_warning() -> None:
    found = auc_interval([True, False], [0.9, 0.1])
    assert found == (1.0, 1.0, 1.0)


@settings(deadline=None)
@given(CASES, st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_the_threshold_is_the_highest_that_finds_enough(pairs: list[tuple[bool, int]], wanted: float) -> None:
    truth, scores = split(pairs)
    found = threshold_at_sensitivity(truth, scores, wanted)
    if not truth.any():
        assert found is None
        return
    enough = [t for t in scores[truth] if (scores[truth] >= t).mean() >= wanted - 1e-12]
    assert found == max(enough)
    if not truth.all():
        _, sensitivity, thresholds = roc_curve(truth, scores, drop_intermediate=False)
        assert found == thresholds[np.argmax(sensitivity >= wanted - 1e-12)]


def test_nine_of_ten_are_ninety_percent() -> None:
    scores = np.arange(10) / 10
    assert threshold_at_sensitivity(np.ones(10), scores, 0.9) == 0.1
    with pytest.raises(ValueError, match="sensitivity"):
        threshold_at_sensitivity([1], [0.5], 0.0)
