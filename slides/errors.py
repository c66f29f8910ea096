"""Errors of slides, in words for the person who meets them. The HTTP status of each stands in metadet_site/api_errors.py."""

from typing import Any


class SlidesError(Exception):
    code = "slides"

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.extra = extra


class UploadConflict(SlidesError):
    """Another request writes this upload, or its offset is not the one the sender believes."""

    code = "upload_conflict"


class PieceDamaged(SlidesError):
    """What arrived of a piece is not what its checksum says; it was forgotten."""

    code = "piece_damaged"


class UploadTooLarge(SlidesError):
    code = "upload_too_large"


class StorageFull(SlidesError):
    code = "storage_full"


class ImportRefused(SlidesError):
    code = "import_refused"


class WrongState(SlidesError):
    code = "wrong_state"


class UploadRefused(SlidesError):
    """The file will not become a slide, and sending it again as it is does not help."""

    code = "upload_refused"


class NotFoundHere(SlidesError):
    """A folder, case or picture that was asked for by name is not there."""

    code = "not_found_here"
