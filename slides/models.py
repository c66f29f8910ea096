import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.enums import Role
from accounts.models import User
from slides.enums import AssociatedKind, Protocol, ScaleState, SlideState, TileCheck, UploadState

ARCHIVE_SUFFIX = ".zip"
SEES_EVERY_CASE = (Role.OPERATOR, Role.AUDITOR, Role.ADMINISTRATOR)


class CaseQuerySet(models.QuerySet["Case"]):
    def visible_to(self, user: User) -> "CaseQuerySet":
        """Operators, auditors and administrators see every case, readers those they were given access to."""
        if not user.is_authenticated or not user.is_active:
            return self.none()
        if user.has_role(*SEES_EVERY_CASE):
            return self
        return self.filter(access__user=user).distinct()


class Case(models.Model):
    """The material of one patient's procedure, read and signed together."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    accession = models.CharField(max_length=64, unique=True)
    pseudonym = models.CharField(max_length=64, blank=True)
    site = models.CharField(max_length=100, blank=True)
    protocol = models.CharField(max_length=20, choices=Protocol.choices, default=Protocol.UNAIDED_FIRST)
    urgent = models.BooleanField(default=False)
    note = models.CharField(max_length=300, blank=True, help_text="Shown with the case, for example what was composed.")
    created_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = CaseQuerySet.as_manager()

    class Meta:
        ordering = ["accession"]

    def __str__(self) -> str:
        return self.accession


class CaseAccess(models.Model):
    """A person may see a case. Given and withdrawn by review/ together with the assignment."""

    case = models.ForeignKey(Case, on_delete=models.CASCADE, related_name="access")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="case_access")
    given_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["case", "user"], name="one_access_per_case_and_person")]


class Node(models.Model):
    """A lymph node of a case. A slide is not a node: counts need this map."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, on_delete=models.CASCADE, related_name="nodes")
    label = models.CharField(max_length=64)
    sentinel = models.BooleanField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["case", "label"], name="one_node_per_label")]
        ordering = ["label"]

    def __str__(self) -> str:
        return self.label


class SlideQuerySet(models.QuerySet["Slide"]):
    def present(self) -> "SlideQuerySet":
        return self.filter(deleted_at=None)

    def visible_to(self, user: User) -> "SlideQuerySet":
        """Present slides of visible cases; slides that are not ready are for operators, auditors and administrators."""
        slides = self.present().filter(case__in=Case.objects.visible_to(user))
        if user.is_authenticated and user.has_role(*SEES_EVERY_CASE):
            return slides
        return slides.filter(state=SlideState.READY)


