from django.db import models


class AssignmentRole(models.TextChoices):
    FIRST = "first", "first reader"
    SECOND = "second", "second reader"
    ADJUDICATOR = "adjudicator", "adjudicator"


class Phase(models.TextChoices):
    UNAIDED = "unaided", "unaided"
    AIDED = "aided", "aided"
    FINAL = "final", "final call recorded"
    SIGNED = "signed", "signed"


# From -> to. docs/reference/states.md is made from this table.
PHASE_TRANSITIONS: dict[str, tuple[str, ...]] = {
    Phase.UNAIDED: (Phase.AIDED,),
    Phase.AIDED: (Phase.FINAL,),
    Phase.FINAL: (Phase.AIDED, Phase.SIGNED),
    Phase.SIGNED: (Phase.FINAL,),  # by an amendment, with its reason; the signed version stays
}


class CallValue(models.TextChoices):
    NEGATIVE = "negative", "negative"
    ITC = "itc", "isolated tumour cells"
    MICRO = "micro", "micrometastasis"
    MACRO = "macro", "macrometastasis"
    CANNOT_ASSESS = "cannot_assess", "cannot assess"


class CallStage(models.TextChoices):
    UNAIDED = "unaided", "unaided"
    FINAL = "final", "final"


class Verdict(models.TextChoices):
    ACCEPTED = "accepted", "accepted"
    REJECTED = "rejected", "rejected"
    UNDECIDED = "undecided", "undecided"  # what an undo leaves behind


class RejectReason(models.TextChoices):
    HISTIOCYTES = "histiocytes", "histiocytes"
    GERMINAL_CENTRE = "germinal_centre", "germinal centre"
    SINUS_ENDOTHELIUM = "sinus_endothelium", "sinus endothelium"
    CAPSULE_VESSEL_NERVE = "capsule_vessel_nerve", "capsule, vessel or nerve"
    CRUSH = "crush", "crushed cells"
    ARTEFACT = "fold_ink_blur", "fold, ink or blur"
    NEVUS = "nevus_inclusion", "nevus inclusion"
    BENIGN_EPITHELIUM = "benign_epithelium", "benign epithelium"
    OTHER = "other", "other (say what)"


class Meaning(models.TextChoices):
    FIRST_READ = "first_read", "first read"
    SECOND_READ = "second_read", "second read"
    ADJUDICATION = "adjudication", "adjudication"
    AMENDMENT = "amendment", "amendment"
