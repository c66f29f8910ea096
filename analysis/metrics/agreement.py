"""Agreement between two readers, or a reader and the AI."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.metrics.intervals import Interval, wilson


def confusion(
    reference: Sequence[Hashable], other: Sequence[Hashable], *, labels: Sequence[Hashable]
) -> NDArray[np.int64]:
    """Counts (row = reference, column = other) in the order of `labels`. Raises ValueError for unequal lengths or unknown labels."""
    if len(reference) != len(other):
        raise ValueError(f"{len(reference)} against {len(other)} calls")
    place = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for a, b in zip(reference, other, strict=True):
        if a not in place or b not in place:
            raise ValueError(f"unknown label {a if a not in place else b!r}")
        counts[place[a], place[b]] += 1
    return counts


def kappa(counts: NDArray[np.int64], *, weights: str = "plain") -> float | None:
    """Cohen's kappa of a square table, `plain` or `quadratic` over ordered labels; None where chance alone explains all."""
    if weights not in ("plain", "quadratic"):
        raise ValueError("weights is plain or quadratic")
    n, total = len(counts), counts.sum()
    if not total:
        return None
    i, j = np.indices((n, n))
    cost = (i != j).astype(float) if weights == "plain" else ((i - j) ** 2).astype(float)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / total
    chance = float((cost * expected).sum())
    if chance == 0:
        return None
    return 1 - float((cost * counts).sum()) / chance


@dataclass(frozen=True)
class TwoByTwo:
    """Positive and negative calls against a reference."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @classmethod
    def of(cls, reference: Sequence[bool], other: Sequence[bool]) -> "TwoByTwo":
        counts = confusion(list(reference), list(other), labels=(False, True))
        return cls(int(counts[1, 1]), int(counts[0, 1]), int(counts[1, 0]), int(counts[0, 0]))

    @property
    def sensitivity(self) -> Interval:
        return wilson(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> Interval:
        return wilson(self.true_negative, self.true_negative + self.false_positive)

    @property
    def agreement(self) -> Interval:
        same = self.true_positive + self.true_negative
        return wilson(same, same + self.false_positive + self.false_negative)
