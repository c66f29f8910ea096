import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from analysis.metrics.calibration import expected_calibration_error, reliability


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=80), st.sampled_from([5, 10, 15]))
def test_the_bins_are_those_of_an_independent_implementation(pairs: list[tuple[bool, float]], bins: int) -> None:
    truth, p = np.array([t for t, _ in pairs]), np.array([v for _, v in pairs])
    table = [b for b in reliability(truth, p, bins=bins) if b.n]
    share, mean = calibration_curve(truth, p, n_bins=bins, strategy="uniform")
    assert [b.positive_share for b in table] == pytest.approx(share.tolist())
    assert [b.mean_probability for b in table] == pytest.approx(mean.tolist())
    assert sum(b.n for b in table) == len(pairs)


def test_the_error_of_a_table_worked_by_hand() -> None:
    # four cases at 0.9 of which three are positive, six at 0.25 of which three are: 0.4 x 0.15 + 0.6 x 0.25
    truth = [1, 1, 1, 0, 1, 1, 1, 0, 0, 0]
    p = [0.9] * 4 + [0.25] * 6
    assert expected_calibration_error(truth, p) == pytest.approx(0.4 * 0.15 + 0.6 * 0.25)


def test_promises_kept_have_no_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    assert expected_calibration_error(rng.random(200_000) < p, p) == pytest.approx(0.0, abs=0.01)
    assert expected_calibration_error(rng.random(200_000) < p**2, p) == pytest.approx(1 / 6, abs=0.01)


def test_no_cases_have_no_error_and_an_empty_bin_no_mean() -> None:
    assert expected_calibration_error([], []) is None
    (low, high) = reliability([1], [0.9], bins=2)
    assert (low.n, high.n) == (0, 1)
    assert math.isnan(low.mean_probability)


def test_the_edges_belong_to_a_bin_each() -> None:
    table = reliability([1, 1, 1], [0.0, 0.5, 1.0], bins=2)
    assert [b.n for b in table] == [2, 1]


@pytest.mark.parametrize(
    ("truth", "p", "reason"),
    [([1], [1.2], "between 0 and 1"), ([1], [float("nan")], "between 0 and 1"), ([1, 0], [0.5], "2 labels but 1")],
)
def test_what_is_no_probability_is_refused(truth: list[int], p: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        expected_calibration_error(truth, p)
