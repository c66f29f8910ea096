import uuid
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.models import User
from analysis.card_figures import Figure, figures_of, in_words, main_figures
from analysis.detector.calibration import Calibration, calibrations_of
from analysis.enums import EvaluationKind, ModelState, Profile, RunStatus, SizeClass, TriageBand
from slides.models import Slide


class ModelVersion(models.Model):
    """One set of weights with its card. Only safetensors with a matching SHA-256 are ever loaded."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=60)
    version = models.CharField(max_length=40)
    sha256 = models.CharField(max_length=64, unique=True, help_text="Of the weights file.")
    folder = models.CharField(max_length=1000, help_text="Absolute, or relative to the code (shipped models).")
    card = models.JSONField(default=dict)
    threshold = models.FloatField(default=0.5, help_text="Lesions with at least this score count for the AI's call.")
    state = models.CharField(max_length=12, choices=ModelState.choices, default=ModelState.REGISTERED)
    registered_at = models.DateTimeField(auto_now_add=True)
    activated_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["state"], condition=Q(state="active"), name="one_active_model_version"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def main_figures(self) -> list[Figure]:
        """The few that decide of what the card says that was measured before it came here."""
        return [figure for name, figures in self._measured() for figure in main_figures(name, figures)]

    @property
    def figures(self) -> list[Figure]:
        """All of them, one figure a line."""
        return [figure for name, figures in self._measured() for figure in figures_of(name, figures)]

    def _measured(self) -> list[tuple[str, dict[str, Any]]]:
        evaluation = self.card.get("evaluation") or {}
        return [(in_words(name, figures), figures) for name, figures in evaluation.items() if isinstance(figures, dict)]

    @property
    def training_figures(self) -> list[Figure]:
        """What the card says of data and training."""
        parts = {name: self.card[name] for name in ("data", "training", "validation", "test") if self.card.get(name)}
        return [figure for name, content in parts.items() for figure in figures_of(name, content)]

    @property
    def card_evaluates_these_weights(self) -> bool:
        """The card holds an evaluation that names exactly the SHA-256 of this version's weights."""
        entries = self.card.get("evaluation") or {}
        named = [entry.get("model") for entry in entries.values() if isinstance(entry, dict)]
        return any(isinstance(model, dict) and model.get("sha256") == self.sha256 for model in named)

    @property
    def calibrations(self) -> list[Calibration]:
        """One for each profile that the card is calibrated for."""
        return list(calibrations_of(self.card, weights_sha256=self.sha256).values())

    @property
    def path(self) -> Path:
        folder = Path(self.folder)
        return folder if folder.is_absolute() else Path(settings.BASE_DIR) / folder


