"""record(): the only writer of the trail."""

import hashlib
from typing import Any

from django.db import connection, models
from django.http import HttpRequest

from accounts.models import User
from audit_trail.canonical import canonical_json
from audit_trail.enums import EventKind, Outcome
from audit_trail.errors import NotInTransaction
from audit_trail.models import Event

SYSTEM_NAME = "metadet"


def record(
    kind: EventKind,
    *,
    actor: User | None,
    subject: models.Model | None = None,
    case_id: Any = None,
    slide_id: Any = None,
    details: dict[str, Any] | None = None,
    outcome: Outcome = Outcome.OK,
    request: HttpRequest | None = None,
) -> Event:
    """Adds one event to the chain, in the caller's transaction: both are kept or neither.

    `actor` None means the software itself (a worker, the scheduler). `details` must be JSON without NaN.
    Raises NotInTransaction when no transaction is open. The chain's lock is held to the end of the transaction: write
    the event last.
    """
    if not connection.in_atomic_block:
        raise NotInTransaction
    content: dict[str, Any] = {
        "kind": str(kind.value),
        "outcome": str(outcome.value),
        "actor_id": str(actor.pk) if actor else None,
        "actor_name": str(actor) if actor else SYSTEM_NAME,
        "actor_roles": ",".join(sorted(actor.roles)) if actor else "",
        "subject_type": subject._meta.model_name if subject is not None else "",
        "subject_id": str(subject.pk) if subject is not None else "",
        "case_id": str(case_id) if case_id else None,
        "slide_id": str(slide_id) if slide_id else None,
        "details": details or {},
        **_request_facts(request),
    }
    event = Event.objects.create(body=canonical_json(content), **content)
    event.refresh_from_db(fields=["seq", "at", "prev_hash", "hash"])
    return event


def _request_facts(request: HttpRequest | None) -> dict[str, str]:
    if request is None:
        return {"session_sha256": "", "address": "", "request_id": ""}
    session_key = getattr(getattr(request, "session", None), "session_key", None) or ""
    return {
        "session_sha256": hashlib.sha256(session_key.encode()).hexdigest() if session_key else "",
        "address": request.META.get("REMOTE_ADDR") or "",
        "request_id": getattr(request, "request_id", ""),
    }
