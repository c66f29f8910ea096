"""The result of reading one slide."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]

NOT_CALIBRATED = "Not calibrated: the scores are the network's own and no probabilities."


@dataclass(frozen=True)
class LesionFinding:
    """One metastasis. Coordinates are level-0 pixels, x before y."""

    rank: int
    """1 is the strongest."""
    score: float
    peak: Point
    """The place of the highest probability: always inside the tumour, which a centroid need not be."""
    outline: list[list[Point]]
    """Outer ring, then holes; the first point is not repeated."""
    bbox0: tuple[float, float, float, float]
    """left, top, right, bottom"""
    longest_diameter_mm: float
    ellipse_major_mm: float
    area_mm2: float
    size_class: str
    borderline: bool
    """The size class changes with the probability at which the edge is drawn."""
    mean_p: float
    peak_p: float
    box_score: float | None
    """Score of the best box of the box tower that is centred in the lesion."""
    second_look: float | None = None
    """What the second look alone said (0..1); None where there was none. `score` holds both looks then, unless the scan
    believes less (`scan.capped`)."""
    probability: float | None = None
    """Calibrated: of validation lesions with this value, that share was tumour. None when the model is not calibrated."""


@dataclass(frozen=True)
class TissueSummary:
    mm2: float
    analysed: float
    """Fraction of the tissue that the network has read; with `failed` it sums to 1 (both 0 without tissue)."""
    failed: float


@dataclass(frozen=True)
class Detection:
    status: str
    """complete, incomplete (part of the tissue could not be read) or cannot_assess (no call may be drawn from it)."""
    status_reason: str
    slide_score: float | None
    tissue: TissueSummary
    lesions: tuple[LesionFinding, ...]
    heatmap: NDArray[np.uint8]
    """(rows, cols), round(255 p)."""
    heatmap_mpp: float
    heatmap_x0: float
    heatmap_y0: float
    heatmap_cell_px0: tuple[float, float]
    """Level-0 pixels per cell, across and down."""
    seconds: dict[str, float]
    model: dict[str, str]
    drift: dict[str, float] = field(default_factory=dict)
    """Statistics of this slide's tissue; `z_...`: standard deviations from the reference slides of the model."""
    drift_words: tuple[str, ...] = ()
    """What is unlike the reference slides, in words."""
    features: tuple[float, ...] = ()
    """Mean of the network's features over the tissue; for the reference of a model, not for people."""
    quality: dict[str, float] = field(default_factory=dict)
    """blurred: share of the measured tissue that is out of focus; tissue_share: tissue's share of the slide."""
    slide_probability: float | None = None
    triage: str = "none"
    """ai_negative, must_review, ai_positive, cannot_assess; none when no band is promised."""
    triage_words: str = NOT_CALIBRATED
    calibration: str = ""
    """Digest of the calibration that gave the probabilities; empty when not calibrated."""


def detection_to_json(
    detection: Detection, slide_name: str, width: int, height: int, mpp: tuple[float, float]
) -> dict[str, Any]:
    """All coordinates are level-0 pixels. `mpp` is one number, the mean where the two directions differ; both stand beside it."""
    return {
        "slide": slide_name,
        "width": width,
        "height": height,
        "mpp": (mpp[0] + mpp[1]) / 2,
        "mpp_x": mpp[0],
        "mpp_y": mpp[1],
        "model": detection.model,
        "status": detection.status,
        "status_reason": detection.status_reason,
        "slide_score": detection.slide_score,
        "tissue": vars(detection.tissue),
        "lesions": [lesion_to_json(lesion) for lesion in detection.lesions],
        "seconds": {name: round(value, 3) for name, value in detection.seconds.items()},
        "drift": detection.drift,
        "drift_words": list(detection.drift_words),
        "quality": detection.quality,
        "slide_probability": detection.slide_probability,
        "triage": {"band": detection.triage, "words": detection.triage_words},
        "calibration": detection.calibration or None,
    }


def lesion_to_json(lesion: LesionFinding) -> dict[str, Any]:
    return {**vars(lesion), "peak": list(lesion.peak), "bbox0": list(lesion.bbox0)}