class Slide(models.Model):
    """One whole slide image: the untouched file, what it says, and the state of its preparation."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="slides")
    node = models.ForeignKey(Node, null=True, blank=True, on_delete=models.SET_NULL, related_name="slides")
    position = models.PositiveIntegerField(default=0, help_text="Order within the case.")
    file_name = models.CharField(max_length=255, help_text="As it was sent; may name a patient: operators only.")
    source = models.CharField(
        max_length=1000,
        help_text="The file that readers open; its companions lie beside it. Absolute when imported in place, else under METADET_HOME.",
    )
    imported_in_place = models.BooleanField(default=False)
    size_bytes = models.BigIntegerField(default=0)
    source_mtime_ns = models.BigIntegerField(
        null=True,
        help_text="Tells a changed file from the same: when it was last written, as found on receipt (slides.wsi Stamp).",
    )
    sha256 = models.CharField(max_length=64, blank=True, db_index=True)
    archive_sha256 = models.CharField(
        max_length=64, blank=True, db_index=True, help_text="Of the archive that the slide came in, if it came in one."
    )

    state = models.CharField(max_length=12, choices=SlideState.choices, default=SlideState.CHECKING, db_index=True)
    state_since = models.DateTimeField(auto_now_add=True)
    reason_code = models.CharField(max_length=40, blank=True)
    reason = models.TextField(blank=True, help_text="Why it is quarantined or failed, and what to do, in words.")

    format = models.CharField(max_length=60, blank=True)
    width = models.PositiveIntegerField(null=True)
    height = models.PositiveIntegerField(null=True)
    mpp_x = models.FloatField(null=True, help_text="um per level-0 pixel.")
    mpp_y = models.FloatField(null=True)
    mpp_source = models.CharField(max_length=100, blank=True)
    scale_state = models.CharField(max_length=12, choices=ScaleState.choices, default=ScaleState.MISSING)
    scanner = models.CharField(max_length=100, blank=True)
    properties = models.JSONField(default=dict, help_text="slides.wsi SlideProperties.")
    store = models.CharField(max_length=32, blank=True, help_text="Name of the current tile store folder.")
    store_plan = models.JSONField(default=dict, help_text="slides.wsi StorePlan: what its tiles are, and why.")
    earlier_stores = models.JSONField(
        default=list, help_text="Names of replaced tile stores that open viewers may still read."
    )
    store_since = models.DateTimeField(null=True, help_text="When the current tile store took its place.")
    tile_check = models.CharField(max_length=10, choices=TileCheck.choices, default=TileCheck.WAITING)
    tile_check_reason = models.TextField(blank=True, help_text="Why the tiles could not be checked, in words.")
    pass_through = models.BooleanField(null=True)
    tissue_mm2 = models.FloatField(null=True)
    tissue_fraction = models.FloatField(null=True)
    corrupt_tiles = models.PositiveIntegerField(
        default=0, help_text="Of full resolution; final once tile_check is done."
    )
    missing_tiles = models.PositiveIntegerField(
        default=0, help_text="Of full resolution: not stored in the file, or damaged."
    )
    quality = models.JSONField(default=dict, help_text="slides.wsi Quality: tissue, ink, blur.")

    created_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True, blank=True)
    deleted_reason = models.CharField(max_length=300, blank=True)

    objects = SlideQuerySet.as_manager()

    class Meta:
        ordering = ["case", "position", "created_at"]

    def __str__(self) -> str:
        return self.display_name

    @property
    def display_name(self) -> str:
        """Never the file name, which can name a patient."""
        return f"{self.node.label if self.node else 'slide'} {self.position + 1}"

    @property
    def folder(self) -> Path:
        return Path(settings.METADET_HOME) / "slides" / str(self.pk)

    @property
    def source_path(self) -> Path:
        path = Path(self.source)
        return path if path.is_absolute() else Path(settings.METADET_HOME) / path

    @property
    def is_packed(self) -> bool:
        """What is stored is the zip archive that was sent; the worker unpacks it."""
        return not self.imported_in_place and self.source.endswith(ARCHIVE_SUFFIX)

    @property
    def store_folder(self) -> Path:
        return self.folder / self.store

    @property
    def associated_folder(self) -> Path:
        """Label and macro lie apart from everything that viewers are served from."""
        return Path(settings.METADET_HOME) / "associated" / str(self.pk)


class AssociatedImage(models.Model):
    """A label or macro image: behind its own right, each view an event."""

    slide = models.ForeignKey(Slide, on_delete=models.CASCADE, related_name="associated_images")
    kind = models.CharField(max_length=10, choices=AssociatedKind.choices)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["slide", "kind"], name="one_associated_image_per_kind")]


class ScaleCorrection(models.Model):
    """A scale entered by an operator. Rows are only added; the newest holds."""

    slide = models.ForeignKey(Slide, on_delete=models.CASCADE, related_name="scale_corrections")
    mpp_x = models.FloatField()
    mpp_y = models.FloatField()
    reason = models.CharField(max_length=300)
    entered_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    entered_at = models.DateTimeField(auto_now_add=True)


class Viewing(models.Model):
    """One opening of a slide in one log-in. Renewals of the tile cookie prolong it, so that the trail counts openings."""

    slide = models.ForeignKey(Slide, on_delete=models.CASCADE, related_name="viewings")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    partition = models.CharField(max_length=32, help_text="Which log-in (slides/tile_access.py); not a secret.")
    opened_at = models.DateTimeField()
    renewed_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["slide", "partition"], name="one_viewing_per_slide_and_log_in")]


class UploadQuerySet(models.QuerySet["Upload"]):
    def visible_to(self, user: User) -> "UploadQuerySet":
        """A person's own uploads."""
        if not user.is_authenticated or not user.is_active:
            return self.none()
        return self.filter(owner=user)


class Upload(models.Model):
    """A file on its way in (tus 1.0). `offset` only grows after the bytes are safely on disk."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="uploads")
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="uploads")
    node_label = models.CharField(max_length=64, blank=True)
    file_name = models.CharField(max_length=255)
    length = models.BigIntegerField()
    offset = models.BigIntegerField(default=0)
    claimed_sha256 = models.CharField(max_length=64, blank=True)
    state = models.CharField(max_length=12, choices=UploadState.choices, default=UploadState.RECEIVING, db_index=True)
    reason = models.TextField(blank=True)
    slide = models.OneToOneField(Slide, null=True, blank=True, on_delete=models.SET_NULL, related_name="upload")
    created_at = models.DateTimeField(auto_now_add=True)
    touched_at = models.DateTimeField(auto_now=True)

    objects = UploadQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.CheckConstraint(condition=Q(offset__lte=models.F("length")), name="offset_within_length")]

    @property
    def path(self) -> Path:
        return Path(settings.METADET_HOME) / "uploads" / str(self.pk)
