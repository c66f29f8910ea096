"""The ingest worker's jobs: from a file in its place to a slide that is ready, or a reason why not.

A large slide whose own tiles can be served is ready on the levels of its file within seconds (`prepare`); a second job
then decodes every tile, makes the overview levels and measures blur, and its store takes the place of the first
(`check`). Smaller slides, and those that are converted, get all of it in the first job.

Decoding happens in the child process of slides.wsi.sandbox alone; what it made is kept only in the transaction that
completes the job, and only if the source file is still the one that was received.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.db import transaction

from jobs.enums import JobState
from jobs.errors import JobFailed, LeaseLost
from jobs.models import Job
from jobs.running import Lease, complete
from slides import ingest
from slides.enums import AssociatedKind, ScaleState, SlideState
from slides.models import Slide
from slides.unpacking import forget_archive, unpack
from slides.wsi import sandbox
from slides.wsi.errors import RefusalCode, SlideRefused
from slides.wsi.sandbox import Limits
from slides.wsi.slide_files import Stamp, sha256_of, stamp_of

log = logging.getLogger(__name__)

SOURCE_MISSING = "source_missing"
SOURCE_CHANGED = "source_changed"
FIRST_LOOK_ABOVE_PIXELS = 2**27
"""Below this a whole preparation takes few seconds more than a first look, and leaves nothing to be exchanged."""
# Our own trouble, not the file's: the slide failed and may be tried again as it is.
_OUR_TROUBLE = (RefusalCode.NO_SPACE,)


def prepare(job: Job, lease: Lease) -> None:
    """The handler of PREPARE_SLIDE (jobs.running.run)."""
    slide = Slide.objects.select_related("case", "node").get(pk=job.subject_id)
    if slide.deleted_at is not None:
        raise JobFailed("The slide was deleted.")
    _move_to(lease, slide, SlideState.CHECKING)
    try:
        if slide.archive_sha256:
            forget_archive(slide)
        if slide.is_packed:
            slide = unpack(slide, hold=lambda: _hold(lease), report=lambda stage, share: _report(lease, stage, share))
        _check_source(slide, lease)
        _move_to(lease, slide, SlideState.PREPARING)
        prepared = _prepare_files(slide, lease, first_look_above=FIRST_LOOK_ABOVE_PIXELS)
        _check_unchanged(slide)
    except SlideRefused as refused:
        if refused.code in _OUR_TROUBLE or slide.state == SlideState.READY:
            raise JobFailed(refused.message) from refused
        _end_in_quarantine(lease, slide, code=str(refused.code), reason=refused.message)
        return
    except _NotTheSlide as found:
        if slide.state == SlideState.READY:
            raise JobFailed(str(found)) from found
        _end_in_quarantine(lease, slide, code=found.code, reason=str(found))
        return
    _keep(lease, slide, prepared, ingest.make_ready)


def check(job: Job, lease: Lease) -> None:
    """The handler of CHECK_SLIDE. After a worker's death the next one starts anew: its folder has another name."""
    slide = Slide.objects.select_related("case", "node").get(pk=job.subject_id)
    _check_still_wanted(slide, job)
    _remove_other_stores(slide)  # what a worker that died left behind; it may be large
    try:
        _check_unchanged(slide)
        prepared = _prepare_files(slide, lease, first_look_above=None)
        _check_unchanged(slide)
    except (SlideRefused, _NotTheSlide) as found:
        raise JobFailed(str(found)) from found

    def finish(current: Slide, prepared: ingest.Prepared) -> None:
        _check_still_wanted(current, job)
        ingest.finish_check(current, prepared)

    _keep(lease, slide, prepared, finish)


def _check_still_wanted(slide: Slide, job: Job) -> None:
    if slide.deleted_at is not None:
        raise JobFailed("The slide was deleted.")
    if slide.store != job.parameters["store"]:
        raise JobFailed("The slide was prepared again meanwhile.")


def _keep(lease: Lease, slide: Slide, prepared: ingest.Prepared, act: Callable[[Slide, ingest.Prepared], None]) -> None:
    """Result and end of the job in one transaction, or nothing of either."""
    try:
        with transaction.atomic():
            complete(lease=lease)
            slide = ingest.locked(slide.pk)
            act(slide, prepared)
    except BaseException:
        shutil.rmtree(slide.folder / prepared.store, ignore_errors=True)
        raise
    _remove_other_stores(slide)


