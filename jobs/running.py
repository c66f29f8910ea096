"""Doing a claimed job: heartbeat, progress, the fence on every write, and what becomes of errors."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models.functions import Now

from jobs import queue
from jobs.enums import JobState
from jobs.errors import JobCancelled, JobFailed, LeaseLost
from jobs.models import Job

log = logging.getLogger(__name__)

BEAT = """
UPDATE jobs_job SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
 WHERE id = %(id)s AND fence = %(fence)s AND state = 'running' RETURNING cancel_requested
"""


class Lease:
    """The right to work on one job. A thread keeps it alive; `check()` raises as soon as it is lost or no longer wanted."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.job_id = job.pk
        self.fence = job.fence
        self._lost = False
        self._cancelled = False
        self._stop = threading.Event()
        self._last_progress = 0.0
        self._thread = threading.Thread(target=self._keep_alive, name=f"heartbeat {job.pk}", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def check(self) -> None:
        """Raises LeaseLost or JobCancelled."""
        if self._lost:
            raise LeaseLost
        if self._cancelled:
            raise JobCancelled("Cancelled by request.")

    def should_stop(self) -> bool:
        return self._lost or self._cancelled

    def report(self, stage: str, fraction: float) -> None:
        """Shows progress (at most twice a second) and sees a wish to cancel."""
        now = time.monotonic()
        if now - self._last_progress < 0.5 and fraction < 1.0:
            return
        self._last_progress = now
        row = Job.objects.filter(pk=self.job_id, fence=self.fence, state=JobState.RUNNING)
        if not row.update(stage=stage[:60], progress=min(max(fraction, 0.0), 1.0)):
            self._lost = True
        elif row.values_list("cancel_requested", flat=True).first():
            self._cancelled = True

    def _keep_alive(self) -> None:
        try:
            while not self._stop.wait(settings.HEARTBEAT_SECONDS):
                self._beat()
        finally:
            connection.close()

    def _beat(self) -> None:
        try:
            with connection.cursor() as cursor:
                cursor.execute(BEAT, {"id": self.job_id, "fence": self.fence, "lease": settings.LEASE_SECONDS})
                row = cursor.fetchone()
        except (
            DatabaseError,
            InterfaceError,
        ) as error:  # the database is away: keep working, the fence decides at the end
            log.warning("No heartbeat for job %s: %s", self.job_id, error)
            connection.close()
            return
        if row is None:
            self._lost = True
        elif row[0]:
            self._cancelled = True


def complete(*, lease: Lease) -> None:
    """Marks the job done, inside the transaction that writes its results. Raises LeaseLost: then nothing may be kept."""
    assert connection.in_atomic_block, "results, state and event belong into one transaction"
    _end(lease=lease, state=JobState.DONE, progress=1.0, stage="")


def run(
    *,
    job_id: UUID,
    handler: Callable[[Job, Lease], None],
    on_ended_badly: Callable[[Job], None],
) -> JobState | None:
    """Claims and does one job; the state it ended in, or None when there was nothing to do here.

    `handler` must call complete() in the transaction of its results. `on_ended_badly` is called in the transaction that
    marks the job failed or cancelled, to record the event and to set the slide's state. An unexpected error puts the job
    back until its attempts are used up.
    """
    job = queue.claim(job_id=job_id, owner=f"{socket.gethostname()}:{os.getpid()}")
    if job is None:
        return None
    with Lease(job) as lease:
        try:
            handler(job, lease)
            if Job.objects.filter(pk=job_id, fence=lease.fence).exclude(state=JobState.DONE).exists():
                raise RuntimeError("the handler returned without complete()")
            return JobState.DONE
        except LeaseLost:
            log.warning("Job %s belongs to another worker now; its work here is dropped.", job_id)
            return None
        except JobCancelled as error:
            return _end_badly(lease, JobState.CANCELLED, str(error), on_ended_badly)
        except JobFailed as error:
            return _end_badly(lease, JobState.FAILED, str(error), on_ended_badly)
        except Exception as error:
            log.exception("Job %s failed at attempt %d.", job_id, job.attempt)
            words = f"Unexpected error ({type(error).__name__}: {error})"
            if job.attempt >= job.max_attempts:
                return _end_badly(lease, JobState.FAILED, f"{words}; tried {job.attempt} times.", on_ended_badly)
            return _put_back(lease, words)


def give_up_silent(*, on_ended_badly: Callable[[Job], None]) -> int:
    """Ends running jobs whose worker has gone and whose attempts are used up; how many."""
    count = 0
    for job in queue.jobs_given_up():
        with transaction.atomic():
            state = JobState.CANCELLED if job.cancel_requested else JobState.FAILED
            words = (
                "Cancelled by request."
                if job.cancel_requested
                else f"The worker stopped unexpectedly {job.attempt} times."
            )
            ended = Job.objects.filter(
                pk=job.pk, fence=job.fence, state=JobState.RUNNING, lease_until__lt=Now()
            ).update(state=state, error=words, fence=job.fence + 1, finished_at=Now(), lease_until=None)
            if ended:
                job.refresh_from_db()
                on_ended_badly(job)
                count += 1
    return count


def _end_badly(lease: Lease, state: JobState, words: str, on_ended_badly: Callable[[Job], None]) -> JobState | None:
    try:
        with transaction.atomic():
            _end(lease=lease, state=state, error=words)
            lease.job.refresh_from_db()
            on_ended_badly(lease.job)
    except LeaseLost:
        return None
    return state


def _put_back(lease: Lease, words: str) -> JobState | None:
    changed = Job.objects.filter(pk=lease.job_id, fence=lease.fence, state=JobState.RUNNING).update(
        state=JobState.QUEUED, error=words, lease_until=None, sent_at=None, stage=""
    )
    return JobState.QUEUED if changed else None


def _end(*, lease: Lease, state: JobState, **changes: Any) -> None:
    changed = Job.objects.filter(pk=lease.job_id, fence=lease.fence, state=JobState.RUNNING).update(
        state=state, finished_at=Now(), lease_until=None, **changes
    )
    if not changed:
        raise LeaseLost
