from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_out


class SlidesConfig(AppConfig):
    name = "slides"
    verbose_name = "slides"

    def ready(self) -> None:
        from jobs.enums import JobKind
        from jobs.schedule import DUTIES, ON_ENDED_BADLY
        from slides import ingest, tile_access, uploads

        ON_ENDED_BADLY[JobKind.PREPARE_SLIDE] = ingest.preparation_ended_badly
        ON_ENDED_BADLY[JobKind.CHECK_SLIDE] = ingest.check_ended_badly
        DUTIES["drop replaced tile stores"] = ingest.drop_replaced_stores
        DUTIES["finish complete uploads"] = uploads.finish_left_alone
        DUTIES["drop forgotten uploads"] = uploads.drop_forgotten
        DUTIES["forget old revocations"] = tile_access.forget_old_revocations
        user_logged_out.connect(_end_tile_access, dispatch_uid="slides.end_tile_access")


def _end_tile_access(sender: object, request: object, **_: object) -> None:
    """A log-out ends the tile tokens of this log-in at once, not only when they run out."""
    from slides import tile_access

    session_key = getattr(getattr(request, "session", None), "session_key", None)
    if session_key:
        tile_access.revoke(tile_access.partition_of(session_key))
