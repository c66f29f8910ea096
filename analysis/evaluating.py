"""Evaluating a model version on a set that this installation has: asking, doing it in the worker, keeping the figures."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.db import transaction

from accounts.models import User
from analysis.enums import EvaluationKind, ModelState, Profile
from analysis.errors import CannotEvaluate
from analysis.evaluation_sets import EvaluationSet, evaluation_set
from analysis.models import Evaluation, ModelVersion
from analysis.models_registry import facts_of
from audit_trail.enums import EventKind, Outcome
from audit_trail.recording import record
from jobs import queue
from jobs.enums import LIVE, JobKind, JobState
from jobs.errors import JobFailed
from jobs.models import Job
from jobs.running import Lease, complete

if TYPE_CHECKING:  # torch is loaded in the worker's child only
    from analysis.detector.weights import LoadedModel


class Measured(NamedTuple):
    n: int
    figures: dict[str, Any]
    detail: list[dict[str, Any]]
    set_sha256: str


# --- asking ----------------------------------------------------------------------------------------
@transaction.atomic
def request_evaluation(
    *, model_version: ModelVersion, set_name: str, profile: Profile = Profile.STANDARD, actor: User
) -> Job:
    """The job that will measure it, or the one that does so already. Raises CannotEvaluate."""
    chosen = evaluation_set(set_name)
    parameters = {"set": chosen.name, "weights_sha256": model_version.sha256}
    if chosen.kind == EvaluationKind.SLIDES:
        parameters["profile"] = str(profile)
    job = queue.enqueue(
        kind=JobKind.EVALUATE_MODEL, subject_id=model_version.pk, parameters=parameters, requested_by_id=actor.pk
    )
    record(
        EventKind.MODEL_EVALUATION_REQUESTED,
        actor=actor,
        subject=model_version,
        details={**facts_of(model_version), **parameters, "job": str(job.pk)},
    )
    return job


@transaction.atomic
def cancel_evaluation(*, job: Job, actor: User) -> Job:
    """A waiting one ends at once, a running one at its next block. Raises NotCancellable."""
    job = queue.request_cancel(job_id=job.pk)
    if job.state not in LIVE:
        record_bad_end(job)
    record(
        EventKind.JOB_CANCEL_REQUESTED,
        actor=actor,
        subject=job,
        details={"job": str(job.kind), "state": str(job.state)},
    )
    return job


def evaluation_jobs(model_version: ModelVersion) -> list[Job]:
    """Newest first."""
    return list(Job.objects.filter(kind=JobKind.EVALUATE_MODEL, subject_id=model_version.pk).order_by("-created_at"))


# --- doing (in the worker) -------------------------------------------------------------------------
def do_evaluation(job: Job, lease: Lease) -> None:
    """The handler of an EVALUATE_MODEL job. Slides that were read before a kill are not read again."""
    model_version = ModelVersion.objects.get(pk=job.subject_id)
    try:
        chosen = evaluation_set(job.parameters["set"])
    except CannotEvaluate as error:
        raise JobFailed(str(error)) from error
    model = _load(model_version, weights_sha256=job.parameters["weights_sha256"])
    measured = _measure(model, chosen, job, lease)
    lease.check()
    finish_evaluation(job=job, lease=lease, model_version=model_version, chosen=chosen, measured=measured)
    shutil.rmtree(_work_folder(job), ignore_errors=True)


def _load(model_version: ModelVersion, *, weights_sha256: str) -> "LoadedModel":
    from analysis.detector.card import ModelRefused
    from analysis.detector.weights import load_model

    try:
        model = load_model(model_version.path)
    except ModelRefused as error:
        raise JobFailed(f"The model version cannot be loaded: {error}") from error
    if not model.sha256 == weights_sha256 == model_version.sha256:
        raise JobFailed("The weights on disk are not those of the registered model version. Nothing was measured.")
    # what was registered decides, not what the folder says of itself by now
    return dataclasses.replace(model, card=model_version.card)


def _measure(model: "LoadedModel", chosen: EvaluationSet, job: Job, lease: Lease) -> Measured:
    from analysis.detector.annotations import AnnotationError
    from analysis.detector.infer import DetectionCancelled, ScaleUnknown
    from analysis.detector.patch_file import PatchFileError
    from analysis.detector.slide_evaluation import ReferenceTableError
    from slides.wsi.errors import RefusalCode, SlideRefused

    try:
        if chosen.kind == EvaluationKind.PATCHES:
            return _measure_patches(model, chosen, lease)
        return _measure_slides(model, chosen, job, lease)
    except DetectionCancelled:
        lease.check()
        raise
    except SlideRefused as error:
        may_pass = error.code in {RefusalCode.DECODER_CRASHED, RefusalCode.DECODER_TIMEOUT}
        if may_pass and job.attempt < job.max_attempts:
            raise
        raise JobFailed(f"A slide of {chosen.name} could not be read: {error}") from error
    except (PatchFileError, ReferenceTableError, AnnotationError, ScaleUnknown, OSError) as error:
        raise JobFailed(f"{chosen.name} cannot be used: {error}") from error


def _measure_patches(model: "LoadedModel", chosen: EvaluationSet, lease: Lease) -> Measured:
    """On the fold that training kept aside, by the model's own configuration: on the others it would be praised for memory."""
    from analysis.detector.evaluate import evaluate_patches

    set_sha256 = chosen.sha256()
    fold = model.config.data.test_fold
    found = evaluate_patches(chosen.path, model, fold=fold, on_progress=_reporter(lease))
    if found["auc"] is None:
        raise JobFailed(
            f"Fold {fold} of {chosen.name} holds no patch with, or none without tumour: no AUC can be measured."
        )
    return Measured(n=found["n"], figures=_plain(found), detail=[], set_sha256=set_sha256)


