"""CSV of the trail for people outside of metadet: point decimals, UTC ISO 8601, no cell that a spreadsheet would run."""

import csv
import hashlib
import io
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from audit_trail.canonical import canonical_json
from audit_trail.models import Event

COLUMNS = (
    *("seq", "at", "kind", "outcome", "actor_name", "actor_roles", "subject_type", "subject_id", "case_id", "slide_id"),
    *("details", "address", "session_sha256", "request_id", "prev_hash", "hash", "body"),
)


def trail_csv(events: Iterable[Event]) -> tuple[bytes, str]:
    """The CSV file and its SHA-256."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for event in events:
        writer.writerow([safe_cell(_text(getattr(event, name))) for name in COLUMNS])
    data = text.getvalue().encode()
    return data, hashlib.sha256(data).hexdigest()


def safe_cell(text: str) -> str:
    """A cell that begins like a formula gets an apostrophe before it (OWASP: CSV injection)."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return canonical_json(value)
    if hasattr(value, "astimezone"):
        return str(value.astimezone(UTC).isoformat())
    return str(value)
