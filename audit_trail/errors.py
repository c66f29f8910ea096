"""Errors of the trail."""


class TrailError(Exception):
    code = "trail"


class NotInTransaction(TrailError):
    """record() was called outside of a transaction: the act and its event could part."""

    def __init__(self) -> None:
        super().__init__("A trail event must be written in the transaction of the act it records.")
