"""Errors of review, in words for the reader who meets them."""

from typing import Any


class ReviewError(Exception):
    code = "review"

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.extra = extra


class NotAllowedNow(ReviewError):
    """The act does not fit the phase of the read or the state of the case."""

    code = "not_allowed_now"


class Stale(ReviewError):
    """Something changed since the person last looked; `extra["current"]` holds how it is now."""

    code = "stale"


class InvalidInput(ReviewError):
    code = "invalid"


class RecordChanged(NotAllowedNow):
    """The record is not the one that was shown for signing; `extra["differences"]` says where."""

    code = "record_changed"
