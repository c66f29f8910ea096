"""Opening a slide: the decision of Django that the tile service then trusts for a minute, and the event of the opening."""

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from accounts.models import User
from audit_trail.enums import EventKind
from audit_trail.recording import record
from slides import open_stores, tile_access
from slides.enums import SlideState
from slides.errors import WrongState
from slides.ingest import SAME_OPENING
from slides.models import Slide, Viewing
from slides.wsi.errors import TileStoreDamaged
from slides.wsi.tile_store import TileStore


@dataclass(frozen=True)
class Opened:
    """What the page needs, and the cookie that opens the tile path."""

    tiles: str
    descriptor: dict[str, Any]
    thumbnail: str
    token: str
    cookie_path: str
    newer_tiles: bool
    edge_pass: str | None
    expires_in: int = tile_access.TOKEN_SECONDS


def open_slide(
    *, slide: Slide, user: User, session_key: str, held_store: str = "", request: HttpRequest | None = None
) -> Opened:
    """Call only for a slide out of Slide.objects.visible_to(user). `held_store`: the tiles that the page has open, which
    may have been replaced meanwhile; it reads on in them. Raises WrongState."""
    if slide.state != SlideState.READY:
        raise WrongState("This slide is not ready yet.")
    name = held_store if held_store in slide.earlier_stores else slide.store
    store = store_of(slide, name)
    partition = tile_access.partition_of(session_key)
    now = int(time.time())
    claims = tile_access.Claims(
        user_id=user.pk.hex,
        expires_at=now + tile_access.TOKEN_SECONDS,
        log_in_until=_log_in_until(session_key, now),
        mpp_x=slide.mpp_x,
        mpp_y=slide.mpp_y,
    )
    _note_viewing(slide=slide, user=user, partition=partition, request=request)
    path = tile_access.cookie_path(partition, slide.pk)
    return Opened(
        tiles=f"{path}{name}/",
        descriptor=open_stores.descriptor(store, mpp_x=slide.mpp_x, mpp_y=slide.mpp_y),
        thumbnail=f"{path}{name}/thumbnail.jpg",
        token=tile_access.sign(claims, partition=partition, slide_id=slide.pk, store=name),
        newer_tiles=name != slide.store,
        cookie_path=path,
        edge_pass=tile_access.edge_pass(claims.expires_at, partition=partition, slide_id=slide.pk, store=name)
        if settings.EDGE_KEY
        else None,
    )


def store_of(slide: Slide, name: str = "") -> TileStore:
    """The tiles of a ready slide: the current ones, or `name` of its earlier ones. Raises WrongState in words when they
    cannot be used."""
    try:
        return open_stores.opened(str(slide.pk), name or slide.store)
    except TileStoreDamaged as error:
        raise WrongState(f"{error} An operator can prepare the slide again.") from error


def _log_in_until(session_key: str, now: int) -> int:
    expires = Session.objects.filter(pk=session_key).values_list("expire_date", flat=True).first()
    return int(expires.timestamp()) if expires else now + tile_access.TOKEN_SECONDS


@transaction.atomic
def _note_viewing(*, slide: Slide, user: User, partition: str, request: HttpRequest | None) -> None:
    """One event per opening: renewals, and a second tab of the same log-in, only prolong it."""
    now = timezone.now()
    viewing, opened = Viewing.objects.get_or_create(
        slide=slide, partition=partition, defaults={"user": user, "opened_at": now, "renewed_at": now}
    )
    if not opened:
        row = Viewing.objects.filter(pk=viewing.pk)
        # The condition is checked again under the row's lock: of two requests at once only one is the opening.
        opened = row.filter(renewed_at__lt=now - SAME_OPENING).update(opened_at=now, renewed_at=now) == 1
        if not opened:
            row.update(renewed_at=now)
    if opened:
        record(
            EventKind.SLIDE_OPENED,
            actor=user,
            subject=slide,
            case_id=slide.case_id,
            slide_id=slide.pk,
            details={"sha256": slide.sha256},
            request=request,
        )


def visible_slide(user: User, slide_id: UUID) -> Slide | None:
    return Slide.objects.visible_to(user).select_related("case", "node").filter(pk=slide_id).first()
