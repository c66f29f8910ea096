"""What the ingest worker is told to do. Everything is decided by the job's row (jobs/running.py)."""

from uuid import UUID

from celery import shared_task

from jobs.running import run
from slides.ingest import check_ended_badly, preparation_ended_badly
from slides.preparing import check, prepare


@shared_task(name="slides.prepare_slide")  # type: ignore[untyped-decorator]  # celery publishes no types
def prepare_slide(job_id: str) -> None:
    run(job_id=UUID(job_id), handler=prepare, on_ended_badly=preparation_ended_badly)


@shared_task(name="slides.check_slide")  # type: ignore[untyped-decorator]  # celery publishes no types
def check_slide(job_id: str) -> None:
    run(job_id=UUID(job_id), handler=check, on_ended_badly=check_ended_badly)
