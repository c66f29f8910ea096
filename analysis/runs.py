"""Requesting a run, doing it in the worker, and keeping its result: all or nothing."""

import dataclasses
import gzip
import hashlib
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.conf import settings
from django.db import transaction

from accounts.models import User
from analysis.detector.calibration import calibrations_of
from analysis.enums import Profile, RunStatus, TriageBand
from analysis.errors import CannotDetect
from analysis.models import Lesion, ModelVersion, Run
from analysis.models_registry import active_model
from audit_trail.canonical import canonical_json
from audit_trail.enums import EventKind, Outcome
from audit_trail.recording import record
from jobs import queue
from jobs.enums import JobKind, JobState
from jobs.errors import JobFailed
from jobs.models import Job
from jobs.running import Lease, complete
from slides.enums import ScaleState, SlideState, TileCheck
from slides.models import Slide

if TYPE_CHECKING:  # torch is loaded in the worker's child only
    from analysis.detector.infer import Detection, LesionFinding

log = logging.getLogger(__name__)

FIELDS_PER_RUN = 24


# --- asking ----------------------------------------------------------------------------------------
def check_can_detect(slide: Slide) -> None:
    """Raises CannotDetect with what to do first."""
    if slide.deleted_at is not None:
        raise CannotDetect("The slide was deleted.")
    if slide.state != SlideState.READY:
        raise CannotDetect(f"The slide is {slide.get_state_display()}; detection needs one that is ready.")
    if slide.tile_check == TileCheck.FAILED:
        raise CannotDetect(
            "The tiles of the slide could not be checked, so damaged places are not known. Retry the slide; detection starts then."
        )
    if slide.tile_check != TileCheck.DONE:
        raise CannotDetect("The tiles of the slide are being checked. Detection starts by itself when that is done.")
    if slide.scale_state not in {ScaleState.OK, ScaleState.ENTERED}:
        raise CannotDetect("The scale of the slide is not known. Enter the um per pixel first; detection starts then.")


def parameters_of(*, slide: Slide, model_version: ModelVersion, profile: Profile) -> dict[str, Any]:
    """All that decides the result: the pixels, their scale, the weights and the profile."""
    return {
        "slide_sha256": slide.sha256,
        "mpp_x": slide.mpp_x,
        "mpp_y": slide.mpp_y,
        "model_version": str(model_version.pk),
        "weights_sha256": model_version.sha256,
        "profile": str(profile),
    } | _calibration_of(model_version, profile)


def _calibration_of(model_version: ModelVersion, profile: Profile) -> dict[str, str]:
    """Empty for a version that is not calibrated for this profile."""
    known = calibrations_of(model_version.card, weights_sha256=model_version.sha256).get(str(profile))
    return {"calibration": known.digest} if known else {}


@transaction.atomic
def request_run(*, slide: Slide, profile: Profile = Profile.STANDARD, actor: User | None) -> Job | None:
    """The job that will make the run, or None when exactly this result exists already.

    Raises CannotDetect, NoActiveModel.
    """
    check_can_detect(slide)
    parameters = parameters_of(slide=slide, model_version=active_model(), profile=profile)
    if Run.objects.filter(slide=slide, parameters_sha256=_digest(parameters)).exists():
        return None
    job = queue.enqueue(
        kind=JobKind.DETECT,
        subject_id=slide.pk,
        parameters=parameters,
        requested_by_id=actor.pk if actor else None,
    )
    details = {"profile": str(profile), "job": str(job.pk)}
    record(
        EventKind.RUN_REQUESTED, actor=actor, subject=slide, case_id=slide.case_id, slide_id=slide.pk, details=details
    )
    return job


def live_run(slide: Slide) -> Run | None:
    """The newest run of the active model on the slide's present file and scale; None when there is none."""
    if slide.mpp_x is None or slide.mpp_y is None:
        return None
    return (
        Run.objects.filter(
            slide=slide,
            model_version__state="active",
            slide_sha256=slide.sha256,
            mpp_x=slide.mpp_x,
            mpp_y=slide.mpp_y,
        )
        .select_related("model_version")
        .order_by("-created_at")
        .first()
    )


