"""Leases, fences and the reconciler: one result, whatever the broker and the workers do."""

import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from jobs import queue, running, schedule
from jobs.enums import JobKind, JobState
from jobs.errors import JobCancelled, JobFailed, LeaseLost, NotCancellable
from jobs.models import Job

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_broker(settings):
    """Nothing listens there: every test also shows that a lost message loses no job."""
    settings.LEASE_SECONDS = 30


@pytest.fixture
def ended_badly(monkeypatch) -> list[Job]:
    seen: list[Job] = []
    monkeypatch.setitem(schedule.ON_ENDED_BADLY, JobKind.DETECT, seen.append)
    return seen


def make_job(**parameters: object) -> Job:
    return queue.enqueue(kind=JobKind.DETECT, subject_id=uuid4(), parameters=parameters)


def expire(job: Job) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_job SET lease_until = clock_timestamp() - interval '1 s' WHERE id = %s", [job.pk])


def finish(job: Job, lease: running.Lease) -> None:
    with transaction.atomic():
        running.complete(lease=lease)


def test_the_same_work_is_in_the_queue_once():
    subject = uuid4()
    jobs = [queue.enqueue(kind=JobKind.DETECT, subject_id=subject, parameters={"a": 1}) for _ in range(3)]
    assert len({job.pk for job in jobs}) == 1
    other = queue.enqueue(kind=JobKind.DETECT, subject_id=subject, parameters={"a": 2})
    assert other.pk != jobs[0].pk


def test_a_job_is_kept_when_the_broker_is_away():
    job = make_job()
    assert job.sent_at is None
    assert queue.send(job.pk, job.kind) is False
    assert (job.pk, job.kind) in queue.jobs_to_send()


def test_a_job_is_done_once_however_often_its_message_comes():
    job = make_job()
    done = []

    def handler(job: Job, lease: running.Lease) -> None:
        done.append(job.pk)
        finish(job, lease)

    states = [running.run(job_id=job.pk, handler=handler, on_ended_badly=done.append) for _ in range(3)]
    assert states == [JobState.DONE, None, None]
    assert done == [job.pk]


