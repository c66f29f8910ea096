"""Putting work into the queue, claiming it, and the reconciler that makes up for whatever the broker loses."""

import hashlib
import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from audit_trail.canonical import canonical_json
from jobs.enums import LIVE, TASK_OF, JobKind, JobState
from jobs.errors import NotCancellable
from jobs.models import Job

log = logging.getLogger(__name__)

SENT_PER_ROUND = 10
LONG_AGO = timedelta(minutes=10)
BROKER_AWAY = (KombuError, RedisError, OSError)


@transaction.atomic
def enqueue(
    *,
    kind: JobKind,
    subject_id: UUID,
    parameters: dict[str, Any] | None = None,
    requested_by_id: UUID | None = None,
) -> Job:
    """The live job for this work: a new one, or the one that is in the queue already.

    The message goes out after the commit; when the broker cannot be reached the reconciler sends it later.
    """
    parameters = parameters or {}
    digest = hashlib.sha256(canonical_json(parameters).encode()).hexdigest()
    job, made = Job.objects.get_or_create(
        kind=kind,
        subject_id=subject_id,
        parameters_sha256=digest,
        state__in=LIVE,
        defaults={"parameters": parameters, "requested_by_id": requested_by_id, "state": JobState.QUEUED},
    )
    if made:
        transaction.on_commit(lambda: send(job.pk, job.kind))
    return job


def send(job_id: UUID, kind: str) -> bool:
    """Tells a worker about the job. False when the broker cannot be reached: nothing is lost, the reconciler tries again."""
    task, queue = TASK_OF[kind]
    try:
        current_app.send_task(task, args=[str(job_id)], queue=queue, retry=False)
    except BROKER_AWAY as error:
        log.warning("The broker cannot be reached (%s); job %s waits for the scheduler.", error, job_id)
        return False
    Job.objects.filter(pk=job_id).update(sent_at=Now())
    return True


CLAIM = """
UPDATE jobs_job SET state = 'running', attempt = attempt + 1, fence = fence + 1, lease_owner = %(owner)s,
       lease_until = clock_timestamp() + make_interval(secs => %(lease)s), error = '',
       started_at = COALESCE(started_at, clock_timestamp())
 WHERE id = (SELECT id FROM jobs_job
              WHERE id = %(id)s AND attempt < max_attempts AND NOT cancel_requested
                AND (state = 'queued' OR (state = 'running' AND lease_until < clock_timestamp()))
                FOR UPDATE SKIP LOCKED)
RETURNING fence
"""


def claim(*, job_id: UUID, owner: str) -> Job | None:
    """The job with a fresh fence, or None: someone else has it, it has ended, or it was tried too often."""
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, {"id": job_id, "owner": owner, "lease": settings.LEASE_SECONDS})
        if cursor.fetchone() is None:
            return None
    return Job.objects.get(pk=job_id)


@transaction.atomic
def request_cancel(*, job_id: UUID) -> Job:
    """Asks for the end of a job. A waiting one ends at once, a running one at its next block. Raises NotCancellable."""
    job = Job.objects.select_for_update().get(pk=job_id)
    if job.state not in LIVE:
        raise NotCancellable
    job.cancel_requested = True
    if job.state == JobState.QUEUED:
        job.state = JobState.CANCELLED
        job.finished_at = Now()
    job.save(update_fields=["cancel_requested", "state", "finished_at"])
    job.refresh_from_db()
    return job


def jobs_to_send() -> list[tuple[UUID, str]]:
    """Waiting jobs that no message may be left of, and running ones whose worker has gone silent.

    While a worker is busy with the same kind, a waiting job's message is taken to be in the broker still. At most
    SENT_PER_ROUND of a kind, the oldest, so that messages do not pile up where no worker runs.
    """
    round_ago = Now() - timedelta(seconds=settings.RECONCILE_SECONDS)
    busy = Job.objects.filter(kind=OuterRef("kind"), state=JobState.RUNNING, lease_until__gte=Now())
    never_sent = Q(sent_at=None) | Q(sent_at__lt=Now() - LONG_AGO)
    forgotten = Q(sent_at__lt=round_ago) & ~Exists(busy)
    silent = Q(state=JobState.RUNNING, lease_until__lt=Now(), attempt__lt=F("max_attempts"), cancel_requested=False)
    found = Job.objects.filter(Q(state=JobState.QUEUED) & (never_sent | forgotten) | silent).order_by("created_at")
    return [row for kind in JobKind for row in found.filter(kind=kind).values_list("id", "kind")[:SENT_PER_ROUND]]


def jobs_given_up() -> list[Job]:
    """Running jobs whose worker has gone silent and that may not be tried again."""
    return list(
        Job.objects.filter(state=JobState.RUNNING, lease_until__lt=Now()).filter(
            Q(attempt__gte=F("max_attempts")) | Q(cancel_requested=True)
        )
    )
