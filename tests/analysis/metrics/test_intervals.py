import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap

from analysis.metrics.intervals import bootstrap, bootstrap_difference, wilson
from analysis.metrics.roc import auc


@settings(deadline=None)
@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_wilson_is_that_of_an_independent_implementation(counts: tuple[int, int], confidence: float) -> None:
    k, n = counts
    expected = binomtest(k, n).proportion_ci(confidence_level=confidence, method="wilson")
    found = wilson(k, n, confidence)
    assert found.value == k / n
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)


def test_wilson_of_nothing_says_nothing() -> None:
    found = wilson(0, 0)
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_share(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson(k, n)


def test_bootstrap_draws_whole_units_and_repeats_itself() -> None:
    units = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    first = bootstrap(units, lambda drawn: sum(drawn) / len(drawn), repeats=500)
    assert first == bootstrap(units, lambda drawn: sum(drawn) / len(drawn), repeats=500)
    assert first.value == pytest.approx(4 / 6)
    assert first.low < first.value < first.high


def test_bootstrap_leaves_out_draws_without_both_classes() -> None:
    units = [(True, 0.9), (False, 0.1)]
    found = bootstrap(units, lambda drawn: auc([t for t, _ in drawn], [s for _, s in drawn]), repeats=50)
    assert found == (1.0, 1.0, 1.0)


def test_bootstrap_of_no_units_is_not_a_number() -> None:
    assert all(math.isnan(v) for v in bootstrap([], lambda drawn: 1.0))


def test_bootstrap_is_that_of_an_independent_implementation() -> None:
    values = np.random.default_rng(5).normal(size=60)
    ours = bootstrap(values.tolist(), lambda drawn: float(np.mean(drawn)), repeats=4000)
    theirs = scipy_bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=80)  # slides differ much, the two models little
    pairs = [(float(h), float(h + 0.1 + 0.01 * rng.normal())) for h in hard]
    found = bootstrap_difference(
        pairs, lambda d: float(np.mean([b for _, b in d])), lambda d: float(np.mean([a for a, _ in d])), repeats=400
    )
    alone = bootstrap(pairs, lambda d: float(np.mean([a for a, _ in d])), repeats=400)
    assert found.value == pytest.approx(0.1, abs=0.01)
    assert found.low > 0.09
    assert found.high - found.low < 0.1 * (alone.high - alone.low)


def test_a_difference_is_left_out_where_either_is_unknown() -> None:
    found = bootstrap_difference([1.0, 2.0], lambda d: None, lambda d: 1.0, repeats=20)
    assert all(math.isnan(v) for v in found)
