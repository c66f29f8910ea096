import uuid

from django.db import models

from audit_trail.enums import EventKind, Outcome


class Event(models.Model):
    """One act of one person or process. Written only by audit_trail.recording.record().

    seq, at, prev_hash and hash are set by a trigger of the database (migration 0002); rows are never updated or deleted.
    `body` is the canonical text the hash covers; the columns beside it repeat its values for searching, and
    `manage.py verify_trail` compares them.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    seq = models.BigIntegerField(unique=True, null=True, editable=False)
    at = models.DateTimeField(null=True, editable=False, db_index=True)
    kind = models.CharField(max_length=40, choices=EventKind.choices, db_index=True)
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.OK)
    actor_id = models.UUIDField(null=True, db_index=True)
    actor_name = models.CharField(max_length=200)
    actor_roles = models.CharField(max_length=200, blank=True)
    subject_type = models.CharField(max_length=40, blank=True)
    subject_id = models.CharField(max_length=64, blank=True, db_index=True)
    case_id = models.UUIDField(null=True, db_index=True)
    slide_id = models.UUIDField(null=True, db_index=True)
    details = models.JSONField(default=dict)
    session_sha256 = models.CharField(max_length=64, blank=True)
    address = models.CharField(max_length=64, blank=True)
    request_id = models.CharField(max_length=32, blank=True)
    body = models.TextField()
    format_version = models.PositiveSmallIntegerField(default=1)
    prev_hash = models.CharField(max_length=64, editable=False, default="")
    hash = models.CharField(max_length=64, editable=False, default="")

    class Meta:
        ordering = ["seq"]


class Checkpoint(models.Model):
    """A signed statement of the chain's head. Evidence reaches as far as copies of it are kept elsewhere."""

    seq = models.BigIntegerField(unique=True)
    hash = models.CharField(max_length=64)
    at = models.DateTimeField()
    body = models.TextField(help_text="Canonical JSON that the signature covers.")
    key_id = models.CharField(max_length=16)
    signature = models.CharField(max_length=128, help_text="Ed25519, hexadecimal.")

    class Meta:
        ordering = ["seq"]
