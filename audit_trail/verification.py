"""Is the record whole? Walks the chain and holds it against its checkpoints."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from django.db import connection

from audit_trail.checkpoints import read_checkpoints
from audit_trail.keys import SealingKey, verifies
from audit_trail.models import Checkpoint, Event

# Columns that repeat values of the hashed body.
REPEATED = (
    *("kind", "outcome", "actor_id", "actor_name", "actor_roles", "subject_type", "subject_id", "case_id", "slide_id"),
    *("details", "session_sha256", "address", "request_id"),
)
TRIGGERS = {
    "audit_trail_chain",
    "audit_trail_refuse_change",
    "audit_trail_refuse_truncate",
    "audit_trail_checkpoint_refuse_change",
    "audit_trail_checkpoint_refuse_truncate",
}


class Verdict(IntEnum):
    """The exit status of `manage.py verify_trail`."""

    WHOLE = 0
    TAMPERED = 2
    SHORTER = 3
    CANNOT_TELL = 4


@dataclass
class Verification:
    events: int = 0
    checkpoints: int = 0
    head_seq: int = 0
    head_hash: str = ""
    tampered: list[str] = field(default_factory=list)
    shorter: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        if self.tampered:
            return Verdict.TAMPERED
        if self.shorter:
            return Verdict.SHORTER
        return Verdict.CANNOT_TELL if self.unknown else Verdict.WHOLE


def verify_trail(*, since: int = 0, against: Path | None = None) -> Verification:
    """Checks events after `since`, all checkpoints of the database, and those of the file `against`."""
    result = Verification()
    _check_triggers(result)
    hash_at = _walk_chain(result, since)
    _check_database_checkpoints(result, hash_at, since)
    if against is not None:
        _check_file(result, hash_at, since, against)
    return result


def event_hash(*, prev_hash: str, seq: int, at: datetime, body: str) -> str:
    """What the trigger of migration 0002 computes."""
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return hashlib.sha256(f"{prev_hash}\n{seq}\n{stamp}\n{body}".encode()).hexdigest()


def _walk_chain(result: Verification, since: int) -> dict[int, str]:
    before = Event.objects.filter(seq=since).first() if since else None
    if since and before is None:
        result.shorter.append(f"Event {since} is not there.")
        return {}
    expected_prev = before.hash if before else "0" * 64
    expected_seq = since + 1
    last_at = before.at if before else None
    hash_at: dict[int, str] = {since: expected_prev} if before else {}
    for event in Event.objects.filter(seq__gt=since).order_by("seq").iterator(chunk_size=2000):
        assert event.seq is not None
        assert event.at is not None
        result.events += 1
        if event.seq != expected_seq:
            result.tampered.append(f"Events {expected_seq} to {event.seq - 1} are missing.")
        if event.prev_hash != expected_prev:
            result.tampered.append(f"Event {event.seq} does not follow the one before it.")
        if event.hash != event_hash(prev_hash=event.prev_hash, seq=event.seq, at=event.at, body=event.body):
            result.tampered.append(f"Event {event.seq} was changed: its content does not match its hash.")
        if changed := _columns_unlike_body(event):
            result.tampered.append(f"Event {event.seq} was changed: {', '.join(changed)} differ from what was hashed.")
        if last_at is not None and event.at <= last_at:
            result.tampered.append(f"Event {event.seq} is not later than the one before it.")
        expected_prev, expected_seq, last_at = event.hash, event.seq + 1, event.at
        hash_at[event.seq] = event.hash
        result.head_seq, result.head_hash = event.seq, event.hash
    return hash_at


def _columns_unlike_body(event: Event) -> list[str]:
    try:
        body: dict[str, Any] = json.loads(event.body)
    except json.JSONDecodeError:
        return ["body"]
    unlike = []
    for name in REPEATED:
        value = getattr(event, name)
        if name in {"actor_id", "case_id", "slide_id"}:
            value = str(value) if value else None
        if body.get(name) != value:
            unlike.append(name)
    return unlike


def _check_database_checkpoints(result: Verification, hash_at: dict[int, str], since: int) -> None:
    key = SealingKey("trail")
    for checkpoint in Checkpoint.objects.filter(seq__gt=since):
        result.checkpoints += 1
        if checkpoint.key_id != key.key_id:
            result.unknown.append(f"Checkpoint {checkpoint.seq} was sealed with another key ({checkpoint.key_id}).")
        elif not key.verifies(checkpoint.body, checkpoint.signature):
            result.tampered.append(f"The seal of checkpoint {checkpoint.seq} is not valid.")
        body = json.loads(checkpoint.body)
        if (body["seq"], body["hash"]) != (checkpoint.seq, checkpoint.hash):
            result.tampered.append(f"Checkpoint {checkpoint.seq} was changed after it was sealed.")
        _compare(result, hash_at, checkpoint.seq, checkpoint.hash, "the database")


def _check_file(result: Verification, hash_at: dict[int, str], since: int, path: Path) -> None:
    try:
        entries = read_checkpoints(path)
    except (OSError, ValueError) as error:
        result.unknown.append(f"The checkpoint file cannot be used: {error}")
        return
    own = SealingKey("trail").public_hex
    for entry in entries:
        if entry["seq"] <= since:
            continue
        result.checkpoints += 1
        if entry.get("public_key") != own:
            result.unknown.append(f"Checkpoint {entry['seq']} of the file was sealed with another key.")
        if not verifies(text=entry["body"], seal=entry["signature"], public_hex=entry["public_key"]):
            result.tampered.append(f"The seal of checkpoint {entry['seq']} of the file is not valid.")
        _compare(result, hash_at, entry["seq"], entry["hash"], "the file")


def _compare(result: Verification, hash_at: dict[int, str], seq: int, known: str, where: str) -> None:
    if seq not in hash_at:
        result.shorter.append(f"A checkpoint of {where} knows event {seq}, which is not there: restored or cut off.")
    elif hash_at[seq] != known:
        result.tampered.append(f"Event {seq} is not the one that a checkpoint of {where} knows.")


def _check_triggers(result: Verification) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname::text, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal AND tgname = ANY(%s)",
            [sorted(TRIGGERS)],
        )
        found = dict(cursor.fetchall())
    for name in sorted(TRIGGERS):
        if name not in found:
            result.tampered.append(f"The database's protection {name} was removed.")
        elif found[name] != "A":
            result.tampered.append(f"The database's protection {name} is switched off.")
