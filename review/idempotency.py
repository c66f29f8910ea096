"""One place that makes a repeated request harmless: the same Idempotency-Key gets the same answer, nothing happens twice."""

import hashlib
from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.http import HttpRequest

from accounts.models import User
from audit_trail.canonical import canonical_json
from review.errors import InvalidInput
from review.models import Answered

LONGEST_KEY = 80


def key_of(request: HttpRequest) -> str:
    """The request's Idempotency-Key, empty without one. Raises InvalidInput for one that is too long."""
    key = str(request.headers.get("Idempotency-Key", "")).strip()
    if len(key) > LONGEST_KEY:
        raise InvalidInput(f"An Idempotency-Key has at most {LONGEST_KEY} characters.")
    return key


@transaction.atomic
def answer_once(
    *, user: User, key: str, path: str, wanted: dict[str, Any], act: Callable[[], tuple[int, dict[str, Any]]]
) -> tuple[int, dict[str, Any]]:
    """Status and body of `act()`, or of the time before with the same key.

    The key's row is inserted first: a second request with it waits for the first to commit, then finds the answer. An act
    that raises leaves nothing behind, so that it can be tried again with the same key. `wanted` is what was asked for,
    without secrets; the same key for something else raises InvalidInput.
    """
    if not key:
        return act()
    digest = hashlib.sha256(canonical_json({"path": path, "wanted": wanted}).encode()).hexdigest()
    row, made = Answered.objects.get_or_create(
        user=user, key=key, defaults={"path": path[:300], "request_sha256": digest, "status": 0, "answer": {}}
    )
    if not made:
        if row.request_sha256 != digest:
            raise InvalidInput("This Idempotency-Key was used for another request already.")
        return row.status, row.answer
    row.status, row.answer = act()
    row.save(update_fields=["status", "answer"])
    return row.status, row.answer
