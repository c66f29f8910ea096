"""Giving a case to a reader and taking it back. Access to the case comes and goes with the assignment, in one transaction."""

from datetime import date

from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from accounts.enums import Role
from accounts.models import User
from audit_trail.enums import EventKind
from audit_trail.recording import record
from review import policies
from review.enums import AssignmentRole
from review.errors import InvalidInput, NotAllowedNow
from review.models import Assignment
from slides.models import Case, CaseAccess

NEEDED_ROLE = {
    AssignmentRole.FIRST: Role.READER,
    AssignmentRole.SECOND: Role.READER,
    AssignmentRole.ADJUDICATOR: Role.ADJUDICATOR,
}


@transaction.atomic
def assign_case(
    *,
    case: Case,
    reader: User,
    role: AssignmentRole,
    due: date | None = None,
    actor: User | None,
    request: HttpRequest | None = None,
) -> Assignment:
    """`actor` None is the software itself (the demo). Raises NotAllowedNow, InvalidInput."""
    if actor is not None:
        policies.check_can_assign(user=actor)
    Case.objects.select_for_update().get(pk=case.pk)
    if not reader.has_role(NEEDED_ROLE[role]):
        raise InvalidInput(f"{reader} cannot be {role.label}: the account lacks the role {NEEDED_ROLE[role].label}.")
    open_ = Assignment.objects.filter(case=case, withdrawn_at=None)
    if open_.filter(reader=reader).exists():
        raise NotAllowedNow(f"{reader} has this case already.")
    if role == AssignmentRole.FIRST and open_.filter(role=role).exists():
        raise NotAllowedNow("This case has a first reader already. Withdraw that assignment first.")
    assignment = Assignment.objects.create(case=case, reader=reader, role=role, due=due, assigned_by=actor)
    CaseAccess.objects.get_or_create(case=case, user=reader)
    details = {
        "reader": str(reader.pk),
        "reader_name": str(reader),
        "role": str(role),
        "due": str(due) if due else None,
    }
    record(EventKind.CASE_ASSIGNED, actor=actor, subject=assignment, case_id=case.pk, details=details, request=request)
    return assignment


@transaction.atomic
def withdraw_assignment(*, assignment: Assignment, actor: User, request: HttpRequest | None = None) -> Assignment:
    """The reader loses access; what was read and signed stays in the record. Raises NotAllowedNow."""
    policies.check_can_assign(user=actor)
    assignment = Assignment.objects.select_for_update().select_related("reader").get(pk=assignment.pk)
    if assignment.withdrawn_at is not None:
        raise NotAllowedNow("This assignment was withdrawn already.")
    assignment.withdrawn_at = timezone.now()
    assignment.save(update_fields=["withdrawn_at"])
    CaseAccess.objects.filter(case_id=assignment.case_id, user=assignment.reader).delete()
    details = {"reader": str(assignment.reader_id), "reader_name": str(assignment.reader), "role": assignment.role}
    record(
        EventKind.CASE_UNASSIGNED,
        actor=actor,
        subject=assignment,
        case_id=assignment.case_id,
        details=details,
        request=request,
    )
    return assignment
