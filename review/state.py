"""The state of a read as its reader's page shows it. Nothing of the AI is in it but the reader's own decisions."""

from typing import Any

from accounts.models import User
from analysis.metrics.staging import MACRO_OVER_MM, MICRO_OVER_MM
from review import policies, visibility
from review.enums import AssignmentRole, CallStage, CallValue, RejectReason
from review.models import Call, Decision, Mark, Read
from slides.models import Slide


def read_state(read: Read) -> dict[str, Any]:
    """JSON of contract `GET /api/reads/{id}/`. Decisions are there only after the lock (there are none before)."""
    slide = read.slide
    return {
        "id": str(read.pk),
        "version": read.version,
        "phase": read.phase,
        "protocol": read.protocol,
        "role": read.assignment.role,
        "started_at": read.started_at.isoformat(),
        "locked_at": read.locked_at.isoformat() if read.locked_at else None,
        "revealed_at": read.revealed_at.isoformat() if read.revealed_at else None,
        "ai_allowed": visibility.read_allows_ai(read),
        "slide": slide_facts(slide),
        "case": case_facts(slide),
        "unaided_call": call_facts(newest_call(read, CallStage.UNAIDED)),
        "final_call": call_facts(newest_call(read, CallStage.FINAL)),
        "marks": [mark_facts(mark) for mark in present_marks(read)],
        "decisions": decisions_of(read),
        "viewed_fraction": read.viewed_fraction,
        "active_seconds": {"unaided": read.active_seconds_unaided, "aided": read.active_seconds_aided},
        "can": permissions(read, kind="can"),
        "why_not": permissions(read, kind="why_not"),
        "choices": CHOICES,
        "other_reads": [other_read_facts(other) for other in visibility.other_reads(user=read.reader, slide=slide)],
        **neighbours(read),
    }


CHOICES = {
    "calls": [{"value": value, "label": label} for value, label in CallValue.choices],
    "reject_reasons": [{"value": value, "label": label} for value, label in RejectReason.choices],
    "size_classes": {"micro_over_mm": MICRO_OVER_MM, "macro_over_mm": MACRO_OVER_MM},
}


def permissions(read: Read, *, kind: str) -> dict[str, Any]:
    """What the buttons may do (`can`), or why they may not (`why_not`: words, empty when they may)."""
    reasons = {
        "call": policies.reason_against(policies.check_can_record_call, read),
        "mark": policies.reason_against(policies.check_can_mark, read),
        "lock": policies.reason_against(policies.check_can_lock, read),
        "decide": policies.reason_against(policies.check_can_decide, read),
        "undo": policies.reason_against(policies.check_can_undo, read)
        or ("" if undoable(read) else "There is nothing to undo."),
        "final_call": policies.reason_against(policies.check_can_record_final_call, read),
        "sign": policies.reason_against(policies.check_can_sign, user=read.reader, case=read.slide.case),
    }
    reasons["reveal"] = reasons["lock"]
    return {name: not words for name, words in reasons.items()} if kind == "can" else reasons


def newest_call(read: Read, stage: CallStage) -> Call | None:
    return read.calls.filter(stage=stage).order_by("-read_version").first()


def present_marks(read: Read) -> list[Mark]:
    return list(read.marks.filter(removal=None).order_by("read_version"))


def newest_decisions(read: Read) -> list[Decision]:
    """The decision that holds for each lesion, oldest first."""
    newest: dict[Any, Decision] = {}
    for decision in read.decisions.order_by("read_version").select_related("lesion"):
        newest[decision.lesion_id] = decision
    return sorted(newest.values(), key=lambda decision: decision.read_version)


def decisions_of(read: Read) -> dict[str, dict[str, Any]]:
    return {
        str(decision.lesion_id): {
            "verdict": decision.verdict,
            "reason": decision.reason,
            "text": decision.text,
            "at": decision.at.isoformat(),
        }
        for decision in newest_decisions(read)
    }


