"""The acts of a reader on a read. Each checks, changes and records in one transaction; rows are only added.

Every act names the version of the read that the person saw. Is it not the present one, Stale carries the present state
and nothing happens. The read's row is locked for the act, so that two tabs cannot both win.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import Http404, HttpRequest
from django.utils import timezone

from accounts.models import User
from analysis.models import Lesion
from audit_trail.enums import EventKind
from audit_trail.recording import record
from review import policies, visibility
from review.enums import AssignmentRole, CallStage, CallValue, Phase, RejectReason, Verdict
from review.errors import InvalidInput, NotAllowedNow, Stale
from review.models import Call, Decision, Mark, MarkRemoval, Read
from review.outlines import checked_outline, measure
from review.state import read_state, undoable
from slides.enums import Protocol
from slides.models import Slide

LONGEST_REPORT_SECONDS = 600.0


# --- starting --------------------------------------------------------------------------------------
@transaction.atomic
def start_read(*, user: User, slide: Slide, request: HttpRequest | None = None) -> Read:
    """The person's read of the slide, begun now if there is none. Raises NotAllowedNow."""
    known = Read.objects.of(user).filter(slide=slide).first()
    if known is not None:
        return known
    policies.check_can_start_read(user=user, slide=slide)
    assignment = policies.assignment_of(user=user, case=slide.case)
    assert assignment is not None
    adjudicates = assignment.role == AssignmentRole.ADJUDICATOR
    protocol = Protocol.CONCURRENT if adjudicates else Protocol(slide.case.protocol)
    sees_ai_at_once = protocol == Protocol.CONCURRENT
    read, made = Read.objects.get_or_create(
        slide=slide,
        reader=user,
        defaults={
            "assignment": assignment,
            "protocol": protocol,
            "phase": Phase.AIDED if sees_ai_at_once else Phase.UNAIDED,
            "locked_at": timezone.now() if sees_ai_at_once else None,
        },
    )
    if made:
        _record(EventKind.READ_STARTED, read, request, {"protocol": read.protocol, "role": assignment.role})
        visibility.reveal(read=read, request=request)
    return read


# --- the unaided half ------------------------------------------------------------------------------
@transaction.atomic
def record_call(
    *,
    user: User,
    read_id: UUID,
    value: CallValue,
    reason: str = "",
    expected_version: int,
    request: HttpRequest | None = None,
) -> Read:
    """The unaided call while the read is unaided, the final call after its lock."""
    with _changing(user, read_id, expected_version) as read:
        final = read.phase != Phase.UNAIDED
        if final:
            policies.check_can_record_final_call(read)
        else:
            policies.check_can_record_call(read)
        reason = reason.strip()
        if value == CallValue.CANNOT_ASSESS and not reason:
            raise InvalidInput("Say why the slide cannot be assessed.")
        stage = CallStage.FINAL if final else CallStage.UNAIDED
        call = Call.objects.create(read=read, stage=stage, value=value, reason=reason, read_version=_next(read))
        _keep(read, phase=Phase.FINAL if final else read.phase)
        _record(
            EventKind.CALL_RECORDED,
            read,
            request,
            {"call": str(call.pk), "stage": stage, "value": value, "reason": reason},
        )
    return read


def record_final_call(
    *,
    user: User,
    read_id: UUID,
    value: CallValue,
    reason: str = "",
    expected_version: int,
    request: HttpRequest | None = None,
) -> Read:
    """record_call() for callers that mean the final call alone. Raises NotAllowedNow before the lock."""
    read = own_read(user=user, read_id=read_id)
    policies.check_can_record_final_call(read)
    return record_call(
        user=user, read_id=read_id, value=value, reason=reason, expected_version=expected_version, request=request
    )


