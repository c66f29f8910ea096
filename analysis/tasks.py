from uuid import UUID

from celery import shared_task

from analysis import evaluating, runs
from jobs import running


@shared_task(name="analysis.detect")  # type: ignore[untyped-decorator]  # celery has no types
def detect(job_id: str) -> None:
    running.run(job_id=UUID(job_id), handler=runs.do_detection, on_ended_badly=runs.record_bad_end)


@shared_task(name="analysis.evaluate_model")  # type: ignore[untyped-decorator]  # celery has no types
def evaluate_model(job_id: str) -> None:
    running.run(job_id=UUID(job_id), handler=evaluating.do_evaluation, on_ended_badly=evaluating.record_bad_end)
