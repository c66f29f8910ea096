"""Acts on slides: receiving, every change of state, scale, retry, deletion. Each change and its event in one transaction."""

import hashlib
import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max, Sum
from django.http import HttpRequest
from django.utils import timezone

from accounts.models import User
from audit_trail.enums import EventKind
from audit_trail.recording import record
from jobs.enums import LIVE, JobKind
from jobs.models import Job
from jobs.queue import enqueue, request_cancel
from jobs.schedule import ON_ENDED_BADLY
from slides import tile_access
from slides.cases import case_named, node_named
from slides.enums import SLIDE_TRANSITIONS, AssociatedKind, ScaleState, SlideState, TileCheck, UploadState
from slides.errors import SlidesError, WrongState
from slides.models import AssociatedImage, Case, ScaleCorrection, Slide, Upload
from slides.signals import slide_deleting, slide_ready
from slides.wsi.properties import PLAUSIBLE_MPP, SlideProperties
from slides.wsi.quality import Quality
from slides.wsi.store_plan import StorePlan
from slides.wsi.tile_store import PASS_THROUGH

log = logging.getLogger(__name__)

SCALE_KNOWN = (ScaleState.OK, ScaleState.ENTERED)
DUPLICATE = "duplicate"
LONGEST_SUFFIX = 10
# The page of a viewer renews every 30 s; a pause longer than this is a new opening.
SAME_OPENING = timedelta(seconds=2 * tile_access.TOKEN_SECONDS)


@dataclass(frozen=True)
class Prepared:
    """What the preparation of a slide found and made. `store` names the folder of tiles inside slide.folder."""

    properties: SlideProperties
    store: str
    plan: StorePlan
    quality: Quality
    checked: bool
    corrupt_tiles: int
    missing_tiles: int
    associated: tuple[AssociatedKind, ...] = ()


def safe_suffix(file_name: str) -> str:
    """The suffix that readers go by, such as `.svs` or `.ome.tif`; empty when there is none to trust."""
    suffixes = [part for part in Path(file_name.lower()).suffixes[-2:] if part[1:].isascii() and part[1:].isalnum()]
    kept = suffixes if suffixes[:1] == [".ome"] else suffixes[-1:]
    return "".join(kept) if all(len(part) <= LONGEST_SUFFIX for part in kept) else ""


def lock_content(sha256: str) -> None:
    """Until the end of the transaction nobody else decides about a file of the same content."""
    key = int.from_bytes(hashlib.sha256(f"slide {sha256}".encode()).digest()[:8], "big", signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])


def same_content(sha256: str, *, but: Slide | None = None) -> Slide | None:
    """The slide that holds this very content already, or that came out of this very archive, if there is one.

    Slides linked with `but` share its file: not meant. An archive counts only while all its slides are still here.
    """
    present = Slide.objects.present().select_related("case", "node").order_by("created_at")
    slides = present.filter(sha256=sha256)
    if but:
        return slides.exclude(source=but.source).first()
    return slides.first() or (None if _lacks_slides(sha256) else present.filter(archive_sha256=sha256).first())


def _lacks_slides(archive_sha256: str) -> bool:
    """Whether a slide of this archive was deleted and is not here by another way."""
    here = Slide.objects.present().exclude(sha256="").values("sha256")
    of_archive = Slide.objects.filter(archive_sha256=archive_sha256)
    return of_archive.exclude(deleted_at=None).exclude(sha256__in=here).exists()


def duplicate_words(slide: Slide) -> str:
    words = f"This file is here already: it is {slide.display_name} of case {slide.case.accession}"
    if slide.state in (SlideState.QUARANTINED, SlideState.FAILED):
        words += f" ({slide.get_state_display()}: {slide.reason})"
    return words + ". It was not stored a second time."