def undoable(read: Read) -> Decision | Mark | None:
    """The newest act that undo takes back: a decision, or a mark drawn in the present half (unaided or aided) of the read."""
    decision = read.decisions.filter(undoes=None, undone_by=None).order_by("-read_version").first()
    stage = CallStage.FINAL if read.locked_at else CallStage.UNAIDED
    mark = read.marks.filter(removal=None, stage=stage).order_by("-read_version").first()
    acts: list[Decision | Mark] = [act for act in (decision, mark) if act is not None]
    return max(acts, key=lambda act: act.read_version, default=None)


def call_facts(call: Call | None) -> dict[str, Any] | None:
    if call is None:
        return None
    return {"value": call.value, "label": call.get_value_display(), "reason": call.reason, "at": call.at.isoformat()}


def mark_facts(mark: Mark) -> dict[str, Any]:
    return {
        "id": str(mark.pk),
        "outline": mark.outline,
        "note": mark.note,
        "stage": mark.stage,
        "longest_diameter_mm": mark.longest_diameter_mm,
        "area_mm2": mark.area_mm2,
        "missed_by_ai": mark.missed_by_ai,
        "at": mark.at.isoformat(),
    }


def slide_facts(slide: Slide) -> dict[str, Any]:
    return {
        "id": str(slide.pk),
        "name": slide.display_name,
        "node": slide.node.label if slide.node else None,
        "state": slide.state,
        "width": slide.width,
        "height": slide.height,
        "mpp_x": slide.mpp_x,
        "mpp_y": slide.mpp_y,
        "scale_state": slide.scale_state,
        "tissue_mm2": slide.tissue_mm2,
        "corrupt_tiles": slide.corrupt_tiles,
    }


def case_facts(slide: Slide) -> dict[str, Any]:
    case = slide.case
    return {
        "id": str(case.pk),
        "accession": case.accession,
        "pseudonym": case.pseudonym,
        "site": case.site,
        "note": case.note,
        "urgent": case.urgent,
        "protocol": case.protocol,
        "url": f"/cases/{case.pk}/",
    }


def other_read_facts(read: Read) -> dict[str, Any]:
    """A read of someone else, of which visibility.other_reads() said that it may be seen."""
    return {
        "id": str(read.pk),
        "reader": str(read.reader),
        "role": read.assignment.get_role_display(),
        "phase": read.phase,
        "protocol": read.protocol,
        "unaided_call": call_facts(newest_call(read, CallStage.UNAIDED)),
        "final_call": call_facts(newest_call(read, CallStage.FINAL)),
        "marks": [mark_facts(mark) for mark in present_marks(read)],
        "decisions": decisions_of(read),
        "viewed_fraction": read.viewed_fraction,
        "active_seconds": {"unaided": read.active_seconds_unaided, "aided": read.active_seconds_aided},
    }


def slides_in_order(*, user: User, case_id: Any) -> list[Slide]:
    """The slides of the case that the person may read, in the order of the case."""
    slides = Slide.objects.visible_to(user).filter(case_id=case_id, state="ready")
    return list(slides.select_related("case", "node"))


def neighbours(read: Read) -> dict[str, Any]:
    """next_slide and prev_slide: {slide_id, name, read_id, url} or None. `url` opens the read, or asks to start it."""
    slides = slides_in_order(user=read.reader, case_id=read.slide.case_id)
    keys = [slide.pk for slide in slides]
    own = dict(Read.objects.filter(slide__in=keys, reader=read.reader).values_list("slide_id", "id"))
    here = keys.index(read.slide_id) if read.slide_id in keys else -1

    def at(index: int) -> dict[str, Any] | None:
        if here < 0 or not 0 <= index < len(slides):
            return None
        slide = slides[index]
        read_id = own.get(slide.pk)
        return {
            "slide_id": str(slide.pk),
            "name": slide.display_name,
            "read_id": str(read_id) if read_id else None,
            "url": f"/reads/{read_id}/" if read_id else f"/slides/{slide.pk}/read/",
        }

    return {"prev_slide": at(here - 1), "next_slide": at(here + 1)}


ROLE_MEANINGS = {
    AssignmentRole.FIRST: "first_read",
    AssignmentRole.SECOND: "second_read",
    AssignmentRole.ADJUDICATOR: "adjudication",
}
