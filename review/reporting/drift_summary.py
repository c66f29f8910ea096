"""Whether the slides of late are still like those a model version was validated on: means over its newest runs."""

import math
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Window
from django.db.models.functions import RowNumber

from accounts.models import User
from analysis.detector.drift import STAIN, WORDS, in_words
from analysis.enums import RunStatus
from analysis.models import ModelVersion, Run
from review import visibility

NEWEST_RUNS = 50
SHOWN = ("haematoxylin", "eosin", "saturation", "feature_distance")
FEWEST_RUNS = 5
"""Below this number no shift is called one."""
SHIFTED_SD = 1.0
"""A mean this far from the reference has shifted, if chance alone would hardly move it so far (3 / sqrt(n))."""


@dataclass(frozen=True)
class Shift:
    """Mean of a statistic over the runs, in SD of the reference slides; None where no run carries it."""

    words: str
    mean_z: float | None
    shifted: bool


@dataclass(frozen=True)
class DriftRow:
    model_version: ModelVersion
    profile: str
    runs: int
    shifts: tuple[Shift, ...]
    unlike: int
    """Runs that were themselves said to be unlike the reference slides."""
    incomplete: int
    cannot_assess: int

    @property
    def has_reference(self) -> bool:
        return any(shift.mean_z is not None for shift in self.shifts)


def drift_rows(*, user: User) -> list[DriftRow]:
    """One for each model version and profile, newest first. Counts only runs that the auditor may count now."""
    newest = Window(
        RowNumber(), partition_by=[F("model_version_id"), F("profile")], order_by=[F("created_at").desc(), F("pk")]
    )
    runs = visibility.runs_for_statistics(user=user, model_version_id=None)
    grouped: dict[tuple[Any, str], list[Run]] = {}
    for run in runs.annotate(number=newest).filter(number__lte=NEWEST_RUNS).order_by("-created_at"):
        grouped.setdefault((run.model_version_id, run.profile), []).append(run)
    return [_row(runs) for runs in grouped.values()]


def _row(runs: list[Run]) -> DriftRow:
    statuses = [run.status for run in runs]
    return DriftRow(
        model_version=runs[0].model_version,
        profile=runs[0].profile,
        runs=len(runs),
        shifts=tuple(_shift(name, runs) for name in SHOWN),
        unlike=sum(bool(in_words(run.drift)) for run in runs),
        incomplete=statuses.count(RunStatus.INCOMPLETE),
        cannot_assess=statuses.count(RunStatus.CANNOT_ASSESS),
    )


def _shift(name: str, runs: list[Run]) -> Shift:
    words = WORDS[name] if name in STAIN else f"{WORDS[name]} (distance)"
    z = [float(run.drift[f"z_{name}"]) for run in runs if f"z_{name}" in run.drift]
    if not z:
        return Shift(words, None, False)
    mean = sum(z) / len(z)
    limit = max(SHIFTED_SD, 3 / math.sqrt(len(z)))
    return Shift(words, mean, len(z) >= FEWEST_RUNS and abs(mean) > limit)
