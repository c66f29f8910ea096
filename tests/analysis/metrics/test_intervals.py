import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from analysis.metrics.intervals import bootstrap, wilson
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
