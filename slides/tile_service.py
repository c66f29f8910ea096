"""Tiles at the price of a look-up: a plain WSGI callable on /tiles/, before Django's middleware (measured: design 4.4).

    /tiles/<partition>/<slide>/<store>/<level>/<col>_<row>.jpg     one ready tile
    .../descriptor.json  .../thumbnail.jpg  .../colour.lut         for the viewer
    .../info.json  .../<region>/<size>/0/default.jpg               IIIF Image API 3, level 0: tiles, and the thumbnail as full/max
    .../slide.dzi  .../slide_files/<dzi level>/<col>_<row>.jpg     Deep Zoom, where the tiles allow it

Permission comes before anything else, and whatever is not allowed is 404. slides.api.TileView is the same tile as an
ordinary view: the reference that the tests hold this against.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from slides import open_stores, tile_access, tile_layouts
from slides.wsi.errors import TileStoreDamaged
from slides.wsi.jpeg_stream import parse_frame
from slides.wsi.tile_store import COLOUR_NAME, TileStore

log = logging.getLogger(__name__)

Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]

MOST_VERDICTS = 5000
_COOKIE = tile_access.COOKIE_NAME + "="
_ERROR_HEADERS: Headers = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
]


class _Verdict:
    """That a token holds here, remembered for a few seconds, with all that does not change from tile to tile."""

    __slots__ = ("cache_control", "claims", "holds_until", "store")

    def __init__(self, claims: tile_access.Claims, store: TileStore, now: float) -> None:
        self.claims = claims
        self.store = store
        self.holds_until = min(now + tile_access.VERDICT_SECONDS, claims.expires_at)
        # Never longer than the log-in: the address dies with it (its partition), and so must what a browser kept.
        self.cache_control = f"private, max-age={max(0, int(claims.log_in_until - now))}"


_verdicts: dict[tuple[str, str, str, str], _Verdict] = {}
_verdicts_lock = threading.Lock()


def tile_application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    parts = environ["PATH_INFO"].split("/", 5)  # "", tiles, partition, slide, store, rest
    if len(parts) != 6:
        return _refuse(start_response, "404 Not Found")
    try:
        verdict = _verdict(_token(environ.get("HTTP_COOKIE", "")), parts[2], parts[3], parts[4])
    except TileStoreDamaged as error:
        log.error("Slide %s: %s", parts[3], error)
        return _refuse(start_response, "503 Service Unavailable", str(error))
    if verdict is None:
        return _refuse(start_response, "404 Not Found")
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return _refuse(start_response, "405 Method Not Allowed", extra=[("Allow", "GET, HEAD")])
    try:
        content_type, data, etag = _content(verdict, parts[5], environ)
    except (KeyError, ValueError):
        return _refuse(start_response, "404 Not Found")
    except OSError as error:
        log.error("Slide %s cannot be read: %s", parts[3], error)
        return _refuse(start_response, "503 Service Unavailable", "The slide's file cannot be read now.")
    return _answer(environ, start_response, verdict, content_type, data, etag)


def forget_verdicts() -> None:
    _verdicts.clear()


def _token(cookies: str) -> str:
    for cookie in cookies.split(";"):
        cookie = cookie.strip()
        if cookie.startswith(_COOKIE):
            return cookie[len(_COOKIE) :]
    return ""


def _verdict(token: str, partition: str, slide_id: str, store: str) -> _Verdict | None:
    """Raises TileStoreDamaged. The store's name may be used as a path only because the token names it and is ours."""
    now = time.time()
    key = (token, partition, slide_id, store)
    kept = _verdicts.get(key)
    if kept is not None and now < kept.holds_until:
        return kept
    claims = tile_access.check(token, partition=partition, slide_id=slide_id, store=store, now=now) if token else None
    if claims is None:
        _verdicts.pop(key, None)
        return None
    verdict = _Verdict(claims, open_stores.opened(slide_id, store), now)
    with _verdicts_lock:
        if len(_verdicts) >= MOST_VERDICTS:
            for old in [old for old, kept in list(_verdicts.items()) if kept.holds_until <= now]:
                _verdicts.pop(old, None)
            if len(_verdicts) >= MOST_VERDICTS:
                _verdicts.clear()
        _verdicts[key] = verdict
    return verdict


