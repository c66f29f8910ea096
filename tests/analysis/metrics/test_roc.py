import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from analysis.metrics.roc import auc


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60))
def test_auc_is_the_mann_whitney_statistic_with_ties(pairs: list[tuple[bool, int]]) -> None:
    truth = np.array([t for t, _ in pairs])
    scores = np.array([s for _, s in pairs], float)
    if truth.all() or not truth.any():
        assert auc(truth, scores) is None
        return
    u = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert auc(truth, scores) == pytest.approx(u / (truth.sum() * (~truth).sum()))
