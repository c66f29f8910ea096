import uuid

from django.db import models
from django.db.models import Q

from accounts.enums import Role
from accounts.models import User
from analysis.models import Lesion, Run
from review.enums import AssignmentRole, CallStage, CallValue, Meaning, Phase, RejectReason, Verdict
from slides.enums import Protocol
from slides.models import Case, Slide

READING_ROLES = (Role.READER, Role.ADJUDICATOR)


class Assignment(models.Model):
    """Who reads a case, as what. An assignment locks nothing: two readers may read at once."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="assignments")
    reader = models.ForeignKey(User, on_delete=models.PROTECT, related_name="assignments")
    role = models.CharField(max_length=12, choices=AssignmentRole.choices)
    due = models.DateField(null=True, blank=True)
    assigned_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    assigned_at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["case", "reader"],
                condition=Q(withdrawn_at=None),
                name="one_assignment_per_case_and_reader",
            ),
        ]


class ReadQuerySet(models.QuerySet["Read"]):
    def of(self, user: User) -> "ReadQuerySet":
        """The reads that `user` may work on: their own, of slides they may see, while the case is assigned to them."""
        if not user.is_authenticated or not user.has_role(*READING_ROLES):
            return self.none()
        assigned = Assignment.objects.filter(reader=user, withdrawn_at=None).values("case")
        return self.filter(reader=user, slide__in=Slide.objects.visible_to(user), slide__case__in=assigned)


class Read(models.Model):
    """One reader's pass over one slide. `version` grows with every appended call, mark and decision."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slide = models.ForeignKey(Slide, on_delete=models.PROTECT, related_name="reads")
    reader = models.ForeignKey(User, on_delete=models.PROTECT, related_name="reads")
    assignment = models.ForeignKey(Assignment, on_delete=models.PROTECT, related_name="reads")
    protocol = models.CharField(max_length=20, choices=Protocol.choices)
    phase = models.CharField(max_length=10, choices=Phase.choices, default=Phase.UNAIDED)
    version = models.PositiveIntegerField(default=0)
    run = models.ForeignKey(
        Run,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="reads",
        help_text="The AI result that was revealed.",
    )
    started_at = models.DateTimeField(auto_now_add=True)
    locked_at = models.DateTimeField(null=True, blank=True)
    revealed_at = models.DateTimeField(null=True, blank=True)
    viewed_fraction = models.FloatField(default=0.0, help_text="Share of the tissue seen at 10x or more.")
    active_seconds_unaided = models.FloatField(default=0.0)
    active_seconds_aided = models.FloatField(default=0.0)

    objects = ReadQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["slide", "reader"], name="one_read_per_slide_and_reader")]


class Appended(models.Model):
    """A row of a read's history: never changed, never removed; the newest holds."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    at = models.DateTimeField(auto_now_add=True)
    read_version = models.PositiveIntegerField(help_text="The read's version after this row.")

    class Meta:
        abstract = True
        ordering = ["read_version"]


class Call(Appended):
    """What the reader says of the whole slide."""

    read = models.ForeignKey(Read, on_delete=models.PROTECT, related_name="calls")
    stage = models.CharField(max_length=10, choices=CallStage.choices)
    value = models.CharField(max_length=15, choices=CallValue.choices)
    reason = models.CharField(max_length=500, blank=True)


class Mark(Appended):
    """A lesion that the reader drew. `missed_by_ai` when drawn after the AI was seen."""

    read = models.ForeignKey(Read, on_delete=models.PROTECT, related_name="marks")
    outline = models.JSONField(help_text="[[ring]] of level-0 pixels.")
    longest_diameter_mm = models.FloatField(null=True)
    area_mm2 = models.FloatField(null=True)
    note = models.CharField(max_length=500, blank=True)
    stage = models.CharField(max_length=10, choices=CallStage.choices)
    missed_by_ai = models.BooleanField(default=False)


class MarkRemoval(Appended):
    read = models.ForeignKey(Read, on_delete=models.PROTECT, related_name="mark_removals")
    mark = models.OneToOneField(Mark, on_delete=models.PROTECT, related_name="removal")


class Decision(Appended):
    """What the reader says of one lesion of the AI; what the AI said stands beside it."""

    read = models.ForeignKey(Read, on_delete=models.PROTECT, related_name="decisions")
    lesion = models.ForeignKey(Lesion, on_delete=models.PROTECT, related_name="decisions")
    verdict = models.CharField(max_length=10, choices=Verdict.choices)
    reason = models.CharField(max_length=30, choices=RejectReason.choices, blank=True)
    text = models.CharField(max_length=500, blank=True)
    undoes = models.OneToOneField("self", null=True, blank=True, on_delete=models.PROTECT, related_name="undone_by")
    ai_score = models.FloatField()
    ai_size_class = models.CharField(max_length=8)


class Answered(models.Model):
    """The answer to a request with an Idempotency-Key: the same key gets the same answer, and nothing happens twice."""

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    key = models.CharField(max_length=80)
    path = models.CharField(max_length=300)
    request_sha256 = models.CharField(max_length=64, default="")
    status = models.PositiveSmallIntegerField()
    answer = models.JSONField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="one_answer_per_key")]


class ShownManifest(models.Model):
    """A manifest as a person was shown it before signing; kept so that a refusal can say what changed since."""

    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="+")
    person = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    sha256 = models.CharField(max_length=64)
    manifest = models.TextField(help_text="Canonical JSON.")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["case", "person", "sha256"], name="one_row_per_shown_manifest")]


class Signature(models.Model):
    """A reader's signature under a case. The manifest is what was shown and signed; it never changes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="signatures")
    signer = models.ForeignKey(User, on_delete=models.PROTECT, related_name="signatures")
    version = models.PositiveIntegerField(default=1)
    meaning = models.CharField(max_length=20, choices=Meaning.choices)
    printed_name = models.CharField(max_length=200)
    signed_at = models.DateTimeField()
    local_time = models.CharField(max_length=40, help_text="The signer's clock with its offset, ISO 8601.")
    manifest = models.TextField(help_text="Canonical JSON.")
    manifest_sha256 = models.CharField(max_length=64)
    key_id = models.CharField(max_length=16)
    seal = models.CharField(max_length=128, help_text="Ed25519 over hash, name, time and meaning; hexadecimal.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["case", "signer", "version"], name="one_signature_per_version")]
        ordering = ["case", "signer", "version"]


class Amendment(models.Model):
    """A signed case opened again by its signer, with the reason. The signed version stays readable."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    signature = models.OneToOneField(Signature, on_delete=models.PROTECT, related_name="amendment")
    reason = models.CharField(max_length=500)
    at = models.DateTimeField(auto_now_add=True)
