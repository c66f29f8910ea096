"""Who may see AI results and other readers' reads now. No other file of review/ decides this, and no other serves it.

Rules (design 6.1). A reader sees the AI of a slide through their own read, once it is locked. Whoever still has to read a
slide is blind to its AI and to others' reads, whatever other role they have. Operators and administrators never see
results. Auditors do, each time an event. Adjudicators see both reads and the AI when every reader has locked.
What a person may not see is answered exactly as what does not exist: Http404.
"""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import Http404, HttpRequest
from django.utils import timezone

from accounts.enums import Role
from accounts.models import User
from analysis.models import Lesion, Run
from analysis.runs import latest_job, live_run
from audit_trail.enums import EventKind
from audit_trail.models import Event
from audit_trail.recording import record
from jobs.enums import LIVE, JobState
from review.enums import AssignmentRole, CallStage, CallValue, Phase
from review.models import Assignment, Read
from review.policies import readers_have_locked
from slides.enums import Protocol
from slides.models import Slide


@dataclass(frozen=True)
class AiShown:
    """What is shown of the AI: a run with its lesions, or why there is none, in words. `pending`: it may still come."""

    run: Run | None
    lesions: tuple[Lesion, ...] = ()
    message: str = ""
    pending: bool = False


# --- may they? -------------------------------------------------------------------------------------
def read_allows_ai(read: Read) -> bool:
    """True once this read has passed the point where its protocol shows the AI. Looks at the read alone, never at a run."""
    if read.phase == Phase.UNAIDED:
        return False
    if read.protocol == Protocol.SECOND_LOOK:
        call = read.calls.filter(stage=CallStage.UNAIDED).order_by("-read_version").first()
        return call is not None and call.value == CallValue.NEGATIVE
    return True


def is_blinded(*, user: User, slide: Slide) -> bool:
    """True while the person still has to read this slide without the AI."""
    read = Read.objects.filter(slide=slide, reader=user).first()
    if read is not None:
        return read.phase == Phase.UNAIDED
    assignment = Assignment.objects.filter(case_id=slide.case_id, reader=user, withdrawn_at=None).first()
    if assignment is None:
        return False
    return assignment.role != AssignmentRole.ADJUDICATOR or not readers_have_locked(slide)


def blinded_slides(user: User) -> QuerySet[Slide]:
    """Slides that is_blinded() would say yes to, an adjudicator's unread ones included: for lists and counts."""
    own = Read.objects.filter(slide=OuterRef("pk"), reader=user)
    assigned = Assignment.objects.filter(case=OuterRef("case"), reader=user, withdrawn_at=None)
    return Slide.objects.filter(Exists(own.filter(phase=Phase.UNAIDED)) | (Exists(assigned) & ~Exists(own)))


def check_ai_visible(*, user: User, slide: Slide) -> None:
    """Raises Http404 unless the person may see AI results of this slide now."""
    if not user.is_authenticated or not user.is_active:
        raise Http404
    read = Read.objects.of(user).filter(slide=slide).first()
    if read is not None and read_allows_ai(read):
        return
    if is_blinded(user=user, slide=slide) or not user.has_role(Role.AUDITOR):
        raise Http404
    if not Slide.objects.visible_to(user).filter(pk=slide.pk).exists():
        raise Http404


# --- what they see ---------------------------------------------------------------------------------
@transaction.atomic
def ai_for_read(*, read: Read, request: HttpRequest | None = None) -> AiShown:
    """The AI result of an own read. The first showing fixes the run on the read and is an event. Raises Http404."""
    if not read_allows_ai(read):
        raise Http404
    if read.run_id is None and read.phase != Phase.SIGNED:
        reveal(read=Read.objects.select_for_update().get(pk=read.pk), request=request)
        read.refresh_from_db()
    if read.run is None:
        return _why_none(read.slide)
    return _shown(read.run)


def reveal(*, read: Read, request: HttpRequest | None = None) -> None:
    """Fixes the present run on a read that allows the AI, with its event; nothing while there is no run.

    Call it with the read locked FOR UPDATE, in the transaction of the act.
    """
    if read.run_id is not None or not read_allows_ai(read):
        return
    run = live_run(read.slide)
    if run is None:
        return
    read.run = run
    read.revealed_at = timezone.now()
    read.save(update_fields=["run", "revealed_at"])
    record(
        EventKind.AI_REVEALED,
        actor=read.reader,
        subject=read,
        case_id=read.slide.case_id,
        slide_id=read.slide_id,
        details={
            "run": str(run.pk),
            "model": str(run.model_version),
            "weights_sha256": run.model_version.sha256,
            "threshold": run.threshold,
            "protocol": read.protocol,
        },
        request=request,
    )


def ai_for_auditor(
    *, user: User, slide: Slide, request: HttpRequest | None = None, run_id: UUID | None = None
) -> AiShown:
    """The AI result for a quality lead, each showing an event. Raises Http404 for everybody else."""
    _check_auditor(user, slide)
    run = (
        Run.objects.filter(slide=slide, pk=run_id).select_related("model_version").first()
        if run_id
        else live_run(slide)
    )
    if run is None:
        return _why_none(slide)
    with transaction.atomic():
        record(
            EventKind.AI_VIEWED_BY_AUDITOR,
            actor=user,
            subject=run,
            case_id=slide.case_id,
            slide_id=slide.pk,
            details={"model": str(run.model_version), "weights_sha256": run.model_version.sha256},
            request=request,
        )
    return _shown(run)