@transaction.atomic
def receive_slide(
    *,
    slide_id: UUID,
    case: Case,
    node_label: str,
    file_name: str,
    source: str,
    imported_in_place: bool,
    size_bytes: int,
    mtime_ns: int,
    sha256: str,
    actor: User | None,
    archive_sha256: str = "",
    linked_from: Slide | None = None,
    request: HttpRequest | None = None,
) -> tuple[Slide, Job]:
    """A new slide whose file is in its place, and the job that prepares it. `sha256` may be empty: the job finds it."""
    Case.objects.select_for_update().get(pk=case.pk)  # positions within a case are given one after the other
    last = case.slides.aggregate(last=Max("position"))["last"]
    slide = Slide.objects.create(
        pk=slide_id,
        case=case,
        node=node_named(case=case, label=node_label),
        position=0 if last is None else last + 1,
        file_name=file_name[:255],
        source=source,
        imported_in_place=imported_in_place,
        size_bytes=size_bytes,
        source_mtime_ns=mtime_ns,
        sha256=sha256,
        archive_sha256=archive_sha256,
        state=SlideState.CHECKING,
        created_by=actor,
    )
    job = enqueue(kind=JobKind.PREPARE_SLIDE, subject_id=slide.pk, requested_by_id=actor.pk if actor else None)
    details = {"size_bytes": size_bytes, "sha256": sha256, "in_place": imported_in_place}
    if archive_sha256:
        details["archive_sha256"] = archive_sha256
    record(
        EventKind.SLIDE_LINKED if linked_from else EventKind.SLIDE_RECEIVED,
        actor=actor,
        subject=slide,
        case_id=case.pk,
        slide_id=slide.pk,
        details=details | ({"linked_from": str(linked_from.pk)} if linked_from else {}),
        request=request,
    )
    return slide, job


@transaction.atomic
def link_slide(
    *, slide_id: UUID, accession: str, node_label: str, actor: User, request: HttpRequest | None = None
) -> tuple[Slide, Job]:
    """The same file as a slide of a second case; the file is shared. Raises WrongState, UploadRefused (a bad name)."""
    original = locked(slide_id)
    if not original.sha256 or original.is_packed:
        raise WrongState("The file has not been read yet. Link it when the slide is ready.")
    case = case_named(accession=accession, actor=actor, request=request)
    if Slide.objects.present().filter(case=case, sha256=original.sha256).exists():
        raise WrongState(f"Case {case.accession} holds this slide already.")
    return receive_slide(
        slide_id=uuid4(),
        case=case,
        node_label=node_label,
        file_name=original.file_name,
        source=original.source,
        imported_in_place=original.imported_in_place,
        size_bytes=original.size_bytes,
        mtime_ns=original.source_mtime_ns or 0,
        sha256=original.sha256,
        archive_sha256=original.archive_sha256,
        actor=actor,
        linked_from=original,
        request=request,
    )


def change_state(slide: Slide, state: SlideState, *, reason_code: str = "", reason: str = "") -> None:
    """Moves the slide along SLIDE_TRANSITIONS and saves it. Raises WrongState."""
    if state != slide.state and state not in SLIDE_TRANSITIONS[slide.state]:
        raise WrongState(f"A slide that is {slide.get_state_display()} cannot become {state.label}.")
    if state != slide.state:
        slide.state_since = timezone.now()
    slide.state, slide.reason_code, slide.reason = state, reason_code, reason
    slide.save(update_fields=["state", "state_since", "reason_code", "reason"])


def locked(slide_id: UUID) -> Slide:
    """The slide, ours until the end of the transaction. Raises WrongState when it was deleted meanwhile."""
    slide = Slide.objects.select_for_update(of=("self",)).select_related("case", "node").get(pk=slide_id)
    if slide.deleted_at is not None:
        raise WrongState("This slide was deleted.")
    return slide


