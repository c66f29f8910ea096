"""What the scheduler does again and again. Each duty is registered by the app it belongs to."""

import logging
from collections.abc import Callable

from django.db import connection

from jobs import queue
from jobs.enums import JobKind
from jobs.models import Job
from jobs.running import give_up_silent

log = logging.getLogger(__name__)

# What becomes of a job's subject when the job ends badly, by kind; filled by the apps' AppConfig.ready().
ON_ENDED_BADLY: dict[str, Callable[[Job], None]] = {}
# Other duties: name -> callable.
DUTIES: dict[str, Callable[[], None]] = {}


def reconcile() -> int:
    """Sends waiting and orphaned jobs again, ends those tried too often; how many were sent."""
    give_up_silent(on_ended_badly=lambda job: ON_ENDED_BADLY[job.kind](job))
    return sum(queue.send(job_id, kind) for job_id, kind in queue.jobs_to_send())


def tick() -> None:
    """One round. A duty that fails is logged and tried again in the next round; the others still run."""
    for name, duty in {"reconcile jobs": reconcile, **DUTIES}.items():
        try:
            duty()
        except Exception:
            log.exception("The scheduler could not %s; it tries again.", name)
            connection.close()


__all__ = ["DUTIES", "ON_ENDED_BADLY", "JobKind", "reconcile", "tick"]