def _measure_slides(model: "LoadedModel", chosen: EvaluationSet, job: Job, lease: Lease) -> Measured:
    from analysis.detector.detection_cache import DetectionCache
    from analysis.detector.slide_evaluation import is_composed, judge_folder
    from analysis.detector.slide_figures import summarise, threshold_of

    set_sha256 = chosen.sha256()
    profile = job.parameters["profile"]
    judged = judge_folder(
        chosen.path,
        model,
        profile=profile,
        say=lambda line: None,
        cache=DetectionCache(_work_folder(job)),
        on_progress=_reporter(lease),
        should_stop=lease.should_stop,
    )
    figures = summarise(
        judged,
        model=model,
        profile=profile,
        threshold=threshold_of(model, profile=profile),
        composed=is_composed(chosen.path),
    )
    if figures["slide_auc"] is None and figures["froc_2016"] is None:
        raise JobFailed(
            f"{chosen.name} holds no known lesion and nothing to tell apart: nothing can be measured on it."
        )
    detail = figures.pop("slides_detail")
    return Measured(n=len(judged), figures=_plain(figures), detail=_plain(detail), set_sha256=set_sha256)


def _reporter(lease: Lease) -> Callable[[str, float], None]:
    """Progress that never goes back; raises when the lease is lost or the job is no longer wanted."""
    furthest = 0.0

    def report(stage: str, fraction: float) -> None:
        nonlocal furthest
        furthest = max(furthest, min(fraction, 0.99))
        lease.report(stage, furthest)
        lease.check()

    return report


def _plain(value: Any) -> Any:
    """As JSON keeps it: a number that could not be measured is null."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@transaction.atomic
def finish_evaluation(
    *, job: Job, lease: Lease, model_version: ModelVersion, chosen: EvaluationSet, measured: Measured
) -> Evaluation:
    """Keeps the figures and ends the job, in one transaction. Raises LeaseLost: then nothing was kept."""
    model_version = ModelVersion.objects.select_for_update().get(pk=model_version.pk)
    evaluation = Evaluation.objects.create(
        model_version=model_version,
        kind=chosen.kind,
        set_name=chosen.name,
        set_sha256=measured.set_sha256,
        profile=job.parameters.get("profile", ""),
        n=measured.n,
        figures=measured.figures,
        detail=measured.detail,
        weights_sha256=job.parameters["weights_sha256"],
        software_version=settings.VERSION,
        job_id=job.pk,
        requested_by_id=job.requested_by_id,
    )
    if model_version.state == ModelState.REGISTERED:
        model_version.state = ModelState.EVALUATED
        model_version.save(update_fields=["state"])
    complete(lease=lease)
    record(
        EventKind.MODEL_EVALUATED,
        actor=None,
        subject=model_version,
        details={
            **facts_of(model_version),
            "evaluation": str(evaluation.pk),
            "set": chosen.name,
            "set_sha256": measured.set_sha256,
            "profile": evaluation.profile,
            "n": measured.n,
            "figures": {figure.name: figure.value for figure in evaluation.main_figures},
            "job": str(job.pk),
            "attempt": job.attempt,
        },
    )
    return evaluation


def record_bad_end(job: Job) -> None:
    """The event of an evaluation that failed or was cancelled, in the transaction that ends it."""
    model_version = ModelVersion.objects.get(pk=job.subject_id)
    cancelled = job.state == JobState.CANCELLED
    record(
        EventKind.MODEL_EVALUATION_CANCELLED if cancelled else EventKind.MODEL_EVALUATION_FAILED,
        actor=None,
        subject=model_version,
        details={
            **facts_of(model_version),
            "set": job.parameters["set"],
            "reason": job.error,
            "attempt": job.attempt,
            "job": str(job.pk),
        },
        outcome=Outcome.OK if cancelled else Outcome.FAILED,
    )
    shutil.rmtree(_work_folder(job), ignore_errors=True)


def _work_folder(job: Job) -> Path:
    return Path(settings.METADET_HOME) / "work" / str(job.pk)