def _content(verdict: _Verdict, rest: str, environ: dict[str, Any]) -> tuple[str, bytes, str]:
    """(content type, bytes, ETag). Raises KeyError or ValueError for what is not there."""
    store = verdict.store
    level, _, name = rest.partition("/")
    if name.endswith(".jpg") and level.isdecimal():
        col, _, row = name[:-4].partition("_")
        if not (col.isdecimal() and row.isdecimal()):
            raise KeyError(rest)
        tile = store.tile(int(level), int(col), int(row))
        return "image/jpeg", tile.data, tile.etag
    if rest == "thumbnail.jpg":
        data = _thumbnail(store)[0]
        return "image/jpeg", data, tile_layouts.etag_of(data)
    if rest == COLOUR_NAME:
        data = store.colour_table()
        return "application/octet-stream", data, tile_layouts.etag_of(data)
    if rest == "descriptor.json":
        claims = verdict.claims
        return _json(open_stores.descriptor(store, mpp_x=claims.mpp_x, mpp_y=claims.mpp_y))
    if rest == "info.json":
        address = f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST', '')}{environ['PATH_INFO']}"
        address = address.removesuffix("/info.json")
        return _json(tile_layouts.iiif_info(store.levels, address=address, thumbnail=_thumbnail(store)[1]))
    if rest.startswith("full/"):
        data, size = _thumbnail(store)
        if tile_layouts.is_iiif_whole(rest, size):
            return "image/jpeg", data, tile_layouts.etag_of(data)
    if rest == "slide.dzi":
        data = tile_layouts.dzi(store.levels).encode()
        return "application/xml", data, tile_layouts.etag_of(data)
    if rest.startswith("slide_files/"):
        tile = store.tile(*tile_layouts.dzi_tile(store.levels, rest.removeprefix("slide_files/")))
        return "image/jpeg", tile.data, tile.etag
    tile = store.tile(*tile_layouts.iiif_tile(store.levels, rest))
    return "image/jpeg", tile.data, tile.etag


def _thumbnail(store: TileStore) -> tuple[bytes, tuple[int, int]]:
    """(the JPEG, its width and height)"""
    data = (store.folder / "thumbnail.jpg").read_bytes()
    frame = parse_frame(data)
    return data, (frame.width, frame.height)


def _json(value: dict[str, Any]) -> tuple[str, bytes, str]:
    data = json.dumps(value).encode()
    return "application/json", data, tile_layouts.etag_of(data)


def _answer(
    environ: dict[str, Any],
    start_response: StartResponse,
    verdict: _Verdict,
    content_type: str,
    data: bytes,
    etag: str,
) -> Iterable[bytes]:
    headers: Headers = [
        ("Content-Type", content_type),
        ("ETag", etag),
        ("Cache-Control", verdict.cache_control),
        ("X-Content-Type-Options", "nosniff"),
        ("Accept-Ranges", "bytes"),
    ]
    known = environ.get("HTTP_IF_NONE_MATCH")
    if known is not None and _names(known, etag):
        start_response("304 Not Modified", headers[1:4])
        return [b""]
    status = "200 OK"
    wanted = environ.get("HTTP_RANGE")
    if wanted is not None and environ.get("HTTP_IF_RANGE", etag) == etag:
        try:
            piece = _piece(wanted, len(data))
        except ValueError:
            refusal = [("Content-Range", f"bytes */{len(data)}")]
            return _refuse(start_response, "416 Range Not Satisfiable", extra=refusal)
        if piece is not None:
            status = "206 Partial Content"
            headers.append(("Content-Range", f"bytes {piece.start}-{piece.stop - 1}/{len(data)}"))
            data = data[piece]
    headers.append(("Content-Length", str(len(data))))
    start_response(status, headers)
    return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [data]


def _names(known: str, etag: str) -> bool:
    """If-None-Match compares weakly (RFC 9110 13.1.2)."""
    return any(one.strip() == "*" or one.strip().removeprefix("W/") == etag for one in known.split(","))


def _piece(wanted: str, size: int) -> slice | None:
    """The bytes of a single range; None where the header is to be ignored (RFC 9110 14.2). Raises ValueError for 416."""
    unit, _, spec = wanted.partition("=")
    first, dash, last = spec.strip().partition("-")
    well_formed = dash and (first.isdecimal() or not first) and (last.isdecimal() or not last) and (first or last)
    if unit.strip().lower() != "bytes" or not well_formed or (first and last and int(first) > int(last)):
        return None
    if not first:
        if int(last) == 0:
            raise ValueError(wanted)
        return slice(max(0, size - int(last)), size)
    if int(first) >= size:
        raise ValueError(wanted)
    return slice(int(first), min(size, int(last) + 1) if last else size)


def _refuse(
    start_response: StartResponse, status: str, words: str = "", *, extra: Headers | None = None
) -> Iterable[bytes]:
    data = words.encode()
    start_response(status, [*_ERROR_HEADERS, ("Content-Length", str(len(data))), *(extra or [])])
    return [data]