@transaction.atomic
def add_mark(
    *,
    user: User,
    read_id: UUID,
    outline: Any,
    note: str = "",
    expected_version: int,
    request: HttpRequest | None = None,
) -> Read:
    """A lesion that the reader drew; `outline` [[ring], [hole], ...] in level-0 pixels."""
    with _changing(user, read_id, expected_version) as read:
        policies.check_can_mark(read)
        rings = checked_outline(outline, slide=read.slide)
        longest_mm, area_mm2 = measure(rings, slide=read.slide)
        aided = read.phase != Phase.UNAIDED
        mark = Mark.objects.create(
            read=read,
            outline=rings,
            longest_diameter_mm=longest_mm,
            area_mm2=area_mm2,
            note=note.strip(),
            stage=CallStage.FINAL if aided else CallStage.UNAIDED,
            missed_by_ai=aided and read.run_id is not None,
            read_version=_next(read),
        )
        _keep(read, phase=_reopened(read))
        details = {"mark": str(mark.pk), "stage": mark.stage, "longest_diameter_mm": longest_mm, "outline": rings}
        _record(EventKind.MARK_ADDED, read, request, details)
    return read


@transaction.atomic
def remove_mark(
    *, user: User, read_id: UUID, mark_id: UUID, expected_version: int, request: HttpRequest | None = None
) -> Read:
    with _changing(user, read_id, expected_version) as read:
        policies.check_can_mark(read)
        mark = Mark.objects.filter(read=read, pk=mark_id).first()
        if mark is None:
            raise Http404
        if MarkRemoval.objects.filter(mark=mark).exists():
            raise NotAllowedNow("This mark was removed already.")
        if mark.stage == CallStage.UNAIDED and read.phase != Phase.UNAIDED:
            raise NotAllowedNow("This mark belongs to the locked unaided read and stays as it is.")
        _remove(mark, read, request, undo=False)
    return read


@transaction.atomic
def lock_read(*, user: User, read_id: UUID, expected_version: int, request: HttpRequest | None = None) -> Read:
    """Locks the unaided call for good and reveals the AI, if the protocol shows it and there is a result yet."""
    with _changing(user, read_id, expected_version) as read:
        policies.check_can_lock(read)
        read.version = _next(read)
        read.phase = Phase.AIDED
        read.locked_at = timezone.now()
        read.save(update_fields=["version", "phase", "locked_at"])
        call = read.calls.filter(stage=CallStage.UNAIDED).order_by("-read_version").first()
        assert call is not None
        details = {
            "call": str(call.pk),
            "value": call.value,
            "viewed_fraction": read.viewed_fraction,
            "active_seconds": read.active_seconds_unaided,
        }
        _record(EventKind.READ_LOCKED, read, request, details)
        visibility.reveal(read=read, request=request)
    return read


# --- the aided half --------------------------------------------------------------------------------
@transaction.atomic
def decide(
    *,
    user: User,
    read_id: UUID,
    lesion_id: UUID,
    verdict: Verdict,
    reason: str = "",
    text: str = "",
    expected_version: int,
    request: HttpRequest | None = None,
) -> Read:
    """Accepts or rejects one lesion of the revealed run. A rejection needs a reason, "other" also words."""
    with _changing(user, read_id, expected_version) as read:
        policies.check_can_decide(read)
        text = text.strip()
        _check_verdict(verdict, reason, text)
        lesion = Lesion.objects.filter(run=visibility.run_of_read(read), pk=lesion_id).first()
        if lesion is None:
            raise Http404
        decision = Decision.objects.create(
            read=read,
            lesion=lesion,
            verdict=verdict,
            reason=reason if verdict == Verdict.REJECTED else "",
            text=text,
            ai_score=lesion.score,
            ai_size_class=lesion.size_class,
            read_version=_next(read),
        )
        _keep(read, phase=_reopened(read))
        kind = EventKind.LESION_ACCEPTED if verdict == Verdict.ACCEPTED else EventKind.LESION_REJECTED
        details = {
            "decision": str(decision.pk),
            "lesion": str(lesion.pk),
            "rank": lesion.rank,
            "reason": decision.reason,
            "text": text,
            "ai_score": lesion.score,
            "ai_size_class": lesion.size_class,
        }
        _record(kind, read, request, details)
    return read


@transaction.atomic
def undo(*, user: User, read_id: UUID, expected_version: int, request: HttpRequest | None = None) -> Read:
    """Takes back the newest decision or mark; what held before it holds again. Works after a reload as well."""
    with _changing(user, read_id, expected_version) as read:
        policies.check_can_undo(read)
        act = undoable(read)
        if act is None:
            raise NotAllowedNow("There is nothing to undo.")
        if isinstance(act, Mark):
            _remove(act, read, request, undo=True)
        else:
            _undo_decision(act, read, request)
    return read


