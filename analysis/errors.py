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
    """These files are no model version that can be trusted."""

    code = "model_refused"


class ModelTooLarge(ModelRefused):
    code = "model_too_large"


class NotEvaluated(ModelRefused):
    """Only a version with a finished evaluation of exactly its weights may be activated."""

    code = "not_evaluated"


class NotActive(ModelRefused):
    code = "not_active"


class CannotEvaluate(AnalysisError):
    """The evaluation set is not there, or nothing can be measured on it."""

    code = "cannot_evaluate"