def run_file_for_auditor(*, user: User, slide: Slide, run_id: UUID) -> Run:
    """The run whose heatmap or fields an auditor's page fetches; seeing it was an event when the page asked for the result."""
    _check_auditor(user, slide)
    run = Run.objects.filter(slide=slide, pk=run_id).select_related("model_version").first()
    if run is None:
        raise Http404
    return run


def run_of_read(read: Read) -> Run:
    """The run that was revealed in this read. Raises Http404."""
    if not read_allows_ai(read) or read.run is None:
        raise Http404
    return read.run


def field_of(*, run: Run, lesion_id: UUID) -> Path:
    """The file of a lesion's field. Raises Http404 when none was cut."""
    lesion = Lesion.objects.filter(run=run, pk=lesion_id, has_field=True).first()
    if lesion is None or not lesion.field_path.is_file():
        raise Http404
    return lesion.field_path


def runs_for_statistics(*, user: User, model_version_id: UUID | None) -> QuerySet[Run]:
    """Runs that an auditor's tables may count: none of slides the auditor still has to read. One model version, or all."""
    if not user.has_role(Role.AUDITOR):
        return Run.objects.none()
    runs = Run.objects.filter(slide__in=Slide.objects.visible_to(user)).exclude(slide__in=blinded_slides(user))
    if model_version_id is not None:
        runs = runs.filter(model_version_id=model_version_id)
    return runs.select_related("model_version", "slide__case", "slide__node")


# --- other people's reads --------------------------------------------------------------------------
def other_reads(*, user: User, slide: Slide) -> list[Read]:
    """Reads of others that the person may see now.

    Adjudicators and second readers: when every reader has locked this slide (a reader: and has a final call of their own,
    so that the final calls are independent too). Auditors: locked reads, unless they still have to read the slide.
    """
    locked = (
        Read.objects.filter(slide=slide)
        .exclude(reader=user)
        .exclude(phase=Phase.UNAIDED)
        .select_related("reader", "assignment", "run")
        .order_by("assignment__role", "started_at")
    )
    if is_blinded(user=user, slide=slide):
        return []
    if user.has_role(Role.AUDITOR):
        return list(locked)
    assignment = Assignment.objects.filter(case_id=slide.case_id, reader=user, withdrawn_at=None).first()
    if assignment is None or not readers_have_locked(slide):
        return []
    if assignment.role == AssignmentRole.ADJUDICATOR:
        return list(locked)
    own = Read.objects.filter(slide=slide, reader=user).first()
    if own is None or own.phase not in (Phase.FINAL, Phase.SIGNED):
        return []
    return [read for read in locked if read.phase in (Phase.FINAL, Phase.SIGNED)]


# --- the trail -------------------------------------------------------------------------------------
TELLING_KINDS = (
    *(EventKind.RUN_FINISHED, EventKind.CALL_RECORDED, EventKind.MARK_ADDED, EventKind.MARK_REMOVED),
    *(EventKind.LESION_ACCEPTED, EventKind.LESION_REJECTED, EventKind.DECISION_UNDONE, EventKind.READ_LOCKED),
    *(EventKind.AI_REVEALED, EventKind.AI_VIEWED_BY_AUDITOR, EventKind.CASE_SIGNED, EventKind.SIGNING_REFUSED),
    EventKind.CASE_AMENDED,
)


def events_for(user: User, events: QuerySet[Event]) -> QuerySet[Event]:
    """Without events that tell an auditor, who is also a reader, about slides they still have to read; own acts stay."""
    blinded = list(blinded_slides(user).values_list("pk", "case_id"))
    if not blinded:
        return events
    slides, cases = {slide for slide, _ in blinded}, {case for _, case in blinded}
    about = Q(slide_id__in=slides) | Q(slide_id=None, case_id__in=cases)
    return events.exclude(about & Q(kind__in=TELLING_KINDS) & ~(Q(actor_id=user.pk) & Q(actor_id__isnull=False)))


def _check_auditor(user: User, slide: Slide) -> None:
    if not user.has_role(Role.AUDITOR):
        raise Http404
    check_ai_visible(user=user, slide=slide)


def _shown(run: Run) -> AiShown:
    return AiShown(run=run, lesions=tuple(run.lesions.all()))


def _why_none(slide: Slide) -> AiShown:
    job = latest_job(slide)
    if job is not None and job.state in LIVE:
        return AiShown(run=None, pending=True, message="There is no AI result yet: detection has not ended.")
    if job is not None and job.state in (JobState.FAILED, JobState.CANCELLED):
        return AiShown(
            run=None,
            message=f"There is no AI result: detection was {job.get_state_display()}. An operator can start it again.",
        )
    return AiShown(
        run=None, message="There is no AI result: detection was not run on this slide. An operator can start it."
    )
