"""One slide judged: what of its true lesions was found, in how many pieces, of what class, and where it was wrong."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from analysis.detector.annotations import Annotation, paint, read_asap
from analysis.detector.detection import Detection, LesionFinding
from analysis.detector.validation_record import slide_record
from analysis.metrics.froc import SlideHits
from analysis.metrics.matching import Truth, evaluation_labels, judge_slide
from analysis.metrics.staging import CLASSES, MACRO_OVER_MM, MICRO_OVER_MM, size_class

BAND_SHARE = 0.1
"""A true lesion lies in the borderline band when its diameter is within this share of 0.2 or 2.0 mm."""
TAG_REACH_CELLS = 5
"""A false find counts for a tag that lies this near its peak (40 um)."""
PLAIN = "plain"
"""Tag of a false find with none of the others near."""
_BY_SIZE = tuple(reversed(CLASSES))


@dataclass(frozen=True)
class Reference:
    path: Path
    annotation: Path | None
    tumour: bool
    size_class: str | None
    """Class of the largest lesion where the table has it."""


@dataclass(frozen=True)
class SlideTags:
    """What lies where on a composed slide: bits (rows, cols) in the cells of the whole-slide map."""

    bits: NDArray[np.uint8]
    names: dict[str, int]

    def near(self, row: int, col: int) -> tuple[str, ...]:
        reach = TAG_REACH_CELLS
        around = self.bits[max(row - reach, 0) : row + reach + 1, max(col - reach, 0) : col + reach + 1]
        seen = int(np.bitwise_or.reduce(around, axis=None)) if around.size else 0
        return tuple(name for name, bit in self.names.items() if seen & bit and name != "tissue") or (PLAIN,)

    def area_mm2(self, name: str, *, cell_um: float) -> float:
        return float(((self.bits & self.names[name]) > 0).sum()) * (cell_um / 1000) ** 2


@dataclass(frozen=True)
class JudgedLesion:
    """A true metastasis: true lesions nearer than 75 um are one."""

    longest_mm: float
    size_class: str
    itc: bool
    """By the rule of the CAMELYON16 evaluation, which looks at the grown ellipse."""
    score: float
    """Best peak inside of it; 0 when there is none."""
    found: bool
    """That peak is at or above the threshold."""
    pieces: int
    """Found lesions at or above the threshold that lie over it."""
    found_class: str | None
    """Of the largest of them."""
    found_mm: float | None
    flagged: bool
    """The detector itself said that the class of that one is borderline."""

    @property
    def in_band(self) -> bool:
        return any(abs(self.longest_mm - limit) <= BAND_SHARE * limit for limit in (MICRO_OVER_MM, MACRO_OVER_MM))


@dataclass(frozen=True)
class JudgedSlide:
    reference: Reference
    detection: Detection
    hits: SlideHits
    called: str
    """Largest size class among the lesions at or above the threshold; negative without one."""
    lesions: tuple[JudgedLesion, ...]
    merged: int
    """Found lesions at or above the threshold that lie over more than one true one."""
    false_tags: tuple[tuple[float, tuple[str, ...]], ...]
    """Score and tags of each false find; empty without tags.json."""
    tag_mm2: dict[str, float]
    overlap: tuple[int, int, int]
    """Cells in both masks, in the found one, in the true one."""
    record: dict[str, Any]
    """For calibrating (`validation_record.py`)."""

    @property
    def true_class(self) -> str:
        """Of its largest lesion, measured on the outlines; negative without tumour."""
        return largest(le.size_class for le in self.lesions)

    @property
    def in_band(self) -> bool:
        """Its largest lesion lies in the borderline band, so that its class may fall either way."""
        return max(self.lesions, key=lambda le: le.longest_mm).in_band if self.lesions else False

    @property
    def itc(self) -> int:
        return sum(le.itc for le in self.lesions)

    @property
    def itc_only(self) -> bool:
        return bool(self.lesions) and self.true_class == "itc"


def largest(classes: Any) -> str:
    seen = set(classes)
    return next((c for c in _BY_SIZE if c in seen), "negative")


def judge(
    reference: Reference,
    detection: Detection,
    *,
    threshold: float,
    tags: SlideTags | None = None,
) -> JudgedSlide:
    """`threshold`: scores from which a lesion is drawn. Raises AnnotationError."""
    rows, cols = detection.heatmap.shape
    cell_x0, cell_y0 = detection.heatmap_cell_px0
    annotations = read_asap(reference.annotation) if reference.annotation and reference.tumour else []
    tumour = paint(annotations, rows=rows, cols=cols, cell_x0=cell_x0, cell_y0=cell_y0)
    truth = evaluation_labels(tumour, um_per_cell=detection.heatmap_mpp)
    points = [(le.score, le.peak[0] / cell_x0, le.peak[1] / cell_y0) for le in detection.lesions]
    drawn = [le for le in detection.lesions if le.score >= threshold]
    areas = [_painted(le, detection) for le in drawn]
    over = [_labels_under(area, le, truth, tumour, detection) for area, le in zip(areas, drawn, strict=True)]
    found = np.logical_or.reduce(areas) if areas else np.zeros((rows, cols), bool)
    known = tags.names if tags else {}
    return JudgedSlide(
        reference=reference,
        detection=detection,
        hits=judge_slide(truth, points),
        called=largest(le.size_class for le in drawn),
        lesions=_judged_lesions(truth, annotations, points, drawn, over, detection, threshold),
        merged=sum(len(labels) > 1 for labels in over),
        false_tags=_tagged(truth, points, tags),
        tag_mm2={name: tags.area_mm2(name, cell_um=detection.heatmap_mpp) for name in known} if tags else {},
        overlap=(int((found & tumour).sum()), int(found.sum()), int(tumour.sum())),
        record=slide_record(name=reference.path.stem, tumour=reference.tumour, detection=detection, truth=truth),
    )


def _label_at(truth: Truth, col: float, row: float) -> int:
    rows, cols = truth.labels.shape
    return int(truth.labels[min(max(int(row), 0), rows - 1), min(max(int(col), 0), cols - 1)])


def _painted(lesion: LesionFinding, detection: Detection) -> NDArray[np.bool_]:
    rows, cols = detection.heatmap.shape
    cell_x0, cell_y0 = detection.heatmap_cell_px0
    rings = [Annotation(tumour=i == 0, ring=np.array(ring, np.float64)) for i, ring in enumerate(lesion.outline)]
    return paint(rings, rows=rows, cols=cols, cell_x0=cell_x0, cell_y0=cell_y0)


def _labels_under(
    area: NDArray[np.bool_], lesion: LesionFinding, truth: Truth, tumour: NDArray[np.bool_], detection: Detection
) -> set[int]:
    """True lesions over which a found one lies: it covers tumour of them, or its peak is in them."""
    labels = set(np.unique(truth.labels[area & tumour]).tolist())
    cell_x0, cell_y0 = detection.heatmap_cell_px0
    labels.add(_label_at(truth, lesion.peak[0] / cell_x0, lesion.peak[1] / cell_y0))
    return {int(k) for k in labels if k}


def _judged_lesions(
    truth: Truth,
    annotations: Sequence[Annotation],
    points: Sequence[tuple[float, float, float]],
    drawn: Sequence[LesionFinding],
    over: Sequence[set[int]],
    detection: Detection,
    threshold: float,
) -> tuple[JudgedLesion, ...]:
    best: dict[int, float] = {}
    for score, col, row in points:
        hit = _label_at(truth, col, row)
        best[hit] = max(best.get(hit, 0.0), score)
    corners = _corners_by_label(truth, annotations, detection)
    judged = []
    for k in range(1, int(truth.labels.max(initial=0)) + 1):
        pieces = [le for le, labels in zip(drawn, over, strict=True) if k in labels]
        biggest = max(pieces, key=lambda le: le.area_mm2, default=None)
        longest = _longest_um(corners[k]) / 1000 if k in corners else 0.0
        judged.append(
            JudgedLesion(
                longest_mm=round(longest, 4),
                size_class=size_class(longest),
                itc=k in truth.itc,
                score=best.get(k, 0.0),
                found=best.get(k, 0.0) >= threshold,
                pieces=len(pieces),
                found_class=biggest.size_class if biggest else None,
                found_mm=biggest.longest_diameter_mm if biggest else None,
                flagged=bool(biggest and biggest.borderline),
            )
        )
    return tuple(judged)


def _corners_by_label(
    truth: Truth, annotations: Sequence[Annotation], detection: Detection
) -> dict[int, NDArray[np.float64]]:
    """In um: the outlines themselves are measured, because cells of 8 um are coarse beside a limit of 200 um."""
    cell = np.array(detection.heatmap_cell_px0)
    rings: dict[int, list[NDArray[np.float64]]] = {}
    for annotation in annotations:
        if not annotation.tumour:
            continue
        in_cells = annotation.ring / cell
        seen = Counter(label for x, y in in_cells.tolist() if (label := _label_at(truth, x, y)))
        if seen:
            rings.setdefault(seen.most_common(1)[0][0], []).append(in_cells * detection.heatmap_mpp)
    return {label: np.concatenate(parts) for label, parts in rings.items()}


def _longest_um(corners: NDArray[np.float64]) -> float:
    try:
        corners = corners[ConvexHull(corners).vertices]
    except QhullError:  # all on one line
        pass
    return float(pdist(corners).max(initial=0.0))


def _tagged(
    truth: Truth, points: Sequence[tuple[float, float, float]], tags: SlideTags | None
) -> tuple[tuple[float, tuple[str, ...]], ...]:
    if tags is None:
        return ()
    false = [(score, col, row) for score, col, row in points if _label_at(truth, col, row) == 0]
    return tuple((score, tags.near(int(row), int(col))) for score, col, row in false)


def read_tags(folder: Path, name: str) -> SlideTags | None:
    """Of slide `name` in a folder that `compose` wrote; None where there are none."""
    listing, bits = folder / "tags.json", folder / "tags" / f"{name}.png"
    if not listing.is_file() or not bits.is_file():
        return None
    names = json.loads(listing.read_text(encoding="utf-8"))["tag_bits"]
    return SlideTags(np.asarray(Image.open(bits).convert("L")), {str(k): int(v) for k, v in names.items()})
