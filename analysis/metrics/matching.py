"""Which detection hits which lesion, by the rules of the CAMELYON16 evaluation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt, label

from analysis.metrics.froc import SlideHits

JOIN_UM = 75.0
"""Every lesion grows by half of this on all sides; nearer ones become one."""
ITC_UM = 200.0
_EIGHT = np.ones((3, 3), int)


@dataclass(frozen=True)
class Truth:
    """Lesions of one slide on a grid. Label 0 is no lesion; ITC are labels too."""

    labels: NDArray[np.int32]
    itc: frozenset[int]
    um_per_cell: float

    @property
    def counted(self) -> list[int]:
        return [k for k in range(1, int(self.labels.max(initial=0)) + 1) if k not in self.itc]


def evaluation_labels(tumour: NDArray[np.bool_], *, um_per_cell: float) -> Truth:
    """The tumour grown by 37.5 um, holes filled, 8-connected; ITC where the ellipse's major axis is below 275 um."""
    if not tumour.any():
        return Truth(np.zeros(tumour.shape, np.int32), frozenset(), um_per_cell)
    grown = distance_transform_edt(~tumour) < JOIN_UM / (um_per_cell * 2)
    labels, n = label(binary_fill_holes(grown), structure=_EIGHT)
    limit = (ITC_UM + JOIN_UM) / um_per_cell
    itc = frozenset(k for k in range(1, n + 1) if major_axis(labels == k) < limit)
    return Truth(labels.astype(np.int32), itc, um_per_cell)


def major_axis(mask: NDArray[np.bool_]) -> float:
    """Of the ellipse with the same second moments, in cells; each cell counts as a unit square."""
    ys, xs = np.nonzero(mask)
    cov = np.cov(np.stack([xs, ys]).astype(np.float64), bias=True).reshape(2, 2) + np.eye(2) / 12
    return 4 * math.sqrt(float(np.linalg.eigvalsh(cov)[-1]))


def judge_slide(
    truth: Truth, detections: Sequence[tuple[float, float, float]], *, include_itc: bool = False
) -> SlideHits:
    """detections (score, col, row) in cells; one outside the grid is moved to its edge.

    Several hits on one lesion count once (the best); a hit on ITC is neither right nor wrong.
    """
    counted = set(truth.counted) | (truth.itc if include_itc else set())
    best = dict.fromkeys(sorted(counted), 0.0)
    false = []
    rows, cols = truth.labels.shape
    for score, col, row in detections:
        hit = int(truth.labels[min(max(int(row), 0), rows - 1), min(max(int(col), 0), cols - 1)])
        if hit in best:
            best[hit] = max(best[hit], score)
        elif hit == 0:
            false.append(score)
    return SlideHits(tuple(false), tuple(best.values()))