def _undo_decision(act: Decision, read: Read, request: HttpRequest | None) -> None:
    before = (
        read.decisions.filter(lesion_id=act.lesion_id, read_version__lt=act.read_version)
        .order_by("-read_version")
        .first()
    )
    restored = Decision.objects.create(
        read=read,
        lesion_id=act.lesion_id,
        verdict=before.verdict if before else Verdict.UNDECIDED,
        reason=before.reason if before else "",
        text=before.text if before else "",
        undoes=act,
        ai_score=act.ai_score,
        ai_size_class=act.ai_size_class,
        read_version=_next(read),
    )
    _keep(read, phase=_reopened(read))
    details = {
        "decision": str(restored.pk),
        "undoes": str(act.pk),
        "lesion": str(act.lesion_id),
        "now": restored.verdict,
    }
    _record(EventKind.DECISION_UNDONE, read, request, details)


@transaction.atomic
def report_progress(
    *,
    user: User,
    read_id: UUID,
    viewed_fraction: float,
    active_seconds: float,
    request: HttpRequest | None = None,
) -> Read:
    """How much was looked at. `viewed_fraction`: of the tissue, so far; `active_seconds`: since the last report.

    It adds nothing to the read's history and leaves its version as it is.
    """
    read = own_read(user=user, read_id=read_id, lock=True)
    read.viewed_fraction = max(read.viewed_fraction, viewed_fraction)
    seconds = min(active_seconds, LONGEST_REPORT_SECONDS)
    if read.phase == Phase.UNAIDED:
        read.active_seconds_unaided += seconds
    elif read.phase != Phase.SIGNED:
        read.active_seconds_aided += seconds
    read.save(update_fields=["viewed_fraction", "active_seconds_unaided", "active_seconds_aided"])
    details = {"viewed_fraction": read.viewed_fraction, "active_seconds": seconds, "phase": read.phase}
    _record(EventKind.VIEWING_REPORTED, read, request, details)
    return read


# --- shared steps ----------------------------------------------------------------------------------
def own_read(*, user: User, read_id: UUID, lock: bool = False) -> Read:
    """Raises Http404 for a read that is not the person's, or no longer."""
    reads = Read.objects.of(user)
    if lock:
        reads = reads.select_for_update(of=("self",))
    read = reads.select_related("slide__case", "slide__node", "assignment", "reader").filter(pk=read_id).first()
    if read is None:
        raise Http404
    return read


@contextmanager
def _changing(user: User, read_id: UUID, expected_version: int) -> Iterator[Read]:
    read = own_read(user=user, read_id=read_id, lock=True)
    if read.version != expected_version:
        raise Stale(
            "This read was changed since you looked, in another tab or window. Nothing was lost; look at how it is now.",
            current=read_state(read),
        )
    yield read


def _next(read: Read) -> int:
    return read.version + 1


def _keep(read: Read, *, phase: str) -> None:
    read.version = _next(read)
    read.phase = phase
    read.save(update_fields=["version", "phase"])


def _reopened(read: Read) -> str:
    """A decision or mark after the final call asks for the final call again."""
    return Phase.AIDED if read.phase == Phase.FINAL else read.phase


def _remove(mark: Mark, read: Read, request: HttpRequest | None, *, undo: bool) -> None:
    MarkRemoval.objects.create(read=read, mark=mark, read_version=_next(read))
    _keep(read, phase=_reopened(read))
    _record(EventKind.MARK_REMOVED, read, request, {"mark": str(mark.pk), "undo": undo})


def _check_verdict(verdict: Verdict, reason: str, text: str) -> None:
    if verdict not in (Verdict.ACCEPTED, Verdict.REJECTED):
        raise InvalidInput("A lesion is accepted or rejected; undo takes a decision back.")
    if verdict == Verdict.REJECTED:
        if reason not in RejectReason.values:
            raise InvalidInput("Choose the reason of the rejection.")
        if reason == RejectReason.OTHER and not text:
            raise InvalidInput("Say in words what it is instead.")


def _record(kind: EventKind, read: Read, request: HttpRequest | None, details: dict[str, Any]) -> None:
    record(
        kind,
        actor=read.reader,
        subject=read,
        case_id=read.slide.case_id,
        slide_id=read.slide_id,
        details={"read_version": read.version, **details},
        request=request,
    )
