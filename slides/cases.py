"""Finding or creating the case and the lymph node that a slide belongs to."""

import re

from django.db import transaction
from django.http import HttpRequest

from accounts.models import User
from audit_trail.enums import EventKind
from audit_trail.recording import record
from slides.errors import UploadRefused
from slides.models import Case, Node

_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]+")
LONGEST_NAME = 64


def checked_label(text: str, *, what: str, required: bool) -> str:
    """`text` trimmed. Raises UploadRefused when it is empty (if required), too long or holds control characters."""
    text = text.strip()
    if not text:
        if required:
            raise UploadRefused(f"The {what} is missing.")
        return ""
    if len(text) > LONGEST_NAME:
        raise UploadRefused(f"The {what} is longer than {LONGEST_NAME} characters.")
    if not _PRINTABLE.fullmatch(text):
        raise UploadRefused(f"The {what} holds characters that cannot be printed.")
    return text


@transaction.atomic
def case_named(*, accession: str, actor: User | None, request: HttpRequest | None = None) -> Case:
    """The case with this accession number; made, with its event, when there is none. Raises UploadRefused."""
    accession = checked_label(accession, what="case (accession number)", required=True)
    case, made = Case.objects.get_or_create(accession=accession, defaults={"created_by": actor})
    if made:
        record(EventKind.CASE_CREATED, actor=actor, subject=case, case_id=case.pk, request=request)
    return case


def node_named(*, case: Case, label: str) -> Node | None:
    """The lymph node of the case with this label, made when there is none; None for an empty label."""
    label = checked_label(label, what="lymph node", required=False)
    if not label:
        return None
    return Node.objects.get_or_create(case=case, label=label)[0]