def latest_job(slide: Slide) -> Job | None:
    return Job.objects.filter(kind=JobKind.DETECT, subject_id=slide.pk).order_by("-created_at").first()


# --- doing (in the worker) -------------------------------------------------------------------------
def do_detection(job: Job, lease: Lease) -> None:
    """The handler of a DETECT job: pixels from the sandbox child, network here, result kept in one transaction."""
    slide = Slide.objects.select_related("case").get(pk=job.subject_id)
    model_version = ModelVersion.objects.get(pk=job.parameters["model_version"])
    _check_still_wanted(job, slide, model_version)
    work = _work_folder(job)
    work.mkdir(parents=True, exist_ok=True)
    detection, fields = _detect(slide, model_version, job, lease, work)
    lease.check()
    finish_run(job=job, lease=lease, slide=slide, model_version=model_version, detection=detection, fields=fields)
    shutil.rmtree(work, ignore_errors=True)


def _detect(
    slide: Slide, model_version: ModelVersion, job: Job, lease: Lease, work: Path
) -> "tuple[Detection, list[bytes]]":
    from analysis.detector import infer
    from analysis.detector.card import ModelRefused
    from analysis.detector.weights import load_model
    from slides.wsi.errors import RefusalCode, SlideRefused, WsiError
    from slides.wsi.sandbox import open_pixels

    try:
        model = load_model(model_version.path)
    except ModelRefused as error:
        raise JobFailed(f"The model version cannot be loaded: {error}") from error
    if model.sha256 != job.parameters["weights_sha256"]:
        raise JobFailed("The weights on disk are not those of the registered model version. Nothing was detected.")
    # what was registered decides, not what the folder says of itself by now
    model = dataclasses.replace(model, card=model_version.card)
    assert slide.mpp_x is not None
    assert slide.mpp_y is not None
    try:
        # the slide's own file, not its tile store: a place that cannot be read is hatched there like a picture, and would
        # be read as tissue instead of being counted as failed. The store only says which tiles of full resolution are
        # damaged: nobody can look there, so it counts as not read also where a coarser level of the file is whole
        with open_pixels(
            slide.source_path, mpp_override=(slide.mpp_x, slide.mpp_y), checked=slide.store_folder
        ) as source:
            detection = infer.detect(
                source,
                model,
                profile=job.parameters["profile"],
                on_progress=lease.report,
                should_stop=lease.should_stop,
                checkpoint_dir=work,
            )
            lease.check()
            return detection, infer.cut_fields(source, detection.lesions, max_fields=FIELDS_PER_RUN)
    except infer.DetectionCancelled:
        lease.check()
        raise
    except SlideRefused as error:
        may_pass = error.code in {RefusalCode.DECODER_CRASHED, RefusalCode.DECODER_TIMEOUT}
        if may_pass and job.attempt < job.max_attempts:
            raise
        raise JobFailed(f"The slide could not be read: {error}") from error
    except WsiError as error:  # its tile store is damaged
        raise JobFailed(f"{error} An operator can prepare the slide again.") from error


