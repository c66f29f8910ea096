"""Checkpoints: signed statements of the chain's head, in the database and in a file to be kept elsewhere.

A chain of hashes alone does not notice that its end was cut off or that an older copy was restored; a checkpoint kept on
another machine does. Without such a copy the evidence ends at this machine, and the trail page says so.
"""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from audit_trail.canonical import canonical_json
from audit_trail.keys import SealingKey
from audit_trail.models import Checkpoint, Event

EVERY = timedelta(minutes=10)
EVERY_EVENTS = 1000


def checkpoint_file() -> Path:
    return Path(settings.METADET_HOME) / "checkpoints" / "trail.jsonl"


def checkpoint_if_due() -> Checkpoint | None:
    """A new checkpoint when there are events since the last one and it is 10 minutes or 1,000 events old."""
    head = Event.objects.order_by("-seq").first()
    last = Checkpoint.objects.order_by("-seq").first()
    if head is None or head.seq is None or (last and last.seq >= head.seq):
        return None
    if last and head.seq - last.seq < EVERY_EVENTS and timezone.now() - last.at < EVERY:
        return None
    return make_checkpoint()


@transaction.atomic
def make_checkpoint() -> Checkpoint | None:
    """Signs the present head; None while the trail is empty or nothing was added since."""
    head = Event.objects.order_by("-seq").first()
    if head is None or head.seq is None or Checkpoint.objects.filter(seq=head.seq).exists():
        return None
    previous = Checkpoint.objects.order_by("-seq").first()
    key = SealingKey("trail")
    now = timezone.now()
    body = canonical_json(
        {
            "seq": head.seq,
            "hash": head.hash,
            "at": now.isoformat(),
            "previous_seq": previous.seq if previous else None,
            "previous_hash": previous.hash if previous else None,
            "software_version": settings.VERSION,
        }
    )
    checkpoint = Checkpoint.objects.create(
        seq=head.seq, hash=head.hash, at=now, body=body, key_id=key.key_id, signature=key.seal(body)
    )
    _append(checkpoint, key.public_hex)
    return checkpoint


def read_checkpoints(path: Path) -> list[dict[str, Any]]:
    """The lines of a checkpoint file: {body, key_id, public_key, signature}. Raises ValueError naming the bad line."""
    lines = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            entry = json.loads(line)
            sealed = {name: entry[name] for name in ("body", "key_id", "public_key", "signature")}
            lines.append({**json.loads(entry["body"]), **sealed})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"Line {number} of {path} is not a checkpoint.") from error
    return lines


def _append(checkpoint: Checkpoint, public_hex: str) -> None:
    path = checkpoint_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = canonical_json(
        {
            "body": checkpoint.body,
            "key_id": checkpoint.key_id,
            "public_key": public_hex,
            "signature": checkpoint.signature,
        }
    )
    with path.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
