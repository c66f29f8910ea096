from django.db import models


class Role(models.TextChoices):
    """What a person does here (design: who uses it). A person may have several."""

    READER = "reader", "reader"
    ADJUDICATOR = "adjudicator", "adjudicator"
    OPERATOR = "operator", "operator"
    AUDITOR = "auditor", "auditor"
    ADMINISTRATOR = "administrator", "administrator"
