"""Errors of jobs."""


class JobsError(Exception):
    code = "job"


class LeaseLost(JobsError):
    """Another worker owns this job now, or it was ended: whatever this worker made must not be kept."""

    code = "lease_lost"

    def __init__(self) -> None:
        super().__init__("This worker no longer holds the job.")


class JobCancelled(JobsError):
    """Raised inside a handler when the person's wish to cancel was seen."""

    code = "cancelled"


class JobFailed(JobsError):
    """A reason in words why the job cannot succeed, however often it is tried."""

    code = "job_failed"


class NotCancellable(JobsError):
    code = "not_cancellable"

    def __init__(self) -> None:
        super().__init__("This job has ended already.")
