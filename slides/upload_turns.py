"""Whose turn it is to write an upload: one request at a time, over all processes.

A turn ends with its request, and with its process. A connection that was lost without a word (a cable pulled, a laptop
asleep) leaves its request waiting for bytes that never come: a turn that has been silent for a while is given to the
next one who asks, and whoever had it can write nothing more, whenever it wakes up.

Two files beside the upload: `.held` is locked for as long as a turn lasts, and touched with every piece; who takes a turn
over puts a new one in its place. `.lock` is locked for the moment of a change, or of writing one piece.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from slides.errors import UploadConflict

LONGEST_END_SECONDS = 1800.0  # to hash the largest file once more, on a slow disk


class Turn:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody takes the turn while the block runs. Raises UploadConflict when somebody has taken it."""
        with _moment(self._path):
            if os.fstat(self._descriptor).st_nlink == 0:
                raise UploadConflict("This upload was gone on with by another request.")
            os.utime(self._descriptor)
            yield

    def end_may_take_long(self) -> None:
        """The end of an upload is silent and not lost."""
        until = time.time() + LONGEST_END_SECONDS
        os.utime(self._descriptor, (until, until))


@contextmanager
def turn(path: Path) -> Iterator[Turn]:
    """The turn to write the upload at `path`. Raises UploadConflict while another request is at it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _taken(path)
    try:
        yield Turn(path, descriptor)
    finally:
        os.close(descriptor)


def forget_turns(path: Path) -> None:
    """For an upload that has ended; a request that is still at it can write nothing more."""
    for suffix in (".held", ".lock"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _taken(path: Path) -> int:
    held = path.with_suffix(".held")
    with _moment(path):
        descriptor = os.open(held, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            if not _locked(descriptor):
                silent_for = time.time() - os.fstat(descriptor).st_mtime
                if silent_for < settings.UPLOAD_SILENT_SECONDS:
                    raise UploadConflict(
                        "This upload is being sent by another request: in another window, or over a connection that "
                        "was lost a moment ago. Try again shortly."
                    )
                held.unlink()
                os.close(descriptor)
                descriptor = os.open(held, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
                _locked(descriptor)
            os.utime(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _moment(path: Path) -> Iterator[None]:
    with path.with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
