"""Area under the ROC curve, its interval, and operating points."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from analysis.metrics.intervals import Interval


def auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Probability that a positive scores above a negative, ties counted half. None when one class is absent."""
    truth = np.asarray(labels).astype(bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(np.asarray(scores, dtype=np.float64))
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auc_interval(labels: ArrayLike, scores: ArrayLike, *, confidence: float = 0.95) -> Interval | None:
    """AUC with the interval of DeLong, DeLong and Clarke-Pearson 1988, cut at 0 and 1. None when one class is absent.

    The cases must be independent: patches of one slide are not, and the interval is then too narrow. It has no width
    where the classes do not overlap at all.
    """
    value = auc(labels, scores)
    if value is None:
        return None
    by_positive, by_negative = _placements(labels, scores)
    error = np.sqrt(_variance(by_positive) + _variance(by_negative))
    half = float(norm.ppf(0.5 + confidence / 2) * error)
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


class Difference(NamedTuple):
    value: float
    low: float
    high: float
    p: float
    """Two-sided, of no difference."""


def auc_difference(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95
) -> Difference | None:
    """AUC of `first` minus AUC of `second` on the same cases (paired DeLong test). None when one class is absent."""
    a, b = auc(labels, first), auc(labels, second)
    if a is None or b is None:
        return None
    (a_pos, a_neg), (b_pos, b_neg) = _placements(labels, first), _placements(labels, second)
    error = float(np.sqrt(_variance(a_pos - b_pos) + _variance(a_neg - b_neg)))
    half = float(norm.ppf(0.5 + confidence / 2)) * error
    if error == 0:
        return Difference(a - b, a - b, a - b, 1.0 if a == b else 0.0)
    return Difference(a - b, a - b - half, a - b + half, float(2 * norm.sf(abs(a - b) / error)))


def _placements(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    truth = np.asarray(labels).astype(bool)
    values = np.asarray(scores, dtype=np.float64)
    positives, negatives = values[truth], values[~truth]
    together = rankdata(np.concatenate([positives, negatives]))
    m, n = len(positives), len(negatives)
    by_positive = (together[:m] - rankdata(positives)) / n
    by_negative = 1 - (together[m:] - rankdata(negatives)) / m
    return by_positive, by_negative


def _variance(placements: NDArray[np.float64]) -> float:
    """Of their mean; a single case says nothing of spread and counts as none."""
    return float(placements.var(ddof=1) / len(placements)) if len(placements) > 1 else 0.0


def threshold_at_sensitivity(labels: ArrayLike, scores: ArrayLike, sensitivity: float) -> float | None:
    """The highest threshold t at which `score >= t` finds at least this share of the positives. None without positives."""
    if not 0 < sensitivity <= 1:
        raise ValueError("sensitivity lies above 0 and at most at 1")
    positives = np.sort(np.asarray(scores, dtype=np.float64)[np.asarray(labels).astype(bool)])[::-1]
    if not len(positives):
        return None
    # 1e-9: 0.9 * 10 must ask for 9 positives
    return float(positives[max(int(np.ceil(sensitivity * len(positives) - 1e-9)), 1) - 1])
