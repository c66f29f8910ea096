"""Confidence intervals."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.stats import norm

T = TypeVar("T")


class Interval(NamedTuple):
    value: float
    low: float
    high: float


def wilson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Share k of n with its Wilson score interval (Wilson 1927). n = 0 gives (nan, 0, 1). Raises ValueError unless 0 <= k <= n."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    if not 0 < confidence < 1:
        raise ValueError("confidence lies between 0 and 1")
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0)
    z = float(norm.ppf(0.5 + confidence / 2))
    share = k / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    low = 0.0 if k == 0 else max(0.0, middle - half)
    high = 1.0 if k == n else min(1.0, middle + half)
    return Interval(share, low, high)


def bootstrap(
    units: Sequence[T],
    statistic: Callable[[Sequence[T]], float | None],
    *,
    repeats: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic over whole units (slides, never detections), drawn with replacement.

    Draws on which the statistic is None (one class absent) are left out; nan where none is left.
    """
    if not units:
        return Interval(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    return _percentile(statistic(units), (statistic(drawn) for drawn in _draws(units, repeats, rng)), confidence)


def bootstrap_difference(
    units: Sequence[T],
    first: Callable[[Sequence[T]], float | None],
    second: Callable[[Sequence[T]], float | None],
    *,
    repeats: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of `first` minus `second`, both on the same draws: two models on the same slides are compared in pairs.

    A unit then holds what both models say of one slide.
    """

    def difference(drawn: Sequence[T]) -> float | None:
        a, b = first(drawn), second(drawn)
        return None if a is None or b is None else a - b

    return bootstrap(units, difference, repeats=repeats, confidence=confidence, seed=seed)


def _draws(units: Sequence[T], repeats: int, rng: np.random.Generator) -> Iterator[list[T]]:
    for _ in range(repeats):
        yield [units[i] for i in rng.integers(0, len(units), len(units))]


def _percentile(value: float | None, draws: Iterable[float | None], confidence: float) -> Interval:
    known = [draw for draw in draws if draw is not None and not np.isnan(draw)]
    if value is None or not known:
        return Interval(float("nan") if value is None else value, float("nan"), float("nan"))
    low, high = np.quantile(known, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(value, float(low), float(high))