def test_of_many_claims_at_once_one_wins():
    job = make_job()
    barrier = threading.Barrier(8)
    won: list[Job | None] = []

    def try_to_claim(name: str) -> None:
        barrier.wait()
        try:
            won.append(queue.claim(job_id=job.pk, owner=name))
        finally:
            connection.close()

    threads = [threading.Thread(target=try_to_claim, args=[f"worker {n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([claim for claim in won if claim is not None]) == 1


def test_a_worker_that_lost_its_lease_keeps_nothing():
    """The zombie: paused, replaced by another worker, then goes on."""
    job = make_job()
    slow = queue.claim(job_id=job.pk, owner="slow")
    expire(job)
    quick = queue.claim(job_id=job.pk, owner="quick")
    assert slow is not None
    assert quick is not None
    assert quick.fence == slow.fence + 1
    with pytest.raises(LeaseLost):
        finish(slow, running.Lease(slow))
    finish(quick, running.Lease(quick))
    job.refresh_from_db()
    assert (job.state, job.attempt) == (JobState.DONE, 2)


def test_a_zombie_notices_at_its_next_report():
    job = make_job()
    slow = queue.claim(job_id=job.pk, owner="slow")
    assert slow is not None
    lease = running.Lease(slow)
    expire(job)
    queue.claim(job_id=job.pk, owner="quick")
    lease.report("network", 1.0)
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_silent_worker_is_replaced():
    job = make_job()
    queue.claim(job_id=job.pk, owner="killed")
    assert (job.pk, job.kind) not in queue.jobs_to_send()
    expire(job)
    assert (job.pk, job.kind) in queue.jobs_to_send()


def age_of_message(job: Job, seconds: int) -> None:
    Job.objects.filter(pk=job.pk).update(sent_at=Now() - timedelta(seconds=seconds))


def test_a_waiting_job_is_sent_again_only_while_nobody_is_busy_with_its_kind():
    busy, waiting = make_job(), make_job()
    queue.claim(job_id=busy.pk, owner="worker")
    age_of_message(waiting, 60)
    assert queue.jobs_to_send() == []  # its message is behind the busy worker's
    expire(busy)
    assert {job_id for job_id, _ in queue.jobs_to_send()} == {busy.pk, waiting.pk}


def test_a_message_from_long_ago_is_sent_again_whoever_is_busy():
    busy, waiting = make_job(), make_job()
    queue.claim(job_id=busy.pk, owner="worker")
    age_of_message(waiting, 3600)
    assert [job_id for job_id, _ in queue.jobs_to_send()] == [waiting.pk]


def test_a_round_sends_the_oldest_jobs_and_not_all_of_a_long_queue():
    jobs = [make_job() for _ in range(queue.SENT_PER_ROUND + 5)]
    assert [job_id for job_id, _ in queue.jobs_to_send()] == [job.pk for job in jobs[: queue.SENT_PER_ROUND]]


def test_a_job_that_kills_its_worker_is_given_up_after_three_attempts(ended_badly):
    job = make_job()
    for _ in range(3):
        assert queue.claim(job_id=job.pk, owner="killed") is not None
        expire(job)
    assert queue.claim(job_id=job.pk, owner="again") is None
    schedule.reconcile()
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "stopped unexpectedly 3 times" in job.error
    assert [bad.pk for bad in ended_badly] == [job.pk]


def test_an_unexpected_error_is_tried_again_then_given_up():
    job = make_job()
    ended: list[Job] = []

    def handler(job: Job, lease: running.Lease) -> None:
        raise OSError("disk trouble")

    states = [running.run(job_id=job.pk, handler=handler, on_ended_badly=ended.append) for _ in range(4)]
    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED, None]
    job.refresh_from_db()
    assert "disk trouble" in job.error
    assert len(ended) == 1


def test_a_reason_in_words_ends_a_job_at_once():
    job = make_job()

    def handler(job: Job, lease: running.Lease) -> None:
        raise JobFailed("The slide has no scale.")

    assert running.run(job_id=job.pk, handler=handler, on_ended_badly=lambda job: None) == JobState.FAILED
    job.refresh_from_db()
    assert (job.error, job.attempt) == ("The slide has no scale.", 1)


def test_a_handler_that_forgets_to_complete_is_an_error():
    job = make_job()
    assert (
        running.run(job_id=job.pk, handler=lambda job, lease: None, on_ended_badly=lambda job: None) == JobState.QUEUED
    )


def test_a_waiting_job_is_cancelled_at_once():
    job = queue.request_cancel(job_id=make_job().pk)
    assert job.state == JobState.CANCELLED
    assert queue.claim(job_id=job.pk, owner="late") is None
    with pytest.raises(NotCancellable):
        queue.request_cancel(job_id=job.pk)


def test_a_running_job_sees_the_wish_to_cancel():
    job = make_job()
    ended: list[Job] = []

    def handler(job: Job, lease: running.Lease) -> None:
        queue.request_cancel(job_id=job.pk)
        lease.report("network", 1.0)
        lease.check()

    assert running.run(job_id=job.pk, handler=handler, on_ended_badly=ended.append) == JobState.CANCELLED
    assert len(ended) == 1


def test_a_cancelled_job_whose_worker_died_ends(ended_badly):
    job = make_job()
    queue.claim(job_id=job.pk, owner="killed")
    queue.request_cancel(job_id=job.pk)
    expire(job)
    schedule.reconcile()
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def test_a_result_and_its_job_are_kept_together_or_not_at_all():
    job = make_job()
    claimed = queue.claim(job_id=job.pk, owner="worker")
    assert claimed is not None
    with pytest.raises(JobCancelled), transaction.atomic():
        running.complete(lease=running.Lease(claimed))
        raise JobCancelled("in the same transaction")
    job.refresh_from_db()
    assert job.state == JobState.RUNNING


def test_one_failing_duty_does_not_stop_the_others(monkeypatch):
    done = []

    def fails() -> None:
        raise RuntimeError("broken duty")

    monkeypatch.setattr(schedule, "DUTIES", {"fail": fails, "work": lambda: done.append(1)})
    schedule.tick()
    assert done == [1]