def make_ready(slide: Slide, prepared: Prepared) -> None:
    """Stores what was found and makes the slide viewable. Call in the transaction that completes the job."""
    found = prepared.properties
    slide.format, slide.scanner = found.format[:60], found.scanner[:100]
    slide.width, slide.height = found.width, found.height
    slide.properties = found.to_json()
    slide.pass_through, slide.store_plan = prepared.plan.kind == PASS_THROUGH, prepared.plan.to_json()
    _use_store(slide, prepared)
    slide.scale_state = ScaleState(found.scale_state)
    slide.mpp_source = found.mpp_source[:100]
    # An implausible scale stays in `properties` for the operator to see; nothing may measure with it.
    believed = slide.scale_state == ScaleState.OK
    slide.mpp_x, slide.mpp_y = (found.mpp_x, found.mpp_y) if believed else (None, None)
    entered = slide.scale_corrections.order_by("-entered_at").first()
    if entered is not None:
        _use_scale(slide, entered.mpp_x, entered.mpp_y)
    slide.save()
    change_state(slide, SlideState.READY)
    for kind in prepared.associated:
        AssociatedImage.objects.get_or_create(slide=slide, kind=kind)
    for check in Job.objects.filter(kind=JobKind.CHECK_SLIDE, subject_id=slide.pk, state__in=LIVE):
        request_cancel(job_id=check.pk)  # of a store that is replaced now
    if prepared.checked:
        _say_ready(slide)
    else:
        enqueue(kind=JobKind.CHECK_SLIDE, subject_id=slide.pk, parameters={"store": slide.store})
    record(
        EventKind.SLIDE_READY,
        actor=None,
        subject=slide,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={
            "sha256": slide.sha256,
            **({"archive_sha256": slide.archive_sha256} if slide.archive_sha256 else {}),
            "format": slide.format,
            "size": [slide.width, slide.height],
            "mpp": [slide.mpp_x, slide.mpp_y],
            "scale": str(slide.scale_state),
            "corrupt_tiles": slide.corrupt_tiles if prepared.checked else None,
            "tile_check": str(slide.tile_check),
        },
    )


def finish_check(slide: Slide, prepared: Prepared) -> None:
    """The checked store takes the place of the first look's. Call in the transaction that completes the job."""
    _use_store(slide, prepared)
    if slide.scale_state == ScaleState.ENTERED and slide.mpp_x and slide.mpp_y:
        _use_scale(slide, slide.mpp_x, slide.mpp_y)
    slide.save()
    _say_ready(slide)
    record(
        EventKind.SLIDE_CHECKED,
        actor=None,
        subject=slide,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={
            "sha256": slide.sha256,
            "corrupt_tiles": slide.corrupt_tiles,
            "missing_tiles": slide.missing_tiles,
            "quality": slide.quality,
        },
    )


def _use_store(slide: Slide, prepared: Prepared) -> None:
    """Who holds the store of before reads on in it until nobody does (`drop_replaced_stores`)."""
    if slide.store and slide.store != prepared.store:
        slide.earlier_stores = [*slide.earlier_stores, slide.store]
    slide.store, slide.store_since = prepared.store, timezone.now()
    slide.tile_check = TileCheck.DONE if prepared.checked else TileCheck.WAITING
    slide.tile_check_reason = ""
    slide.corrupt_tiles, slide.missing_tiles = prepared.corrupt_tiles, prepared.missing_tiles
    slide.quality = prepared.quality.to_json()
    slide.tissue_mm2, slide.tissue_fraction = prepared.quality.tissue_mm2, prepared.quality.tissue_fraction


def _say_ready(slide: Slide) -> None:
    if slide.scale_state in SCALE_KNOWN:
        slide_ready.send(sender=Slide, slide=slide, actor=None, cause="ready")


def check_ended_badly(job: Job) -> None:
    """The slide stays viewable on its first look; without the check no detection runs. In the job's transaction."""
    slide = Slide.objects.select_for_update().get(pk=job.subject_id)
    if slide.deleted_at is not None or slide.store != job.parameters.get("store"):
        return
    slide.tile_check = TileCheck.FAILED
    slide.tile_check_reason = job.error or "The check was stopped."
    slide.save(update_fields=["tile_check", "tile_check_reason"])
    record(
        EventKind.SLIDE_CHECK_FAILED,
        actor=None,
        subject=slide,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={"reason": slide.tile_check_reason, "job": str(job.pk), "attempts": job.attempt},
    )


