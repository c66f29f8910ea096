"""What may be done now, and why not. Rules come in pairs: check_can_x raises NotAllowedNow with the reason, can_x answers."""

from collections.abc import Callable
from typing import ParamSpec

from accounts.enums import Role
from accounts.models import User
from jobs.enums import LIVE, JobKind
from jobs.models import Job
from review.enums import AssignmentRole, CallStage, Phase, Verdict
from review.errors import NotAllowedNow
from review.models import Assignment, Decision, Read, Signature
from slides.enums import SlideState
from slides.models import Case, Slide

P = ParamSpec("P")

READERS = (AssignmentRole.FIRST, AssignmentRole.SECOND)
NOT_YET = (SlideState.RECEIVING, SlideState.CHECKING, SlideState.PREPARING)


def reason_against(check: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> str:
    """The reason why `check` refuses, in words; empty when it does not."""
    try:
        check(*args, **kwargs)
    except NotAllowedNow as error:
        return str(error)
    return ""


# --- reading ---------------------------------------------------------------------------------------
def assignment_of(*, user: User, case: Case) -> Assignment | None:
    """The person's open assignment on the case."""
    return Assignment.objects.filter(case=case, reader=user, withdrawn_at=None).first()


def check_can_start_read(*, user: User, slide: Slide) -> None:
    assignment = assignment_of(user=user, case=slide.case)
    if assignment is None or not user.has_role(Role.READER, Role.ADJUDICATOR):
        raise NotAllowedNow("This case is not assigned to you. An operator assigns cases.")
    if slide.deleted_at is not None or slide.state != SlideState.READY:
        raise NotAllowedNow(f"The slide is {slide.get_state_display()}; it can be read when it is ready.")
    if assignment.role == AssignmentRole.ADJUDICATOR and not readers_have_locked(slide):
        raise NotAllowedNow(
            "Adjudication begins when every reader of this case has locked the unaided read of this slide."
        )


def can_start_read(*, user: User, slide: Slide) -> bool:
    return not reason_against(check_can_start_read, user=user, slide=slide)


def readers_have_locked(slide: Slide) -> bool:
    """True when the case has a reader and all its open first and second readers have locked their read of this slide."""
    assigned = set(
        Assignment.objects.filter(case_id=slide.case_id, role__in=READERS, withdrawn_at=None).values_list(
            "reader_id", flat=True
        )
    )
    locked = set(Read.objects.filter(slide=slide).exclude(phase=Phase.UNAIDED).values_list("reader_id", flat=True))
    return bool(assigned) and assigned <= locked


def check_can_record_call(read: Read) -> None:
    """The unaided call."""
    if read.phase != Phase.UNAIDED:
        raise NotAllowedNow("The unaided read is locked; its call stays as it is.")


def can_record_call(read: Read) -> bool:
    return not reason_against(check_can_record_call, read)


def check_can_lock(read: Read) -> None:
    if read.phase != Phase.UNAIDED:
        raise NotAllowedNow("The unaided read is locked already.")
    if not read.calls.filter(stage=CallStage.UNAIDED).exists():
        raise NotAllowedNow("Record your call of this slide first; then it can be locked.")


def can_lock(read: Read) -> bool:
    return not reason_against(check_can_lock, read)


def check_not_signed(read: Read) -> None:
    if read.phase == Phase.SIGNED:
        raise NotAllowedNow("This case is signed. Open it again with an amendment and its reason.")


def check_can_mark(read: Read) -> None:
    check_not_signed(read)


def can_mark(read: Read) -> bool:
    return not reason_against(check_can_mark, read)


def check_can_undo(read: Read) -> None:
    """Whether there is an act to take back is for reading.undo() to say."""
    check_not_signed(read)


def can_undo(read: Read) -> bool:
    return not reason_against(check_can_undo, read)


def check_can_decide(read: Read) -> None:
    if read.phase == Phase.UNAIDED:
        raise NotAllowedNow("Lock your unaided read first.")
    check_not_signed(read)
    if read.run_id is None:
        raise NotAllowedNow("No AI result was shown in this read.")


def can_decide(read: Read) -> bool:
    return not reason_against(check_can_decide, read)


def check_can_record_final_call(read: Read) -> None:
    if read.phase == Phase.UNAIDED:
        raise NotAllowedNow("Lock your unaided read first; the final call comes after it.")
    check_not_signed(read)


def can_record_final_call(read: Read) -> bool:
    return not reason_against(check_can_record_final_call, read)


# --- signing ---------------------------------------------------------------------------------------
def check_can_sign(*, user: User, case: Case) -> None:
    if assignment_of(user=user, case=case) is None or not user.has_role(Role.READER, Role.ADJUDICATOR):
        raise NotAllowedNow("This case is not assigned to you.")
    slides = list(Slide.objects.present().filter(case=case).select_related("node"))
    ready = [slide for slide in slides if slide.state == SlideState.READY]
    if waiting := [slide.display_name for slide in slides if slide.state in NOT_YET]:
        raise NotAllowedNow(f"Not ready yet: {', '.join(waiting)}.")
    if not ready:
        raise NotAllowedNow("The case has no slide that can be read.")
    reads = {
        read.slide_id: read for read in Read.objects.filter(slide__in=ready, reader=user).select_related("run", "slide")
    }
    if unread := [slide.display_name for slide in ready if slide.pk not in reads]:
        raise NotAllowedNow(f"Not read yet: {', '.join(unread)}.")
    if reads and all(read.phase == Phase.SIGNED for read in reads.values()):
        raise NotAllowedNow("The case is signed already. Open it again with an amendment and its reason.")
    if open_ := [slide.display_name for slide in ready if reads[slide.pk].phase in (Phase.UNAIDED, Phase.AIDED)]:
        raise NotAllowedNow(f"No final call yet: {', '.join(open_)}.")
    if undecided := [slide.display_name for slide in ready if undecided_lesions(reads[slide.pk])]:
        raise NotAllowedNow(f"Lesions at or above the threshold are not decided yet: {', '.join(undecided)}.")
    # Only now, when every read is locked: before that even "detection is running" is not for a reader.
    if Job.objects.filter(kind=JobKind.DETECT, subject_id__in=[slide.pk for slide in ready], state__in=LIVE).exists():
        raise NotAllowedNow("Detection is still running on a slide of this case. Sign when it has ended.")


def can_sign(*, user: User, case: Case) -> bool:
    return not reason_against(check_can_sign, user=user, case=case)


def undecided_lesions(read: Read) -> int:
    """How many lesions at or above the run's threshold have neither been accepted nor rejected."""
    if read.run_id is None or read.run is None:
        return 0
    needed = set(read.run.lesions.filter(score__gte=read.run.threshold).values_list("pk", flat=True))
    newest: dict[object, str] = dict(
        Decision.objects.filter(read=read).order_by("read_version").values_list("lesion_id", "verdict")
    )
    return sum(newest.get(lesion, Verdict.UNDECIDED) == Verdict.UNDECIDED for lesion in needed)


def check_can_amend(signature: Signature) -> None:
    newest = Signature.objects.filter(case=signature.case, signer=signature.signer).order_by("-version").first()
    if newest is None or newest.pk != signature.pk:
        raise NotAllowedNow("This is not the newest signature under this case.")
    if hasattr(signature, "amendment"):
        raise NotAllowedNow("The case is open for an amendment already.")


def can_amend(signature: Signature) -> bool:
    return not reason_against(check_can_amend, signature)


# --- assigning -------------------------------------------------------------------------------------
def check_can_assign(*, user: User) -> None:
    if not user.has_role(Role.OPERATOR, Role.ADMINISTRATOR):
        raise NotAllowedNow("Operators and administrators assign cases.")


def can_assign(*, user: User) -> bool:
    return not reason_against(check_can_assign, user=user)