class _NotTheSlide(Exception):
    """The file at the slide's place is missing, changed, or a slide that is here already."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


def _move_to(lease: Lease, slide: Slide, state: SlideState) -> None:
    """A slide whose worker died in PREPARING begins again; one that is READY stays so while it is prepared once more."""
    with transaction.atomic():
        _hold(lease)
        current = ingest.locked(slide.pk)
        if current.state != SlideState.READY:
            ingest.change_state(current, state)
    slide.state = current.state


def _hold(lease: Lease) -> None:
    """Only the worker with the newest fence changes the slide. Raises LeaseLost."""
    current = Job.objects.select_for_update().filter(pk=lease.job_id, fence=lease.fence, state=JobState.RUNNING)
    if not current.exists():
        raise LeaseLost


def _check_source(slide: Slide, lease: Lease) -> None:
    """Reads the whole file when its content is not known yet, or when it was written to since it was received."""
    path = slide.source_path
    try:
        stamp = stamp_of(path)
        if slide.sha256 and stamp == _stamp_on_receipt(slide):
            return
        sha256 = sha256_of(path, lambda share: _report(lease, "reading the file", share))
    except FileNotFoundError as error:
        raise _NotTheSlide(SOURCE_MISSING, _missing_words(slide)) from error
    except OSError as error:
        raise JobFailed(f"The file cannot be read: {error.strerror}. Is its drive connected?") from error
    if slide.sha256 and sha256 != slide.sha256:
        raise _NotTheSlide(SOURCE_CHANGED, _changed_words())
    with transaction.atomic():
        _hold(lease)
        ingest.lock_content(sha256)
        same_slide = ingest.same_content(sha256, but=slide)
        if same_slide is None:
            slide.sha256, slide.size_bytes, slide.source_mtime_ns = sha256, stamp.size_bytes, stamp.mtime_ns
            slide.save(update_fields=["sha256", "size_bytes", "source_mtime_ns"])
    if same_slide is not None:
        raise _NotTheSlide(ingest.DUPLICATE, ingest.duplicate_words(same_slide))


def _prepare_files(slide: Slide, lease: Lease, *, first_look_above: int | None) -> ingest.Prepared:
    """Tile store and thumbnail beside the slide, label and macro apart. Nothing of it counts before the transaction.

    `first_look_above` None: the check of a slide that is ready, in the background.
    """
    # Named by the fence: two workers that both believe they hold the job never write into one folder.
    store = f"tiles-{lease.job_id.hex[:8]}-{lease.fence}"
    folder = slide.folder / store
    associated = slide.associated_folder.with_name(f"{slide.pk}-{lease.fence}")
    for each in (folder, associated):
        shutil.rmtree(each, ignore_errors=True)
        each.mkdir(parents=True)
    try:
        made = sandbox.prepare(
            slide.source_path,
            folder,
            associated_dir=associated,
            mpp_override=_entered_scale(slide),
            first_look_above=first_look_above,
            in_background=first_look_above is None,
            limits=Limits(
                memory_bytes=settings.DECODER_MEMORY_BYTES, stall_seconds=float(settings.DECODER_STALL_SECONDS)
            ),
            on_progress=lambda stage, share: _report(lease, stage, share),
        )
        kinds = _take_associated(slide, associated)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(associated, ignore_errors=True)
    return ingest.Prepared(
        properties=made.properties,
        store=store,
        plan=made.store,
        quality=made.quality,
        checked=made.checked,
        corrupt_tiles=made.corrupt_tiles,
        missing_tiles=made.missing_tiles,
        associated=kinds,
    )


def _entered_scale(slide: Slide) -> tuple[float, float] | None:
    if slide.scale_state != ScaleState.ENTERED or slide.mpp_x is None or slide.mpp_y is None:
        return None
    return slide.mpp_x, slide.mpp_y


def _take_associated(slide: Slide, folder: Path) -> tuple[AssociatedKind, ...]:
    kinds = []
    for kind in AssociatedKind:
        image = folder / f"{kind.value}.png"
        if image.is_file():
            slide.associated_folder.mkdir(parents=True, exist_ok=True)
            image.replace(slide.associated_folder / image.name)
            kinds.append(kind)
    return tuple(kinds)


def _check_unchanged(slide: Slide) -> None:
    try:
        stamp = stamp_of(slide.source_path)
    except FileNotFoundError as error:
        raise _NotTheSlide(SOURCE_MISSING, _missing_words(slide)) from error
    if stamp != _stamp_on_receipt(slide):
        raise _NotTheSlide(SOURCE_CHANGED, _changed_words())


def _stamp_on_receipt(slide: Slide) -> Stamp:
    return Stamp(slide.size_bytes, slide.source_mtime_ns or 0)


def _end_in_quarantine(lease: Lease, slide: Slide, *, code: str, reason: str) -> None:
    with transaction.atomic():
        complete(lease=lease)
        ingest.quarantine(ingest.locked(slide.pk), code=code, reason=reason)
        if code == ingest.DUPLICATE and slide.archive_sha256 and not slide.is_packed:
            # "It was not stored a second time": nor is what only the worker could recognise
            transaction.on_commit(lambda: shutil.rmtree(slide.source_path.parent, ignore_errors=True))


def _remove_other_stores(slide: Slide) -> None:
    """Left by preparations that did not end well. What viewers may still read is ingest.drop_replaced_stores' to remove."""
    for folder in slide.folder.glob("tiles-*"):
        if folder.name not in (slide.store, *slide.earlier_stores):
            shutil.rmtree(folder, ignore_errors=True)


def _report(lease: Lease, stage: str, share: float) -> None:
    lease.report(stage, share)
    lease.check()


def _missing_words(slide: Slide) -> str:
    if slide.imported_in_place:
        return "The file is not at its place any more. Put it back, or connect its drive, and retry."
    return "The stored file is missing. Restore it from the backup, or send it again."


def _changed_words() -> str:
    return "The file at its place is no longer the file that was received. Put the original back and retry, or import it anew."
