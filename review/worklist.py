"""Which cases stand in whose worklist, in what state. Order and counts come from the record of reading alone, never the AI."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from django.db.models import Prefetch
from django.utils import timezone

from accounts.enums import Role
from accounts.models import User
from review.enums import AssignmentRole, CallStage, Phase
from review.models import Assignment, Call, Read, Signature
from review.policies import NOT_YET, READERS, readers_have_locked
from slides.enums import SlideState
from slides.models import Case, Slide

READER_FILTERS = {"mine": "all of mine", "unread": "to read", "urgent": "urgent", "failed": "with failed slides"}
ADJUDICATOR_FILTERS = READER_FILTERS | {"discordant": "readers disagree"}
OPERATOR_FILTERS = {"mine": "all", "unread": "not assigned", "urgent": "urgent", "failed": "with failed slides"}

STATE_WORDS = {
    "preparing": "preparing",
    "to_read": "to read",
    "reading": "reading",
    "read": "read, to sign",
    "signed": "signed",
    "amended": "open for amendment",
    "waiting": "waits for the readers",
    "unassigned": "not assigned",
    "assigned": "assigned",
    "failed": "no usable slide",
}


@dataclass
class SlideRow:
    """One slide with the person's own read of it."""

    slide: Slide
    read: Read | None

    @property
    def state(self) -> str:
        return self.read.phase if self.read else "to_read" if self.slide.state == SlideState.READY else self.slide.state

    @property
    def words(self) -> str:
        if self.read:
            return self.read.get_phase_display()
        return "to read" if self.slide.state == SlideState.READY else self.slide.get_state_display()


@dataclass
class CaseRow:
    case: Case
    assignment: Assignment | None
    state: str
    slides: list[SlideRow] = field(default_factory=list)
    failed: int = 0
    readers: list[Assignment] = field(default_factory=list)
    discordant: bool = False

    @property
    def words(self) -> str:
        return STATE_WORDS[self.state]

    @property
    def done(self) -> int:
        return sum(row.read is not None and row.read.phase in (Phase.FINAL, Phase.SIGNED) for row in self.slides)

    @property
    def overdue(self) -> bool:
        due: date | None = self.assignment.due if self.assignment else None
        return due is not None and due < timezone.localdate() and self.state != "signed"


def filters_for(user: User) -> dict[str, str]:
    if user.has_role(Role.ADJUDICATOR):
        return ADJUDICATOR_FILTERS
    return READER_FILTERS if user.has_role(Role.READER) else OPERATOR_FILTERS


def reads_cases(user: User) -> bool:
    return user.has_role(Role.READER, Role.ADJUDICATOR)


def rows_for(user: User, *, search: str = "") -> list[CaseRow]:
    """Urgent first, then by due date and age. Readers: the cases assigned to them; operators: every case."""
    cases = Case.objects.visible_to(user)
    if reads_cases(user):
        cases = cases.filter(pk__in=Assignment.objects.filter(reader=user, withdrawn_at=None).values("case"))
    if search:
        cases = cases.filter(accession__icontains=search)
    open_assignments = Assignment.objects.filter(withdrawn_at=None).select_related("reader").order_by("assigned_at")
    present = Slide.objects.present().select_related("node", "case")
    cases = cases.prefetch_related(
        Prefetch("slides", queryset=present, to_attr="present_slides"),
        Prefetch("assignments", queryset=open_assignments, to_attr="open_assignments"),
    ).order_by("-urgent", "created_at")
    listed = list(cases)
    reads = {read.slide_id: read for read in Read.objects.filter(reader=user, slide__case__in=listed)}
    signed = _signed(user, listed)
    discordant = _readers_disagree(listed) if user.has_role(Role.ADJUDICATOR) else set()
    rows = [_row(user, case, reads, signed, discordant) for case in listed]
    return sorted(rows, key=lambda row: (not row.case.urgent, _due(row), row.case.created_at))


def filtered(rows: Iterable[CaseRow], name: str) -> list[CaseRow]:
    tests: dict[str, Callable[[CaseRow], bool]] = {
        "unread": lambda row: row.state in ("to_read", "reading", "amended", "unassigned", "read"),
        "urgent": lambda row: row.case.urgent,
        "failed": lambda row: row.failed > 0,
        "discordant": lambda row: row.discordant,
    }
    test = tests.get(name)
    return [row for row in rows if test is None or test(row)]


