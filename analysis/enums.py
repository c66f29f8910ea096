from django.db import models


class ModelState(models.TextChoices):
    REGISTERED = "registered", "registered"
    EVALUATED = "evaluated", "evaluated"
    ACTIVE = "active", "active"
    RETIRED = "retired", "retired"


class EvaluationKind(models.TextChoices):
    SLIDES = "slides", "slides"
    PATCHES = "patches", "patches"


class Profile(models.TextChoices):
    STANDARD = "standard", "standard (1.0 um per pixel)"
    FAST = "fast", "fast (2.0 um per pixel, 1.0 where suspicious)"


class RunStatus(models.TextChoices):
    COMPLETE = "complete", "complete"
    INCOMPLETE = "incomplete", "incomplete: part of the tissue was not read or is out of focus"
    CANNOT_ASSESS = "cannot_assess", "cannot assess"


class TriageBand(models.TextChoices):
    """What the slide score alone says, with the promise of the model's calibration. Never a call."""

    AI_NEGATIVE = "ai_negative", "AI-negative band"
    MUST_REVIEW = "must_review", "must be reviewed"
    AI_POSITIVE = "ai_positive", "AI-positive band"
    NONE = "none", "no band promised"
    CANNOT_ASSESS = "cannot_assess", "cannot assess"


class SizeClass(models.TextChoices):
    """AJCC: ITC at most 0.2 mm, micrometastasis over 0.2 to 2 mm, macrometastasis over 2 mm."""

    ITC = "itc", "isolated tumour cells"
    MICRO = "micro", "micrometastasis"
    MACRO = "macro", "macrometastasis"
