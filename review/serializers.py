"""What requests of review/ carry, and the AI result as the viewer takes it."""

from typing import Any

from rest_framework import serializers

from analysis.detector.detection import NOT_CALIBRATED
from analysis.detector.drift import in_words
from analysis.models import Lesion, Run
from review.enums import CallValue, Meaning, RejectReason, Verdict
from review.visibility import AiShown


class Versioned(serializers.Serializer[Any]):
    expected_version = serializers.IntegerField(min_value=0)


class CallRequest(Versioned):
    call = serializers.ChoiceField(choices=CallValue.choices)
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class MarkRequest(Versioned):
    outline = serializers.JSONField()
    note = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class LockRequest(Versioned):
    confirm = serializers.BooleanField()

    def validate_confirm(self, value: bool) -> bool:
        if not value:
            raise serializers.ValidationError("Locking needs a confirmation: it cannot be undone.")
        return value


class DecisionRequest(Versioned):
    lesion = serializers.UUIDField()
    verdict = serializers.ChoiceField(choices=[Verdict.ACCEPTED, Verdict.REJECTED])
    reason = serializers.ChoiceField(choices=RejectReason.choices, required=False, allow_blank=True, default="")
    text = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class ProgressRequest(serializers.Serializer[Any]):
    viewed_fraction = serializers.FloatField(min_value=0, max_value=1)
    active_seconds = serializers.FloatField(min_value=0, max_value=86400)


class SignRequest(serializers.Serializer[Any]):
    meaning = serializers.ChoiceField(choices=Meaning.choices)
    password = serializers.CharField(max_length=200, trim_whitespace=False)
    manifest_sha256 = serializers.RegexField(r"^[0-9a-f]{64}$")
    utc_offset_minutes = serializers.IntegerField(min_value=-14 * 60, max_value=14 * 60, required=False, default=None)


class AmendRequest(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500)


def ai_facts(shown: AiShown, *, base_url: str) -> dict[str, Any]:
    """JSON of contract `GET /api/reads/{id}/ai/`; `base_url` ends with a slash and is where heatmap and fields are."""
    if shown.run is None:
        return {"run": None, "lesions": [], "heatmap": None, "message": shown.message, "pending": shown.pending}
    run = shown.run
    return {
        "run": run_facts(run),
        "lesions": [lesion_facts(lesion, base_url=base_url) for lesion in shown.lesions],
        "heatmap": {
            "url": f"{base_url}heatmap/",
            "rows": run.heatmap_rows,
            "cols": run.heatmap_cols,
            "x0": run.heatmap_x0,
            "y0": run.heatmap_y0,
            "cell_px0_x": run.heatmap_cell_x0,
            "cell_px0_y": run.heatmap_cell_y0,
        },
        "message": run.status_reason,
        "pending": False,
    }


def run_facts(run: Run) -> dict[str, Any]:
    return {
        "id": str(run.pk),
        "model": {
            "name": run.model_version.name,
            "version": run.model_version.version,
            "sha256": run.model_version.sha256,
        },
        "profile": run.profile,
        "threshold": run.threshold,
        "status": run.status,
        "status_reason": run.status_reason,
        "slide_score": run.slide_score,
        "calibrated": bool(run.calibration),
        "slide_probability": run.slide_probability,
        "triage": {"band": run.triage, "words": run.triage_words or NOT_CALIBRATED},
        "blurred": run.quality.get("blurred"),
        "unlike_reference": list(in_words(run.drift)),
        "tissue": {"mm2": run.tissue_mm2, "analysed": run.analysed_fraction, "failed": run.failed_fraction},
        "made_at": run.created_at.isoformat(),
    }


def lesion_facts(lesion: Lesion, *, base_url: str) -> dict[str, Any]:
    return {
        "id": str(lesion.pk),
        "rank": lesion.rank,
        "score": lesion.score,
        "probability": lesion.probability,
        "peak": [lesion.peak_x0, lesion.peak_y0],
        "outline": lesion.outline,
        "bbox": lesion.bbox,
        "longest_diameter_mm": lesion.longest_diameter_mm,
        "area_mm2": lesion.area_mm2,
        "size_class": lesion.size_class,
        "borderline": lesion.borderline,
        "field_url": f"{base_url}lesions/{lesion.pk}/field.jpg" if lesion.has_field else None,
    }