def next_case(user: User, *, after: UUID | None = None) -> Case | None:
    """The next case with something left to do, in worklist order, going round after the end."""
    rows = [
        row for row in rows_for(user) if row.state in ("to_read", "reading", "amended", "read") or row.case.pk == after
    ]
    keys = [row.case.pk for row in rows]
    start = keys.index(after) + 1 if after in keys else 0
    for row in rows[start:] + rows[:start]:
        if row.case.pk != after:
            return row.case
    return None


def _row(user: User, case: Case, reads: dict[UUID, Read], signed: dict[UUID, bool], discordant: set[UUID]) -> CaseRow:
    slides: list[Slide] = case.present_slides  # type: ignore[attr-defined]
    assignments: list[Assignment] = case.open_assignments  # type: ignore[attr-defined]
    own = next((item for item in assignments if item.reader_id == user.pk), None)
    failed = sum(slide.state in (SlideState.FAILED, SlideState.QUARANTINED) for slide in slides)
    ready = [slide for slide in slides if slide.state == SlideState.READY]
    row = CaseRow(case=case, assignment=own, state="", failed=failed, discordant=case.pk in discordant)
    row.slides = [SlideRow(slide, reads.get(slide.pk)) for slide in ready]
    if reads_cases(user):
        row.state = _reader_state(row, slides, signed.get(case.pk))
        if (
            own
            and own.role == AssignmentRole.ADJUDICATOR
            and row.state == "to_read"
            and not something_to_adjudicate(case)
        ):
            row.state = "waiting"
    else:
        row.readers = assignments
        row.state = _operator_state(slides, assignments)
    return row


def something_to_adjudicate(case: Case) -> bool:
    """True when the readers of the case have locked at least one slide all of them: something can be adjudicated."""
    return any(readers_have_locked(slide) for slide in case.slides.filter(deleted_at=None, state=SlideState.READY))


def _reader_state(row: CaseRow, slides: list[Slide], open_again: bool | None) -> str:
    phases = [item.read.phase if item.read else None for item in row.slides]
    if not row.slides:
        return "preparing" if any(slide.state in NOT_YET for slide in slides) or not slides else "failed"
    if open_again:
        return "amended"
    if all(phase == Phase.SIGNED for phase in phases):
        return "signed"
    if all(phase in (Phase.FINAL, Phase.SIGNED) for phase in phases):
        return "read"
    return "reading" if any(phases) else "to_read"


def _operator_state(slides: list[Slide], assignments: list[Assignment]) -> str:
    if not any(slide.state == SlideState.READY for slide in slides):
        waits = not slides or any(slide.state in NOT_YET for slide in slides)
        return "preparing" if waits else "failed"
    return "assigned" if assignments else "unassigned"


def _signed(user: User, cases: list[Case]) -> dict[UUID, bool]:
    """Signed cases of the person: whether the newest signature is open for an amendment."""
    newest: dict[UUID, bool] = {}
    signatures = Signature.objects.filter(signer=user, case__in=cases).select_related("amendment").order_by("version")
    for signature in signatures:
        newest[signature.case_id] = hasattr(signature, "amendment")
    return newest


def _readers_disagree(cases: list[Case]) -> set[UUID]:
    """Cases in which two readers, who both have locked, called a slide differently."""
    assigned: dict[UUID, set[UUID]] = {}
    for case in cases:
        open_: list[Assignment] = case.open_assignments  # type: ignore[attr-defined]
        assigned[case.pk] = {item.reader_id for item in open_ if item.role in READERS}
    values: dict[tuple[UUID, UUID], dict[UUID, str]] = {}
    calls = (
        Call.objects.filter(read__slide__case__in=cases, stage=CallStage.UNAIDED)
        .exclude(read__phase=Phase.UNAIDED)
        .order_by("read_version")
        .values_list("read__slide__case_id", "read__slide_id", "read__reader_id", "value")
    )
    for case_id, slide_id, reader_id, value in calls:
        values.setdefault((case_id, slide_id), {})[reader_id] = value
    return {
        case_id
        for (case_id, _), by_reader in values.items()
        if assigned[case_id] and assigned[case_id] <= set(by_reader) and len(set(by_reader.values())) > 1
    }


def _due(row: CaseRow) -> date:
    return row.assignment.due if row.assignment and row.assignment.due else date.max
