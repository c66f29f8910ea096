import uuid

from django.db import models
from django.db.models import Q

from jobs.enums import LIVE, JobKind, JobState


class Job(models.Model):
    """A piece of work for a worker. This row, not the broker's message, says who may do it and whether it is done.

    Whoever holds the lease carries its `fence`; a write with an older fence changes nothing (design 6.3).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=30, choices=JobKind.choices)
    subject_id = models.UUIDField(db_index=True, help_text="What this job works on: a slide, or a model version.")
    parameters = models.JSONField(default=dict)
    parameters_sha256 = models.CharField(max_length=64)
    state = models.CharField(max_length=12, choices=JobState.choices, default=JobState.QUEUED, db_index=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    max_attempts = models.PositiveSmallIntegerField(default=3)
    fence = models.BigIntegerField(default=0)
    lease_owner = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    stage = models.CharField(max_length=60, blank=True)
    progress = models.FloatField(default=0.0, help_text="0 to 1.")
    cancel_requested = models.BooleanField(default=False)
    error = models.TextField(blank=True, help_text="Why it failed, in words.")
    requested_by_id = models.UUIDField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # The same work is never in the queue twice.
            models.UniqueConstraint(
                fields=["kind", "subject_id", "parameters_sha256"],
                condition=Q(state__in=LIVE),
                name="one_live_job_per_work",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.id}"
