"""How much a form may bring. Slides come in pieces by another way; forms bring model versions alone."""

from typing import Any

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler, StopUpload

CARD_ROOM_BYTES = 4 * 2**20
"""Beside the weights: the card, and the form itself."""


class SizeLimit(FileUploadHandler):
    """Keeps nothing above the limit: Django would otherwise fill the disk before any view could look.

    The view finds no files and `upload_too_large` on its request; the rest of the body is read and dropped, because a
    browser shows no answer that comes while it is still sending.
    """

    def __init__(self, request: Any = None) -> None:
        super().__init__(request)
        self._received = 0
        self._announced = 0

    def handle_raw_input(
        self, input_data: Any, META: Any, content_length: int, boundary: Any, encoding: Any = None
    ) -> None:
        self._announced = content_length

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self._received += len(raw_data)
        if max(self._received, self._announced) > settings.MODEL_UPLOAD_MAX_BYTES + CARD_ROOM_BYTES:
            if self.request is not None:
                self.request.upload_too_large = True  # type: ignore[attr-defined]
            raise StopUpload(connection_reset=False)
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None
