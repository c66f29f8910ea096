from django.db import models


class JobKind(models.TextChoices):
    PREPARE_SLIDE = "prepare_slide", "prepare slide"
    CHECK_SLIDE = "check_slide", "check every tile"
    DETECT = "detect", "detect metastases"
    EVALUATE_MODEL = "evaluate_model", "evaluate model version"


class JobState(models.TextChoices):
    QUEUED = "queued", "waiting"
    RUNNING = "running", "running"
    DONE = "done", "done"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


LIVE = (JobState.QUEUED, JobState.RUNNING)

# Celery task and queue of each kind; the names are those of the tasks.py leaves.
TASK_OF: dict[str, tuple[str, str]] = {
    JobKind.PREPARE_SLIDE: ("slides.prepare_slide", "ingest"),
    JobKind.CHECK_SLIDE: ("slides.check_slide", "check"),
    JobKind.DETECT: ("analysis.detect", "detect"),
    JobKind.EVALUATE_MODEL: ("analysis.evaluate_model", "evaluate"),
}
