"""A folder of slides with known lesions, judged by the CAMELYON rules."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.detector.annotations import paint, read_asap
from analysis.detector.detection import Detection
from analysis.detector.infer import detect
from analysis.detector.validation_record import record_document, slide_record
from analysis.detector.weights import LoadedModel
from analysis.metrics.agreement import confusion
from analysis.metrics.froc import SlideHits, froc_2016, froc_stepped
from analysis.metrics.intervals import bootstrap, wilson
from analysis.metrics.matching import Truth, evaluation_labels, judge_slide
from analysis.metrics.roc import auc
from analysis.metrics.staging import CLASSES

SLIDE_SUFFIXES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs")
DEFAULT_THRESHOLD = 0.5


class ReferenceTableError(ValueError):
    """The folder is not laid out as CAMELYON16; the message says what is missing."""


@dataclass(frozen=True)
class Reference:
    path: Path
    annotation: Path | None
    tumour: bool
    size_class: str | None
    """Class of the largest lesion where the table has it."""


@dataclass(frozen=True)
class JudgedSlide:
    reference: Reference
    detection: Detection
    hits: SlideHits
    called: str
    """Largest size class among the lesions at or above the threshold; negative without one."""
    itc_found: int
    itc: int
    record: dict[str, Any]
    """For calibrating (`validation_record.py`)."""


def read_reference(folder: Path) -> list[Reference]:
    """reference.csv (image,type,class,...) with its slides beside it or under images/, outlines beside or under annotations/."""
    table = folder / "reference.csv"
    if not table.is_file():
        raise ReferenceTableError(f"there is no reference.csv in {folder}")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "type"} <= set(rows[0]):
        raise ReferenceTableError("reference.csv needs the columns image and type, and at least one row")
    return [_reference(folder, row) for row in rows]


def _reference(folder: Path, row: dict[str, str]) -> Reference:
    name = Path(row["image"]).stem
    images = [place / (name + suffix) for place in (folder, folder / "images") for suffix in SLIDE_SUFFIXES]
    path = next((p for p in images if p.is_file()), None)
    if path is None:
        raise ReferenceTableError(f"the slide {row['image']} of reference.csv is not in {folder}")
    outlines = [place / f"{name}.xml" for place in (path.parent, folder, folder / "annotations")]
    annotation = next((p for p in outlines if p.is_file()), None)
    tumour = row["type"].strip().lower() in ("tumor", "tumour")
    if tumour and annotation is None:
        raise ReferenceTableError(f"{row['image']} holds tumour by reference.csv but has no {name}.xml")
    size = (row.get("class") or "").strip().lower()
    return Reference(path, annotation, tumour, size if size in CLASSES else None)


def evaluate_folder(
    folder: Path,
    model: LoadedModel,
    *,
    profile: str = "standard",
    say: Callable[[str], None] = print,
    keep_record: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """`keep_record` is given the record of the slides for calibrating.

    Raises ReferenceTableError, AnnotationError and what reading a slide raises.
    """
    from slides.wsi.sandbox import open_pixels  # starts child processes: only when there are slides to read

    judged = []
    for reference in read_reference(folder):
        with open_pixels(reference.path, mpp_override=None) as source:
            detection = detect(source, model, profile=profile)
            one = judge(reference, detection, width=source.width, height=source.height, threshold=_threshold(model))
        say(f"{reference.path.name}: {one.called}, score {detection.slide_score}, {detection.seconds['total']:.1f} s")
        judged.append(one)
    if keep_record:
        keep_record(
            record_document(
                weights_sha256=model.sha256,
                profile=profile,
                read=vars(model.config.read),
                composed=bool(model.card.get("composed_evaluation", True)),
                slides=[one.record for one in judged],
            )
        )
    return summarise(judged, model=model, profile=profile)


def _threshold(model: LoadedModel) -> float:
    return float(model.card.get("threshold", DEFAULT_THRESHOLD))


def judge(reference: Reference, detection: Detection, *, width: int, height: int, threshold: float) -> JudgedSlide:
    rows, cols = detection.heatmap.shape
    cell_x0, cell_y0 = detection.heatmap_cell_px0
    annotations = read_asap(reference.annotation) if reference.annotation and reference.tumour else []
    tumour = paint(annotations, rows=rows, cols=cols, cell_x0=cell_x0, cell_y0=cell_y0)
    truth = evaluation_labels(tumour, um_per_cell=detection.heatmap_mpp)
    points = [(le.score, le.peak[0] / cell_x0, le.peak[1] / cell_y0) for le in detection.lesions]
    found = [le.size_class for le in detection.lesions if le.score >= threshold]
    return JudgedSlide(
        reference=reference,
        detection=detection,
        hits=judge_slide(truth, points),
        called=next((c for c in ("macro", "micro", "itc") if c in found), "negative"),
        itc_found=_itc_found(truth, points),
        itc=len(truth.itc),
        record=slide_record(name=reference.path.stem, tumour=reference.tumour, detection=detection, truth=truth),
    )


def _itc_found(truth: Truth, points: list[tuple[float, float, float]]) -> int:
    rows, cols = truth.labels.shape
    hit = {int(truth.labels[min(int(y), rows - 1), min(int(x), cols - 1)]) for _, x, y in points}
    return len(hit & truth.itc)


def _auc_of(judged: list[JudgedSlide]) -> float | None:
    known = [j for j in judged if j.detection.slide_score is not None]
    return auc([j.reference.tumour for j in known], [j.detection.slide_score or 0.0 for j in known]) if known else None


def summarise(judged: list[JudgedSlide], *, model: LoadedModel, profile: str) -> dict[str, Any]:
    hits = [j.hits for j in judged]
    lesions = [score for h in hits for score in h.lesions]
    threshold = _threshold(model)
    found = sum(score >= threshold for score in lesions)
    false = sum(score >= threshold for h in hits for score in h.false_positives)
    classed = [j for j in judged if j.reference.size_class]
    counts = confusion([j.reference.size_class for j in classed], [j.called for j in classed], labels=CLASSES)
    tissue = sum(j.detection.tissue.mm2 for j in judged)
    return {
        "model": {"version": model.version, "sha256": model.sha256, "profile": profile},
        "slides": len(judged),
        "tumour_slides": sum(j.reference.tumour for j in judged),
        "not_assessed": sum(j.detection.slide_score is None for j in judged),
        "slide_auc": _auc_of(judged),
        "slide_auc_interval": _pair(bootstrap(judged, lambda s: _auc_of(list(s)), repeats=1000)),
        "froc_2016": froc_2016(hits),
        "froc_2016_interval": _pair(bootstrap(hits, froc_2016, repeats=1000)),
        "froc_stepped": froc_stepped(hits),
        "froc_stepped_interval": _pair(bootstrap(hits, froc_stepped, repeats=1000)),
        "lesions": len(lesions),
        "threshold": threshold,
        "lesions_found": int(found),
        "lesion_sensitivity": list(wilson(int(found), len(lesions))) if lesions else None,
        "false_positives_per_slide": false / max(len(judged), 1),
        "itc": sum(j.itc for j in judged),
        "itc_found": sum(j.itc_found for j in judged),
        "size_class_labels": list(CLASSES),
        "size_class_confusion": counts.tolist(),
        "tissue_mm2": round(tissue, 2),
        "seconds_total": round(sum(j.detection.seconds["total"] for j in judged), 2),
        "slides_detail": [_detail(j) for j in judged],
    }


def _pair(interval: tuple[float, float, float]) -> list[float | None]:
    return [None if np.isnan(v) else round(v, 4) for v in interval[1:]]


def _detail(j: JudgedSlide) -> dict[str, Any]:
    return {
        "slide": j.reference.path.name,
        "tumour": j.reference.tumour,
        "class": j.reference.size_class,
        "called": j.called,
        "status": j.detection.status,
        "slide_score": j.detection.slide_score,
        "lesion_scores": list(j.hits.lesions),
        "false_positive_scores": list(j.hits.false_positives),
        "seconds": j.detection.seconds,
    }
