"""How well probabilities say what they promise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ReliabilityBin:
    low: float
    high: float
    n: int
    mean_probability: float
    """nan where n is 0."""
    positive_share: float
    """nan where n is 0."""


def reliability(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> list[ReliabilityBin]:
    """Bins of equal width over 0..1; a probability on an inner edge belongs to the bin below, 0 to the first.

    Raises ValueError for a probability outside of 0..1 or lists of unequal length.
    """
    truth = np.asarray(labels).astype(bool)
    p = np.asarray(probabilities, dtype=np.float64)
    if truth.shape != p.shape:
        raise ValueError(f"{truth.size} labels but {p.size} probabilities")
    if bins < 1:
        raise ValueError("at least one bin is needed")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a probability lies between 0 and 1")
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)
    out = []
    for i in range(bins):
        inside = which == i
        n = int(inside.sum())
        mean, share = (float(p[inside].mean()), float(truth[inside].mean())) if n else (float("nan"), float("nan"))
        out.append(ReliabilityBin(float(edges[i]), float(edges[i + 1]), n, mean, share))
    return out


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> float | None:
    """Mean gap between promised and seen share over bins of equal width, weighted by their cases. None without cases.

    Naeini, Cooper and Hauskrecht 2015. Few cases inflate it: empty bins hide and small ones scatter.
    """
    return ece_of(reliability(labels, probabilities, bins=bins))


def ece_of(table: Sequence[ReliabilityBin]) -> float | None:
    total = sum(b.n for b in table)
    if not total:
        return None
    return sum(b.n * abs(b.mean_probability - b.positive_share) for b in table if b.n) / total
