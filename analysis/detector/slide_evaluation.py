"""A folder of slides with known lesions, read and judged by the CAMELYON rules."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.detector.detection import Detection
from analysis.detector.detection_cache import DetectionCache
from analysis.detector.engine import open_engine
from analysis.detector.infer import DetectionCancelled, detect
from analysis.detector.slide_figures import summarise, threshold_of
from analysis.detector.slide_judging import JudgedSlide, Reference, judge, read_tags
from analysis.detector.validation_record import record_document
from analysis.detector.weights import LoadedModel
from analysis.metrics.staging import CLASSES

SLIDE_SUFFIXES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs")


class ReferenceTableError(ValueError):
    """The folder is not laid out as CAMELYON16; the message says what is missing."""


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
    cache: DetectionCache | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """`keep_record` is given the record of the slides for calibrating; with `cache` slides read before are not read again.

    `workers`: windows computed at once (0: one for each core); the result does not depend on it.

    Raises ReferenceTableError, AnnotationError and what reading a slide raises.
    """
    judged = judge_folder(folder, model, profile=profile, say=say, cache=cache, workers=workers)
    if keep_record:
        keep_record(
            record_document(
                weights_sha256=model.sha256,
                profile=profile,
                read=vars(model.config.read),
                composed=is_composed(folder),
                slides=[one.record for one in judged],
            )
        )
    threshold = threshold_of(model, profile=profile)
    return summarise(judged, model=model, profile=profile, threshold=threshold, composed=is_composed(folder))


def judge_folder(
    folder: Path,
    model: LoadedModel,
    *,
    profile: str = "standard",
    say: Callable[[str], None] = print,
    cache: DetectionCache | None = None,
    workers: int = 0,
    on_progress: Callable[[str, float], None] = lambda stage, fraction: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[JudgedSlide]:
    """Every slide of reference.csv in its order. Raises as `evaluate_folder`, and DetectionCancelled.

    `on_progress` is told the slide and the share of the whole folder.
    """
    threshold = threshold_of(model, profile=profile)
    judged = []
    references = read_reference(folder)
    for i, reference in enumerate(references):
        stage = f"slide {i + 1} of {len(references)}"
        share = _share_of(on_progress, stage=stage, before=i, of=len(references))
        share("", 0.0)
        if should_stop():
            raise DetectionCancelled
        detection, note = _detection_of(reference.path, model, profile, cache, workers, share, should_stop)
        judged.append(judge(reference, detection, threshold=threshold, tags=read_tags(folder, reference.path.stem)))
        say(f"{reference.path.name}: {judged[-1].called}, score {detection.slide_score}, {note}")
    return judged


def _share_of(
    on_progress: Callable[[str, float], None], *, stage: str, before: int, of: int
) -> Callable[[str, float], None]:
    return lambda _, fraction: on_progress(stage, (before + fraction) / of)


def _detection_of(
    path: Path,
    model: LoadedModel,
    profile: str,
    cache: DetectionCache | None,
    workers: int,
    on_progress: Callable[[str, float], None],
    should_stop: Callable[[], bool],
) -> tuple[Detection, str]:
    from slides.wsi.sandbox import open_pixels  # starts child processes: only when there are slides to read

    known = cache.load(path, model, profile=profile) if cache else None
    if known is not None:
        return known, "read before"
    with open_pixels(path, mpp_override=None) as source:
        detection = detect(
            source,
            model,
            profile=profile,
            engine=open_engine(model, workers=workers),
            on_progress=on_progress,
            should_stop=should_stop,
        )
    if cache:
        cache.store(path, model, detection, profile=profile)
    return detection, f"{detection.seconds['total']:.1f} s"


def is_composed(folder: Path) -> bool:
    """The folder says of itself that its slides are composed; figures on them are to be called so."""
    listing = folder / "tags.json"
    if listing.is_file():
        return bool(json.loads(listing.read_text(encoding="utf-8")).get("composed", False))
    return any(_says_composed(path) for path in folder.glob("*.json"))


def _says_composed(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # some other file
        return False
    return isinstance(content, dict) and content.get("composed") is True
