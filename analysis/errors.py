"""Errors of analysis."""

from typing import Any


class AnalysisError(Exception):
    code = "analysis"

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.extra = extra


class NoActiveModel(AnalysisError):
    code = "no_active_model"


class CannotDetect(AnalysisError):
    """The slide is in no state for detection: not ready, or without a scale."""

    code = "cannot_detect"


class ModelRefused(AnalysisError):
    code = "model_refused"
