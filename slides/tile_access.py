"""Who may fetch tiles: a short-lived token of one person, one log-in, one slide, one tile store.

Django decides once (visible_to) and signs; the tile path checks the signature and never asks the database. A right that
is withdrawn ends with the token, at most TOKEN_SECONDS later; a log-out and a deletion end it within VERDICT_SECONDS.
"""

import base64
import hashlib
import hmac
import math
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.conf import settings

COOKIE_NAME = "metadet_tiles"
EDGE_COOKIE_NAME = "metadet_edge"
TOKEN_SECONDS = 60
VERDICT_SECONDS = 3.0
_SEPARATOR = "~"  # allowed in a cookie value without quoting, and in no field


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. Times are seconds since 1970; the scale is the slide's own, with corrections."""

    user_id: str
    expires_at: int
    log_in_until: int
    mpp_x: float | None
    mpp_y: float | None


def partition_of(session_key: str) -> str:
    """Not a secret: tells one log-in's addresses from another's, so that a browser's cache never serves the next person."""
    return hmac.new(_key("partition"), session_key.encode(), hashlib.sha256).hexdigest()[:16]


def cookie_path(partition: str, slide_id: UUID | str) -> str:
    return f"/tiles/{partition}/{slide_id}/"


def sign(claims: Claims, *, partition: str, slide_id: UUID | str, store: str) -> str:
    fields = [
        "1",
        claims.user_id,
        str(claims.expires_at),
        str(claims.log_in_until),
        _number(claims.mpp_x),
        _number(claims.mpp_y),
    ]
    body = _SEPARATOR.join(fields)
    return body + _SEPARATOR + _signature(body, partition, str(slide_id), store)


def check(token: str, *, partition: str, slide_id: str, store: str, now: float | None = None) -> Claims | None:
    """The claims of a token that holds for this very place and time, else None."""
    body, _, signature = token.rpartition(_SEPARATOR)
    if not hmac.compare_digest(signature.encode(), _signature(body, partition, slide_id, store).encode()):
        return None
    version, user_id, expires_at, log_in_until, mpp_x, mpp_y = body.split(_SEPARATOR)  # signed by us: well-formed
    claims = Claims(user_id, int(expires_at), int(log_in_until), _optional(mpp_x), _optional(mpp_y))
    now = time.time() if now is None else now
    if version != "1" or now >= claims.expires_at or now >= claims.log_in_until:
        return None
    if is_revoked(partition) or is_revoked(slide_id):
        return None
    return claims


def edge_pass(expires_at: int, *, partition: str, slide_id: UUID | str, store: str) -> str:
    """The same leave in the form that nginx's secure_link checks by itself: MD5 with a key at the end, which is all it knows."""
    place = f"{expires_at} {partition} {slide_id} {store} {settings.EDGE_KEY}"
    digest = hashlib.md5(place.encode(), usedforsecurity=True).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") + _SEPARATOR + str(expires_at)


def revoke(name: str) -> None:
    """Ends every token of a log-in (its partition) or of a slide (its id) before it runs out, in all web processes."""
    folder = _revoked_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def is_revoked(name: str) -> bool:
    return (_revoked_folder() / name).exists()


def forget_old_revocations(*, now: float | None = None) -> None:
    """Removes marks that no living token can meet any more."""
    oldest = (time.time() if now is None else now) - 10 * TOKEN_SECONDS
    for mark in _revoked_folder().glob("*"):
        if mark.stat().st_mtime < oldest:
            mark.unlink(missing_ok=True)


def _revoked_folder() -> Path:
    return Path(settings.METADET_HOME) / "revoked"


def _signature(body: str, partition: str, slide_id: str, store: str) -> str:
    place = "\0".join([body, partition, slide_id, store])
    return hmac.new(_key("token"), place.encode(), hashlib.sha256).hexdigest()


def _key(purpose: str) -> bytes:
    return hashlib.sha256(f"metadet tiles {purpose} {settings.SECRET_KEY}".encode()).digest()


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def _optional(text: str) -> float | None:
    return float(text) if text else None