def drop_replaced_stores() -> None:
    """Removes tile stores that were replaced and that no viewer has open any more."""
    lately = timezone.now() - SAME_OPENING
    for slide_id in (
        Slide.objects.exclude(earlier_stores=[]).filter(store_since__lt=lately).values_list("pk", flat=True)
    ):
        with transaction.atomic():
            slide = Slide.objects.select_for_update().get(pk=slide_id)
            if slide.viewings.filter(renewed_at__gte=lately).exists():
                continue
            for name in slide.earlier_stores:
                shutil.rmtree(slide.folder / name, ignore_errors=True)
            slide.earlier_stores = []
            slide.save(update_fields=["earlier_stores"])


def quarantine(slide: Slide, *, code: str, reason: str) -> None:
    """The file cannot be used as it is. Call in the transaction that completes the job."""
    change_state(slide, SlideState.QUARANTINED, reason_code=code, reason=reason)
    record(
        EventKind.SLIDE_QUARANTINED,
        actor=None,
        subject=slide,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={"code": code, "reason": reason, "sha256": slide.sha256},
    )


def preparation_ended_badly(job: Job) -> None:
    """The slide of a job that failed or was cancelled: FAILED, with the job's reason. Called in the job's transaction."""
    slide = Slide.objects.select_for_update().get(pk=job.subject_id)
    if slide.deleted_at is not None or slide.state not in (SlideState.CHECKING, SlideState.PREPARING, SlideState.READY):
        return
    reason = job.error or "The preparation was cancelled."
    if slide.state != SlideState.READY:  # else it was prepared once more, and stays as it was
        change_state(slide, SlideState.FAILED, reason_code=f"job_{job.state}", reason=reason)
    record(
        EventKind.SLIDE_FAILED,
        actor=None,
        subject=slide,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={"reason": reason, "job": str(job.pk), "attempts": job.attempt, "state": str(slide.state)},
    )


@transaction.atomic
def retry(*, slide_id: UUID, actor: User, request: HttpRequest | None = None) -> Job:
    """Prepares the slide once more, from its untouched file. A slide that is ready stays so, on the tiles it has, until
    the new ones are there. Raises WrongState while it is being prepared."""
    slide = locked(slide_id)
    if Job.objects.filter(kind=JobKind.PREPARE_SLIDE, subject_id=slide.pk, state__in=LIVE).exists():
        raise WrongState("This slide is being prepared already.")
    before = slide.get_state_display()
    if slide.state != SlideState.READY:
        change_state(slide, SlideState.CHECKING)
    job = enqueue(kind=JobKind.PREPARE_SLIDE, subject_id=slide.pk, requested_by_id=actor.pk)
    record(
        EventKind.SLIDE_RETRIED,
        actor=actor,
        subject=slide,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={"was": before},
        request=request,
    )
    return job


@transaction.atomic
def correct_scale(
    *, slide_id: UUID, mpp_x: float, mpp_y: float, reason: str, actor: User, request: HttpRequest | None = None
) -> Slide:
    """Enters the size of a level-0 pixel in um by hand. Raises WrongState, SlidesError for an implausible value."""
    low, high = PLAUSIBLE_MPP
    if not (low <= mpp_x <= high and low <= mpp_y <= high):
        raise SlidesError(f"A scale must lie between {low} and {high} um per pixel.")
    if not reason.strip():
        raise SlidesError("Say where the scale comes from: it is written into the record.")
    slide = locked(slide_id)
    if slide.state != SlideState.READY:
        raise WrongState("A scale can be entered once the slide is ready.")
    before = [slide.mpp_x, slide.mpp_y]
    ScaleCorrection.objects.create(slide=slide, mpp_x=mpp_x, mpp_y=mpp_y, reason=reason.strip()[:300], entered_by=actor)
    _use_scale(slide, mpp_x, mpp_y)
    slide.save(update_fields=["mpp_x", "mpp_y", "mpp_source", "scale_state", "tissue_mm2"])
    if slide.tile_check == TileCheck.DONE:
        slide_ready.send(sender=Slide, slide=slide, actor=actor, cause="scale")
    record(
        EventKind.SLIDE_SCALE_CORRECTED,
        actor=actor,
        subject=slide,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={"before": before, "after": [mpp_x, mpp_y], "reason": reason.strip()[:300]},
        request=request,
    )
    return slide


