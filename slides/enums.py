from django.db import models


class Protocol(models.TextChoices):
    """When a reader sees the AI (design 1: three reading protocols)."""

    UNAIDED_FIRST = "unaided_first", "unaided first"
    SECOND_LOOK = "second_look", "second look"
    CONCURRENT = "concurrent", "concurrent"


class SlideState(models.TextChoices):
    RECEIVING = "receiving", "receiving"
    CHECKING = "checking", "checking"
    PREPARING = "preparing", "preparing"
    READY = "ready", "ready"
    QUARANTINED = "quarantined", "quarantined"
    FAILED = "failed", "failed"


# From -> to. docs/reference/states.md is made from this table.
SLIDE_TRANSITIONS: dict[str, tuple[str, ...]] = {
    SlideState.RECEIVING: (SlideState.CHECKING, SlideState.FAILED),
    SlideState.CHECKING: (SlideState.PREPARING, SlideState.READY, SlideState.QUARANTINED, SlideState.FAILED),
    SlideState.PREPARING: (SlideState.READY, SlideState.QUARANTINED, SlideState.FAILED, SlideState.CHECKING),
    SlideState.READY: (SlideState.CHECKING,),
    SlideState.QUARANTINED: (SlideState.CHECKING,),
    SlideState.FAILED: (SlideState.CHECKING,),
}


class TileCheck(models.TextChoices):
    """Of a slide that is ready: whether every tile was decoded. Detection waits for DONE."""

    WAITING = "waiting", "not every tile is checked yet"
    DONE = "done", "every tile is checked"
    FAILED = "failed", "the tiles could not be checked"


class ScaleState(models.TextChoices):
    OK = "ok", "scale known"
    MISSING = "missing", "no scale in the file"
    IMPLAUSIBLE = "implausible", "scale in the file is implausible"
    ENTERED = "entered", "scale entered by hand"


class AssociatedKind(models.TextChoices):
    LABEL = "label", "label"
    MACRO = "macro", "macro"


class UploadState(models.TextChoices):
    RECEIVING = "receiving", "receiving"
    COMPLETE = "complete", "complete"
    CANCELLED = "cancelled", "cancelled"
    REFUSED = "refused", "refused"