@transaction.atomic
def finish_run(
    *,
    job: Job,
    lease: Lease,
    slide: Slide,
    model_version: ModelVersion,
    detection: "Detection",
    fields: list[bytes],
) -> Run:
    """Keeps the result and ends the job, in one transaction. Raises LeaseLost: then nothing was kept."""
    grid = detection.heatmap.tobytes()
    run = Run(
        id=uuid4(),
        slide=slide,
        model_version=model_version,
        profile=job.parameters["profile"],
        parameters=job.parameters,
        parameters_sha256=job.parameters_sha256,
        job_id=job.pk,
        status=RunStatus(detection.status),
        status_reason=detection.status_reason,
        slide_score=detection.slide_score,
        slide_probability=detection.slide_probability,
        triage=TriageBand(detection.triage),
        triage_words=detection.triage_words,
        calibration=detection.calibration,
        quality=dict(detection.quality),
        threshold=model_version.threshold,
        tissue_mm2=detection.tissue.mm2,
        analysed_fraction=detection.tissue.analysed,
        failed_fraction=detection.tissue.failed,
        mpp_x=job.parameters["mpp_x"],
        mpp_y=job.parameters["mpp_y"],
        slide_sha256=job.parameters["slide_sha256"],
        seconds=dict(detection.seconds),
        drift=dict(detection.drift),
        software_version=settings.VERSION,
        heatmap_rows=detection.heatmap.shape[0],
        heatmap_cols=detection.heatmap.shape[1],
        heatmap_x0=detection.heatmap_x0,
        heatmap_y0=detection.heatmap_y0,
        heatmap_cell_x0=detection.heatmap_cell_px0[0],
        heatmap_cell_y0=detection.heatmap_cell_px0[1],
        heatmap_sha256=hashlib.sha256(grid).hexdigest(),
    )
    try:
        _write_files(run, grid, fields)
        run.save(force_insert=True)
        lesions = [_lesion(run, finding, has_field=i < len(fields)) for i, finding in enumerate(detection.lesions)]
        Lesion.objects.bulk_create(lesions)
        complete(lease=lease)
        record(
            EventKind.RUN_FINISHED,
            actor=None,
            subject=run,
            case_id=slide.case_id,
            slide_id=slide.pk,
            details={
                "status": run.status,
                "triage": run.triage,
                "calibration": run.calibration,
                "lesions": len(detection.lesions),
                "weights_sha256": model_version.sha256,
                "slide_sha256": run.slide_sha256,
                "heatmap_sha256": run.heatmap_sha256,
                "analysed_fraction": run.analysed_fraction,
                "failed_fraction": run.failed_fraction,
                "attempt": job.attempt,
            },
        )
    except BaseException:
        shutil.rmtree(run.folder, ignore_errors=True)
        raise
    return run


def record_bad_end(job: Job) -> None:
    """The event of a DETECT job that failed or was cancelled, in the transaction that ends it."""
    slide = Slide.objects.get(pk=job.subject_id)
    cancelled = job.state == JobState.CANCELLED
    record(
        EventKind.RUN_CANCELLED if cancelled else EventKind.RUN_FAILED,
        actor=None,
        subject=slide,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={"reason": job.error, "attempt": job.attempt, "job": str(job.pk)},
        outcome=Outcome.OK if cancelled else Outcome.FAILED,
    )
    shutil.rmtree(_work_folder(job), ignore_errors=True)


def _check_still_wanted(job: Job, slide: Slide, model_version: ModelVersion) -> None:
    try:
        check_can_detect(slide)
    except CannotDetect as error:
        raise JobFailed(str(error)) from error
    wanted = parameters_of(slide=slide, model_version=model_version, profile=Profile(job.parameters["profile"]))
    if wanted != job.parameters:
        raise JobFailed("The slide's file or scale changed after the run was asked for. Start a new run.")
    if not slide.source_path.exists():
        raise JobFailed("The slide's file is gone from where it was imported. Put it back, then start a new run.")


def _lesion(run: Run, finding: "LesionFinding", *, has_field: bool) -> Lesion:
    return Lesion(
        run=run,
        rank=finding.rank,
        score=finding.score,
        peak_x0=finding.peak[0],
        peak_y0=finding.peak[1],
        outline=[[[float(x), float(y)] for x, y in ring] for ring in finding.outline],
        bbox=[float(value) for value in finding.bbox0],
        longest_diameter_mm=finding.longest_diameter_mm,
        ellipse_major_mm=finding.ellipse_major_mm,
        area_mm2=finding.area_mm2,
        size_class=finding.size_class,
        borderline=finding.borderline,
        mean_probability=finding.mean_p,
        peak_probability=finding.peak_p,
        box_score=finding.box_score,
        second_look=finding.second_look,
        probability=finding.probability,
        has_field=has_field,
    )


def _write_files(run: Run, grid: bytes, fields: list[bytes]) -> None:
    (run.folder / "fields").mkdir(parents=True)
    run.heatmap_path.write_bytes(gzip.compress(grid, compresslevel=6, mtime=0))
    for rank, field in enumerate(fields, start=1):
        (run.folder / "fields" / f"{rank:04d}.jpg").write_bytes(field)


def _work_folder(job: Job) -> Path:
    return Path(settings.METADET_HOME) / "work" / str(job.pk)


def _digest(parameters: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(parameters).encode()).hexdigest()
