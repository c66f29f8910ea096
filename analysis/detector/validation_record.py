"""What a reading of slides with known lesions leaves for calibrating: one JSON file, without outlines and maps.

It must come from validation slides: tissue that training has not seen and that the test slides do not hold.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.detector.detection import Detection
from analysis.metrics.matching import Truth

FORMAT = 1
_OF_A_LESION = ("rank", "score", "mean_p", "peak_p", "area_mm2", "longest_diameter_mm", "size_class", "box_score")


class RecordDamaged(ValueError):
    """The record of validation slides cannot be used; the message says why in words."""


@dataclass(frozen=True)
class ValidationSlide:
    name: str
    tumour: bool
    status: str
    slide_score: float | None
    lesions: tuple[Mapping[str, Any], ...]
    """Found ones: facts of LesionFinding and `hit`, the number of the true lesion at the peak (0: none)."""
    truth: tuple[Mapping[str, Any], ...]
    """True ones: `label`, `itc`, `peak` (highest probability that the map has in it)."""
    drift: Mapping[str, float] = field(default_factory=dict)
    features: tuple[float, ...] = ()

    @property
    def scored(self) -> bool:
        """It has a score, though part of it may not have been judged: readers see a probability of such a slide too."""
        return self.slide_score is not None and self.status != "cannot_assess"

    @property
    def assessed(self) -> bool:
        """Read whole: no other slide is ever in a triage band."""
        return self.scored and self.status == "complete"


@dataclass(frozen=True)
class ValidationRecord:
    weights_sha256: str
    profile: str
    read: Mapping[str, Any]
    composed: bool
    slides: tuple[ValidationSlide, ...]
    sha256: str
    """Of the file."""


def slide_record(*, name: str, tumour: bool, detection: Detection, truth: Truth) -> dict[str, Any]:
    """`truth` on the grid of the detection's map."""
    x0, y0 = detection.heatmap_cell_px0
    rows, cols = truth.labels.shape
    lesions = []
    for lesion in detection.lesions:
        col, row = min(int(lesion.peak[0] / x0), cols - 1), min(int(lesion.peak[1] / y0), rows - 1)
        facts = {key: getattr(lesion, key) for key in _OF_A_LESION}
        lesions.append({**facts, "second_look": lesion.second_look, "hit": int(truth.labels[row, col])})
    return {
        "slide": name,
        "tumour": tumour,
        "status": detection.status,
        "status_reason": detection.status_reason,
        "slide_score": detection.slide_score,
        "lesions": lesions,
        "truth": [
            {
                "label": k,
                "itc": k in truth.itc,
                "peak": round(int(detection.heatmap[truth.labels == k].max()) / 255, 4),
            }
            for k in range(1, int(truth.labels.max(initial=0)) + 1)
        ],
        "drift": detection.drift,
        "features": list(detection.features),
        "quality": detection.quality,
        "seconds": detection.seconds,
    }


def record_document(
    *, weights_sha256: str, profile: str, read: Mapping[str, Any], composed: bool, slides: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """`read`: the reading that was used, as in the model's configuration."""
    return {
        "format": FORMAT,
        "weights_sha256": weights_sha256,
        "profile": profile,
        "read": dict(read),
        "composed": composed,
        "slides": list(slides),
    }


def load_record(path: Path) -> ValidationRecord:
    """Raises RecordDamaged."""
    try:
        data = path.read_bytes()
        content = json.loads(data)
    except OSError as problem:
        raise RecordDamaged(f"the record {path} cannot be read: {problem.strerror}") from problem
    except ValueError as problem:
        raise RecordDamaged(f"{path} is not JSON ({problem})") from problem
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecordDamaged(f"{path} is no record of validation slides of format {FORMAT}")
    try:
        return ValidationRecord(
            weights_sha256=str(content["weights_sha256"]),
            profile=str(content["profile"]),
            read=dict(content["read"]),
            composed=bool(content["composed"]),
            slides=tuple(_slide(one) for one in content["slides"]),
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise RecordDamaged(f"{path} lacks what calibrating needs ({problem!r})") from problem


def _slide(one: Mapping[str, Any]) -> ValidationSlide:
    score = one["slide_score"]
    return ValidationSlide(
        name=str(one["slide"]),
        tumour=bool(one["tumour"]),
        status=str(one["status"]),
        slide_score=None if score is None else float(score),
        lesions=tuple(dict(le) for le in one["lesions"]),
        truth=tuple(dict(le) for le in one["truth"]),
        drift=dict(one.get("drift", {})),
        features=tuple(float(v) for v in one.get("features", ())),
    )
