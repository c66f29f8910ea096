"""The JSON of slides, uploads and jobs. No AI result ever stands here."""

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.enums import Role
from jobs.enums import LIVE, JobKind
from jobs.models import Job
from slides.models import Slide, Upload
from slides.wsi.properties import PLAUSIBLE_MPP


class JobSerializer(serializers.ModelSerializer[Job]):
    started = serializers.DateTimeField(source="started_at", read_only=True)
    finished = serializers.DateTimeField(source="finished_at", read_only=True)

    class Meta:
        model = Job
        fields = ["id", "kind", "state", "stage", "progress", "attempt", "error", "started", "finished"]
        read_only_fields = fields


class SlideSerializer(serializers.ModelSerializer[Slide]):
    """Context: `user`, and `jobs` and `checks`: {slide id: newest job} of both parts of the preparation (jobs_of).

    `stage` and `progress` are those of the part that is being worked on.
    """

    case = serializers.CharField(source="case.accession", read_only=True)
    node = serializers.CharField(source="node.label", read_only=True, default="")
    name = serializers.CharField(source="display_name", read_only=True)
    file_name = serializers.SerializerMethodField(help_text="As it was sent; for operators only, else null.")
    since = serializers.DateTimeField(source="state_since", read_only=True)
    stage = serializers.SerializerMethodField()
    progress = serializers.SerializerMethodField()
    job = serializers.SerializerMethodField()
    check_job = serializers.SerializerMethodField(help_text="The check of every tile, where it is a job of its own.")

    class Meta:
        model = Slide
        fields = [
            "id", "case", "node", "name", "file_name", "state", "reason_code", "reason", "stage", "progress", "since",
            "format", "width", "height", "mpp_x", "mpp_y", "mpp_source", "scale_state", "size_bytes", "tissue_mm2",
            "tile_check", "tile_check_reason", "corrupt_tiles", "missing_tiles", "quality", "job", "check_job",
        ]  # fmt: skip
        read_only_fields = fields

    def get_file_name(self, slide: Slide) -> str | None:
        return slide.file_name if self.context["user"].has_role(Role.OPERATOR, Role.ADMINISTRATOR) else None

    def get_stage(self, slide: Slide) -> str:
        job = self._live_job(slide)
        return job.stage if job else ""

    def get_progress(self, slide: Slide) -> float | None:
        job = self._live_job(slide)
        return job.progress if job else None

    @extend_schema_field(JobSerializer(allow_null=True))
    def get_job(self, slide: Slide) -> dict[str, Any] | None:
        job = self.context["jobs"].get(slide.pk)
        return JobSerializer(job).data if job else None

    @extend_schema_field(JobSerializer(allow_null=True))
    def get_check_job(self, slide: Slide) -> dict[str, Any] | None:
        job = self.context["checks"].get(slide.pk)
        return JobSerializer(job).data if job else None

    def _live_job(self, slide: Slide) -> Job | None:
        jobs = (self.context[name].get(slide.pk) for name in ("jobs", "checks"))
        return next((job for job in jobs if job is not None and job.state in LIVE), None)


def newest_jobs(slides: list[Slide], *, kind: JobKind) -> dict[Any, Job]:
    """{slide id: newest job of the kind} in one query."""
    jobs = Job.objects.filter(kind=kind, subject_id__in=[slide.pk for slide in slides])
    return {job.subject_id: job for job in jobs.order_by("subject_id", "-created_at").distinct("subject_id")}


def jobs_of(slides: list[Slide]) -> dict[str, dict[Any, Job]]:
    """The context of SlideSerializer."""
    return {
        "jobs": newest_jobs(slides, kind=JobKind.PREPARE_SLIDE),
        "checks": newest_jobs(slides, kind=JobKind.CHECK_SLIDE),
    }


class HeldStoreSerializer(serializers.Serializer[Any]):
    store = serializers.CharField(
        max_length=32, required=False, allow_blank=True, default="", help_text="Name of the tiles the page has open."
    )


class UploadSerializer(serializers.ModelSerializer[Upload]):
    filename = serializers.CharField(source="file_name", read_only=True)
    case = serializers.CharField(source="case.accession", read_only=True)
    node = serializers.CharField(source="node_label", read_only=True)
    size = serializers.IntegerField(source="length", read_only=True)
    sha256 = serializers.CharField(source="claimed_sha256", read_only=True, help_text="As it was announced.")
    url = serializers.SerializerMethodField()

    class Meta:
        model = Upload
        fields = [
            "id", "url", "filename", "case", "node", "size", "offset", "sha256", "state", "reason", "created_at",
            "touched_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_url(self, upload: Upload) -> str:
        return reverse("upload", args=[upload.pk])


class ScaleSerializer(serializers.Serializer[Any]):
    mpp_x = serializers.FloatField(min_value=PLAUSIBLE_MPP[0], max_value=PLAUSIBLE_MPP[1])
    mpp_y = serializers.FloatField(min_value=PLAUSIBLE_MPP[0], max_value=PLAUSIBLE_MPP[1])
    reason = serializers.CharField(max_length=300)


class ReasonSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=300)


class LinkSerializer(serializers.Serializer[Any]):
    case = serializers.CharField(max_length=64)
    node = serializers.CharField(max_length=64, required=False, allow_blank=True, default="")


class ImportSerializer(serializers.Serializer[Any]):
    path = serializers.CharField(max_length=1000)
    case = serializers.CharField(max_length=64)
    node = serializers.CharField(max_length=64, required=False, allow_blank=True, default="")


class AcceptedSerializer(serializers.Serializer[Any]):
    """202: the job that was started, if any."""

    job = JobSerializer(allow_null=True)


class RefusedImportSerializer(serializers.Serializer[Any]):
    file = serializers.CharField()
    reason = serializers.CharField()


class ImportedSerializer(serializers.Serializer[Any]):
    slides = serializers.ListField(child=serializers.UUIDField())
    refused = RefusedImportSerializer(many=True)


class OpenedSerializer(serializers.Serializer[Any]):
    tiles = serializers.CharField()
    descriptor = serializers.DictField()
    thumbnail = serializers.CharField()
    expires_in = serializers.IntegerField()
    newer_tiles = serializers.BooleanField(help_text="The slide was prepared anew; opened again, it shows those tiles.")


class ErrorSerializer(serializers.Serializer[Any]):
    error = serializers.CharField()
    message = serializers.CharField()
