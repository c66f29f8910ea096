"""Results of reading slides kept on disk, so that a long evaluation goes on where it stopped.

A result is found again only by the same slide (its bytes), the same weights, engine, reading and calibration, the same
profile and the same code that reads: after any change the slide is read anew.
"""

import base64
import dataclasses
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analysis.detector.detection import Detection, LesionFinding, TissueSummary
from analysis.detector.engine import usual_engine
from analysis.detector.weights import LoadedModel

_HERE = Path(__file__).resolve().parent
_NOT_READING = {
    "annotation_masks.py",
    "annotations.py",
    "calibrating.py",
    "compose.py",
    "detection_cache.py",
    "distil.py",
    "evaluate.py",
    "look.py",
    "model_card.py",
    "patch_file.py",
    "quantise.py",
    "reference_data.py",
    "rules.py",
    "slide_evaluation.py",
    "slide_figures.py",
    "slide_judging.py",
    "slide_labels.py",
    "study.py",
    "train.py",
    "validation_record.py",
    "version_command.py",
    "weights_file.py",
}
"""Modules that judge or train, and have no part in what is found on a slide."""


@dataclasses.dataclass(frozen=True)
class DetectionCache:
    folder: Path

    def path_of(self, slide: Path, model: LoadedModel, *, profile: str) -> Path:
        return self.folder / f"{slide.stem}-{profile}-{self._key(slide, model, profile)}.json"

    def load(self, slide: Path, model: LoadedModel, *, profile: str) -> Detection | None:
        """None when the slide was not read in this way before, or the file was cut short."""
        path = self.path_of(slide, model, profile=profile)
        try:
            return _detection(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store(self, slide: Path, model: LoadedModel, detection: Detection, *, profile: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path_of(slide, model, profile=profile)
        unfinished = path.with_name(path.name + ".part")
        unfinished.write_text(json.dumps(_document(detection)), encoding="utf-8")
        os.replace(unfinished, path)

    def _key(self, slide: Path, model: LoadedModel, profile: str) -> str:
        content = hashlib.sha256()
        with slide.open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
        how = {
            **model.reads_by,
            "engine": usual_engine(model),
            "profile": profile,
            "read": dataclasses.asdict(model.config.read),
            "calibration": model.card.get("calibration"),
            "drift": model.card.get("drift_reference"),
            "code": code_digest(),
        }
        content.update(json.dumps(how, sort_keys=True, default=str).encode())
        return content.hexdigest()[:20]


def code_digest() -> str:
    """Of the modules that have a part in what is found on a slide."""
    files = [p for p in _HERE.glob("*.py") if p.name not in _NOT_READING] + list((_HERE / "network").glob("*.py"))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _document(detection: Detection) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(detection.heatmap).save(buffer, "PNG")
    plain = dataclasses.asdict(dataclasses.replace(detection, heatmap=np.zeros((0, 0), np.uint8)))
    return {**plain, "heatmap": base64.b64encode(buffer.getvalue()).decode()}


def _detection(stored: dict[str, Any]) -> Detection:
    heatmap = np.asarray(Image.open(io.BytesIO(base64.b64decode(stored["heatmap"]))))
    lesions = tuple(_lesion(one) for one in stored["lesions"])
    return Detection(
        **{
            **stored,
            "heatmap": heatmap,
            "lesions": lesions,
            "tissue": TissueSummary(**stored["tissue"]),
            "heatmap_cell_px0": tuple(stored["heatmap_cell_px0"]),
            "drift_words": tuple(stored["drift_words"]),
            "features": tuple(stored["features"]),
        }
    )


def _lesion(stored: dict[str, Any]) -> LesionFinding:
    rings = [[(float(x), float(y)) for x, y in ring] for ring in stored["outline"]]
    return LesionFinding(**{**stored, "peak": tuple(stored["peak"]), "bbox0": tuple(stored["bbox0"]), "outline": rings})