def _use_scale(slide: Slide, mpp_x: float, mpp_y: float) -> None:
    slide.mpp_x, slide.mpp_y = mpp_x, mpp_y
    slide.mpp_source, slide.scale_state = "entered by hand", ScaleState.ENTERED
    if slide.width and slide.height and slide.tissue_fraction is not None:
        slide.tissue_mm2 = slide.tissue_fraction * slide.width * mpp_x * slide.height * mpp_y / 1e6


@transaction.atomic
def delete_slide(*, slide_id: UUID, reason: str, actor: User, request: HttpRequest | None = None) -> None:
    """Takes the slide out of use and removes what metadet stored of it; a file imported in place stays untouched.

    The row and its trail stay. Raises SlidesError without a reason, WrongState when another room objects.
    """
    reason = reason.strip()
    if not reason:
        raise SlidesError("Say why the slide is deleted: it is written into the record.")
    slide = locked(slide_id)
    slide_deleting.send(sender=Slide, slide=slide, actor=actor)
    slide.deleted_at, slide.deleted_reason = timezone.now(), reason[:300]
    slide.save(update_fields=["deleted_at", "deleted_reason"])
    for job in Job.objects.filter(subject_id=slide.pk, state__in=LIVE):
        cancel_job(job_id=job.pk, actor=actor, request=request)
    transaction.on_commit(lambda: _forget_files(slide))
    record(
        EventKind.SLIDE_DELETED,
        actor=actor,
        subject=slide,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={"reason": reason[:300], "sha256": slide.sha256, "in_place": slide.imported_in_place},
        request=request,
    )


def _forget_files(slide: Slide) -> None:
    """What lies beside the file goes; the file itself when it is ours and no linked slide needs it."""
    tile_access.revoke(str(slide.pk))
    folders = [slide.associated_folder, *slide.folder.glob("tiles-*"), *slide.folder.glob("unpacked-*")]
    shared = Slide.objects.present().filter(source=slide.source).exists()
    if not shared and not slide.imported_in_place:
        folders.append(slide.source_path.parent)
    for folder in folders:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("The files of deleted slide %s could not all be removed: %s", slide.pk, error)
    for folder in {slide.folder, slide.source_path.parent.parent} if not slide.imported_in_place else {slide.folder}:
        with suppress(OSError):
            folder.rmdir()  # only when it is empty now


@transaction.atomic
def cancel_job(*, job_id: UUID, actor: User, request: HttpRequest | None = None) -> Job:
    """Asks for the end of a job; a waiting one ends at once, with what that means for its slide. Raises NotCancellable."""
    job = request_cancel(job_id=job_id)
    if job.state not in LIVE:
        ON_ENDED_BADLY[job.kind](job)
    slide = Slide.objects.get(pk=job.subject_id)
    record(
        EventKind.JOB_CANCEL_REQUESTED,
        actor=actor,
        subject=job,
        case_id=slide.case_id,
        slide_id=slide.pk,
        details={"job": job.kind, "state": job.state},
        request=request,
    )
    return job


def quota_used(owner: User) -> int:
    """Bytes of the uploads of a person that are stored or under way; a slide that is linked to a second case counts once."""
    files = Slide.objects.present().filter(created_by=owner, imported_in_place=False)
    stored = sum(files.order_by("source").distinct("source").values_list("size_bytes", flat=True))
    promised = Upload.objects.filter(owner=owner, state=UploadState.RECEIVING).aggregate(n=Sum("length"))
    return stored + (promised["n"] or 0)


def storage_left() -> tuple[int, int]:
    """(free, whole) bytes of the disk that slides are stored on; free above the floor that is kept."""
    home = Path(settings.METADET_HOME)
    home.mkdir(parents=True, exist_ok=True)
    usage = shutil.disk_usage(home)
    return max(0, usage.free - settings.DISK_FLOOR_BYTES), usage.total