class Evaluation(models.Model):
    """What was measured of one model version on one set, here. Rows are only added, in the transaction that ends the job."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="evaluations")
    kind = models.CharField(max_length=10, choices=EvaluationKind.choices)
    set_name = models.CharField(max_length=200, help_text="The set, as it was chosen.")
    set_sha256 = models.CharField(max_length=64, help_text="Of what the set holds: patches, or slides and reference.")
    profile = models.CharField(max_length=12, choices=Profile.choices, blank=True, help_text="Slides only.")
    n = models.PositiveIntegerField(help_text="Slides or patches.")
    figures = models.JSONField(default=dict)
    detail = models.JSONField(default=list, help_text="One entry for each slide.")
    weights_sha256 = models.CharField(max_length=64)
    software_version = models.CharField(max_length=40)
    job_id = models.UUIDField(unique=True)
    requested_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.CheckConstraint(condition=Q(n__gte=1), name="evaluation_measured_something")]

    def __str__(self) -> str:
        return f"{self.model_version} on {self.set_name}"

    @property
    def main_figures(self) -> list[Figure]:
        """The few that decide, with their intervals."""
        return main_figures(self.set_name, self.figures)

    @property
    def all_figures(self) -> list[Figure]:
        return list(figures_of(self.set_name, self.figures))


class Run(models.Model):
    """The finished result of one model version on one slide. Rows are only added, in the transaction that ends the job."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slide = models.ForeignKey(Slide, on_delete=models.PROTECT, related_name="runs")
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="runs")
    profile = models.CharField(max_length=12, choices=Profile.choices)
    parameters = models.JSONField(default=dict)
    parameters_sha256 = models.CharField(max_length=64)
    job_id = models.UUIDField(unique=True)
    status = models.CharField(max_length=15, choices=RunStatus.choices)
    status_reason = models.TextField(blank=True)
    slide_score = models.FloatField(null=True)
    slide_probability = models.FloatField(null=True, help_text="Calibrated; empty when the model is not.")
    triage = models.CharField(max_length=15, choices=TriageBand.choices, default=TriageBand.NONE)
    triage_words = models.TextField(blank=True, help_text="The promise of the band, or why there is none.")
    calibration = models.CharField(max_length=16, blank=True, help_text="Digest of the calibration used.")
    quality = models.JSONField(default=dict, help_text="blurred, tissue_share: shares of 0 to 1.")
    threshold = models.FloatField(help_text="The model version's threshold when the run was made.")
    tissue_mm2 = models.FloatField()
    analysed_fraction = models.FloatField()
    failed_fraction = models.FloatField()
    mpp_x = models.FloatField(help_text="Scale the run was made with.")
    mpp_y = models.FloatField()
    slide_sha256 = models.CharField(max_length=64)
    seconds = models.JSONField(default=dict)
    drift = models.JSONField(default=dict, help_text="Statistics of the tissue; z_... in SD of the reference slides.")
    software_version = models.CharField(max_length=40)
    heatmap_rows = models.PositiveIntegerField()
    heatmap_cols = models.PositiveIntegerField()
    heatmap_x0 = models.FloatField()
    heatmap_y0 = models.FloatField()
    heatmap_cell_x0 = models.FloatField(help_text="Level-0 pixels per cell, across.")
    heatmap_cell_y0 = models.FloatField(help_text="Level-0 pixels per cell, down.")
    heatmap_sha256 = models.CharField(max_length=64, help_text="Of the uncompressed grid.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            # One live result set per slide, model version and parameters (which hold scale, profile and file hash).
            models.UniqueConstraint(
                fields=["slide", "model_version", "parameters_sha256"], name="one_result_per_run_parameters"
            ),
            models.CheckConstraint(
                condition=Q(analysed_fraction__gte=0, failed_fraction__gte=0), name="fractions_not_negative"
            ),
            # What was not read whole is never in the negative band, whoever writes the row.
            models.CheckConstraint(
                condition=~Q(triage=TriageBand.AI_NEGATIVE) | Q(status=RunStatus.COMPLETE),
                name="only_a_complete_run_is_in_the_negative_band",
            ),
        ]
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.model_version} on {self.slide_id}"

    @property
    def folder(self) -> Path:
        return Path(settings.METADET_HOME) / "runs" / str(self.pk)

    @property
    def heatmap_path(self) -> Path:
        """gzip of rows x cols bytes, row by row; 255 is probability 1."""
        return self.folder / "heatmap.gz"


class Lesion(models.Model):
    """One metastasis that a run found. Coordinates are level-0 pixels."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="lesions")
    rank = models.PositiveIntegerField(help_text="1 is the strongest.")
    score = models.FloatField()
    peak_x0 = models.FloatField()
    peak_y0 = models.FloatField()
    outline = models.JSONField(help_text="[[outer ring], [hole], ...], each ring [[x0, y0], ...].")
    bbox = models.JSONField(help_text="[x0, y0, x0 right, y0 bottom].")
    longest_diameter_mm = models.FloatField()
    ellipse_major_mm = models.FloatField()
    area_mm2 = models.FloatField()
    size_class = models.CharField(max_length=8, choices=SizeClass.choices)
    borderline = models.BooleanField(default=False)
    mean_probability = models.FloatField()
    peak_probability = models.FloatField()
    box_score = models.FloatField(null=True)
    second_look = models.FloatField(null=True, help_text="What the second look alone said; empty without one.")
    probability = models.FloatField(null=True, help_text="Calibrated; empty when the model is not.")
    has_field = models.BooleanField(default=False, help_text="A field was cut for the gallery.")

    class Meta:
        ordering = ["run", "rank"]
        constraints = [models.UniqueConstraint(fields=["run", "rank"], name="one_lesion_per_rank")]

    @property
    def field_path(self) -> Path:
        return self.run.folder / "fields" / f"{self.rank:04d}.jpg"
