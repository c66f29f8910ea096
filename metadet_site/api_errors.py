"""The one table from errors of the apps to HTTP answers."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from accounts.errors import AccountsError
from analysis.errors import AnalysisError, ModelTooLarge, NotActive, NotEvaluated
from jobs.errors import JobsError
from review.errors import NotAllowedNow, ReviewError, Stale
from slides.errors import PieceDamaged, SlidesError, StorageFull, UploadConflict, UploadTooLarge

STATUS_OF: list[tuple[type[Exception], int]] = [
    # the first match decides: particular before general
    (Stale, 409),
    (NotAllowedNow, 409),
    (UploadConflict, 409),
    (PieceDamaged, 460),  # tus: Checksum Mismatch
    (UploadTooLarge, 413),
    (StorageFull, 507),
    (ModelTooLarge, 413),
    (NotEvaluated, 409),
    (NotActive, 409),
    (ReviewError, 400),
    (SlidesError, 400),
    (AnalysisError, 400),
    (JobsError, 400),
    (AccountsError, 400),
]


def status_of(error: Exception) -> int | None:
    return next((status for kind, status in STATUS_OF if isinstance(error, kind)), None)


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: {"error": code, "message": words, ...what the error carries}."""
    if (status := status_of(error)) is not None:
        extra = getattr(error, "extra", {})
        return Response({"error": getattr(error, "code", "refused"), "message": str(error)} | extra, status=status)
    if isinstance(error, Http404 | exceptions.NotFound):
        return Response(
            {"error": "not_found", "message": "There is no such thing here, or you may not see it."},
            status=404,
        )
    response = exception_handler(error, context)
    if response is None:
        return None
    if isinstance(error, exceptions.ValidationError):
        response.data = {"error": "invalid", "message": "The request is not valid.", "fields": response.data}
    elif isinstance(error, exceptions.APIException | PermissionDenied):
        code = getattr(error, "default_code", "forbidden")
        detail = response.data.get("detail", "Refused.") if isinstance(response.data, dict) else "Refused."
        response.data = {"error": code, "message": str(detail)}
    return response
