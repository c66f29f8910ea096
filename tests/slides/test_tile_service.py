"""Tiles before Django: nothing without permission, and byte for byte the ordinary view."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import numpy as np
import pytest
from django.test import Client
from PIL import Image

from accounts.enums import Role
from accounts.models import User
from slides import tile_access, tile_service
from slides.models import CaseAccess, Slide
from slides.tile_service import tile_application
from tests.slides.conftest import give_access, logged_in, prepare_now

pytestmark = pytest.mark.django_db


class Answer:
    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = int(status.split()[0])
        self.headers = dict(headers)
        self.body = body
        assert len(self.headers) == len(headers), "a header stands twice"


def fetch(path: str, cookie: str = "", method: str = "GET", **headers: str) -> Answer:
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    if cookie:
        environ["HTTP_COOKIE"] = f"csrftoken=x; {cookie}; sessionid=y"
    environ.update({f"HTTP_{name.upper()}": value for name, value in headers.items()})
    begun: list[Any] = []
    body = b"".join(tile_application(environ, lambda status, headers: begun.append((status, headers))))
    [(status, answered)] = begun
    return Answer(status, answered, body)


class View:
    """An opened slide: the tiles' address and the cookie that the browser would send along."""

    def __init__(self, client: Client, slide: Slide) -> None:
        response = client.post(f"/api/slides/{slide.pk}/view/", {}, content_type="application/json")
        assert response.status_code == 200, response.content
        self.answer = response.json()
        self.morsel = response.cookies[tile_access.COOKIE_NAME]
        self.cookie = f"{tile_access.COOKIE_NAME}={self.morsel.value}"
        self.tiles: str = self.answer["tiles"]

    def fetch(self, rest: str, **options: str) -> Answer:
        return fetch(self.tiles + rest, self.cookie, **options)


@pytest.fixture
def client_of_reader(reader: User, ready_slide: Slide) -> Client:
    give_access(reader, ready_slide)
    return logged_in(reader)


@pytest.fixture
def view(client_of_reader: Client, ready_slide: Slide) -> View:
    return View(client_of_reader, ready_slide)


def test_opening_gives_all_a_viewer_needs(view: View, ready_slide: Slide) -> None:
    descriptor = view.answer["descriptor"]
    assert (descriptor["width"], descriptor["height"]) == (700, 600)
    assert (descriptor["mpp_x"], descriptor["mpp_y"]) == (0.5, 0.5)
    assert view.answer["expires_in"] == 60
    assert view.fetch("descriptor.json").body == fetch(view.tiles + "descriptor.json", view.cookie).body
    picture = Image.open(io.BytesIO(fetch(view.answer["thumbnail"], view.cookie).body))
    assert picture.size == (700, 600)


def test_the_cookie_is_for_this_slide_and_no_script(view: View, ready_slide: Slide) -> None:
    assert view.tiles.startswith(view.morsel["path"])
    assert view.morsel["path"].endswith(f"/{ready_slide.pk}/")
    assert (view.morsel["httponly"], view.morsel["samesite"], view.morsel["max-age"]) == (True, "Lax", 60)


def every_tile(view: View) -> Iterator[str]:
    for level in view.answer["descriptor"]["levels"]:
        for row in range(level["rows"]):
            for col in range(level["cols"]):
                yield f"{level['level']}/{col}_{row}.jpg"


def test_every_tile_equals_the_ordinary_view(view: View, client_of_reader: Client, ready_slide: Slide) -> None:
    tiles = list(every_tile(view))
    assert len(tiles) > 9
    for name in tiles:
        fast = view.fetch(name)
        reference = client_of_reader.get(f"/api/slides/{ready_slide.pk}/tiles/{ready_slide.store}/{name}")
        assert fast.status == reference.status_code == 200
        assert fast.body == reference.content
        for header in ("ETag", "Content-Type", "X-Content-Type-Options"):
            assert fast.headers[header] == reference[header]
        assert np.asarray(Image.open(io.BytesIO(fast.body))).ndim == 3


@pytest.mark.parametrize(
    "name",
    ["0/99_0.jpg", "9/0_0.jpg", "0/0_0.png", "0/-1_0.jpg", "0/0_0.jpg/", "x", "", "0/0.jpg", "../descriptor.json",
     "0/" + "9" * 5000 + "_0.jpg", "slide_files/12/0_0.jpg", "0,0,1,1/1,1/0/default.jpg"],
)  # fmt: skip
def test_what_is_not_there_is_404_and_never_kept(view: View, client_of_reader: Client, name: str) -> None:
    answer = view.fetch(name)
    assert answer.status == 404
    assert answer.headers["Cache-Control"] == "no-store"


def test_without_a_cookie_nothing_is_there(view: View) -> None:
    view.fetch("0/0_0.jpg")
    for cookie in (
        "",
        "metadet_tiles=",
        "metadet_tiles=~",
        "metadet_tiles=1~~~~~~",
        view.cookie + "0",
        view.cookie[:-1],
    ):
        answer = fetch(view.tiles + "0/0_0.jpg", cookie)
        assert (answer.status, answer.body) == (404, b"")
        assert answer.headers["Cache-Control"] == "no-store"


def test_no_character_of_a_token_can_be_another(view: View) -> None:
    name, _, token = view.cookie.partition("=")
    assert view.fetch("0/0_0.jpg").status == 200
    for place, right in enumerate(token):
        changed = token[:place] + ("1" if right == "0" else "0") + token[place + 1 :]
        assert fetch(view.tiles + "0/0_0.jpg", f"{name}={changed}").status == 404, place


def test_another_persons_token_does_not_open_a_warm_tile(
    view: View, ready_slide: Slide, person: Callable[..., User], received: Callable[..., Slide], tmp_path: Any
) -> None:
    assert view.fetch("0/0_0.jpg").status == 200
    stranger = person("stranger", Role.READER)
    client = logged_in(stranger)
    assert client.post(f"/api/slides/{ready_slide.pk}/view/").status_code == 404
    from tests.slides.conftest import write_slide

    other_slide = prepare_now(received(write_slide(tmp_path / "other.svs", seed=9), case="S2").pk)
    give_access(stranger, other_slide)
    theirs = View(client, other_slide)
    assert theirs.fetch("0/0_0.jpg").status == 200
    assert fetch(view.tiles + "0/0_0.jpg", theirs.cookie).status == 404
    grafted = theirs.tiles.replace(str(other_slide.pk), str(ready_slide.pk)).replace(
        other_slide.store, ready_slide.store
    )
    assert fetch(grafted + "0/0_0.jpg", theirs.cookie).status == 404
    assert fetch(grafted + "0/0_0.jpg", view.cookie).status == 404, "a token belongs to one log-in"


def test_two_people_have_two_addresses(view: View, ready_slide: Slide, person: Callable[..., User]) -> None:
    other = person("other", Role.READER)
    give_access(other, ready_slide)
    assert View(logged_in(other), ready_slide).tiles != view.tiles


def test_a_token_ends_with_its_minute(view: View, monkeypatch: Any) -> None:
    now = tile_service.time.time()
    monkeypatch.setattr(tile_service.time, "time", lambda: now + 55)
    assert view.fetch("0/0_0.jpg").status == 200
    monkeypatch.setattr(tile_service.time, "time", lambda: now + 61)
    assert view.fetch("0/0_0.jpg").status == 404


def test_a_withdrawn_right_is_not_renewed(view: View, client_of_reader: Client, ready_slide: Slide) -> None:
    CaseAccess.objects.all().delete()
    assert client_of_reader.post(f"/api/slides/{ready_slide.pk}/view/").status_code == 404
    assert client_of_reader.get(f"/api/slides/{ready_slide.pk}/tiles/{ready_slide.store}/0/0_0.jpg").status_code == 404


def test_a_log_out_ends_the_tiles(view: View, client_of_reader: Client, monkeypatch: Any) -> None:
    assert view.fetch("0/0_0.jpg").status == 200
    client_of_reader.post("/accounts/logout/")
    now = tile_service.time.time()
    monkeypatch.setattr(tile_service.time, "time", lambda: now + tile_access.VERDICT_SECONDS + 0.1)
    assert view.fetch("0/0_0.jpg").status == 404


def test_a_deleted_slide_has_no_tiles(
    view: View, operator: User, ready_slide: Slide, django_capture_on_commit_callbacks: Any
) -> None:
    assert view.fetch("0/0_0.jpg").status == 200
    with django_capture_on_commit_callbacks(execute=True):
        answer = logged_in(operator).post(
            f"/api/slides/{ready_slide.pk}/delete/", {"reason": "wrong case"}, content_type="application/json"
        )
    assert answer.status_code == 202
    tile_service.forget_verdicts()
    assert view.fetch("0/0_0.jpg").status == 404


def test_only_reading_is_allowed_and_only_with_permission(view: View) -> None:
    assert view.fetch("0/0_0.jpg", method="POST").status == 405
    assert view.fetch("0/0_0.jpg", method="POST").headers["Allow"] == "GET, HEAD"
    assert fetch(view.tiles + "0/0_0.jpg", method="POST").status == 404


def test_head_is_get_without_its_body(view: View) -> None:
    get, head = view.fetch("0/0_0.jpg"), view.fetch("0/0_0.jpg", method="HEAD")
    assert head.body == b""
    assert head.headers == get.headers
    assert head.headers["Content-Length"] == str(len(get.body))


def test_a_known_etag_is_answered_without_the_bytes(view: View) -> None:
    etag = view.fetch("0/0_0.jpg").headers["ETag"]
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        answer = view.fetch("0/0_0.jpg", if_none_match=known)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", etag)
    assert view.fetch("0/0_0.jpg", if_none_match='"other"').status == 200
    assert fetch(view.tiles + "0/0_0.jpg", if_none_match=etag).status == 404, "an ETag tells a stranger nothing"


def test_etags_differ_from_tile_to_tile(view: View) -> None:
    etags = [view.fetch(name).headers["ETag"] for name in every_tile(view)]
    assert len(set(etags)) == len(etags)


@pytest.mark.parametrize(
    ("wanted", "piece"),
    [("bytes=0-9", slice(0, 10)), ("bytes=10-", slice(10, None)), ("bytes=-7", slice(-7, None)),
     ("bytes=5-999999", slice(5, None)), ("bytes=0-0", slice(0, 1))],
)  # fmt: skip
def test_a_range_is_a_piece(view: View, wanted: str, piece: slice) -> None:
    whole = view.fetch("0/0_0.jpg").body
    answer = view.fetch("0/0_0.jpg", range=wanted)
    assert (answer.status, answer.body) == (206, whole[piece])
    first = range(len(whole))[piece]
    assert answer.headers["Content-Range"] == f"bytes {first.start}-{first.stop - 1}/{len(whole)}"


@pytest.mark.parametrize("wanted", ["bytes=9-1", "bytes=", "bytes=a-b", "lines=0-1", "bytes=0-1,5-6"])
def test_a_range_that_makes_no_sense_is_ignored(view: View, wanted: str) -> None:
    assert view.fetch("0/0_0.jpg", range=wanted).status == 200


@pytest.mark.parametrize("wanted", ["bytes=9999999-", "bytes=-0"])
def test_a_range_outside_is_416(view: View, wanted: str) -> None:
    answer = view.fetch("0/0_0.jpg", range=wanted)
    assert answer.status == 416
    assert answer.headers["Content-Range"].startswith("bytes */")
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_range_of_another_version_is_answered_whole(view: View) -> None:
    assert view.fetch("0/0_0.jpg", range="bytes=0-9", if_range='"older"').status == 200


def test_tiles_are_kept_by_this_browser_alone_and_not_beyond_the_log_in(view: View) -> None:
    kept = view.fetch("0/0_0.jpg").headers["Cache-Control"]
    assert kept.startswith("private, max-age=")
    assert 0 < int(kept.rsplit("=", 1)[1]) <= 12 * 3600


def test_iiif_gives_the_whole_image_as_large_as_there_is_one(view: View) -> None:
    info = json.loads(view.fetch("info.json").body)
    [size] = info["sizes"]
    whole = view.fetch("full/max/0/default.jpg")
    assert (whole.status, whole.headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(whole.body)).size == (size["width"], size["height"])
    assert info["maxWidth"] == max(size.values())
    assert view.fetch(f"full/{size['width']},{size['height']}/0/default.jpg").body == whole.body
    for refused in (
        "full/10,10/0/default.jpg",
        "full/max/90/default.jpg",
        "full/max/0/grey.jpg",
        "full/max/0/default.png",
    ):
        assert view.fetch(refused).status == 404


def test_iiif_names_a_tile_that_is_the_whole_image_full(view: View) -> None:
    """As canonical addresses do, and with them OpenSeadragon."""
    [level] = [each for each in view.answer["descriptor"]["levels"] if each["cols"] * each["rows"] == 1][:1]
    size = f"{level['width']},{level['height']}"
    answer = view.fetch(f"full/{size}/0/default.jpg")
    assert answer.body == view.fetch(f"{level['level']}/0_0.jpg").body
    assert answer.body == view.fetch(f"0,0,700,600/{size}/0/default.jpg").body


def test_every_answer_needs_the_token(view: View) -> None:
    """Whatever is served over the store: nothing of it is there for who has no right, warm or not."""
    [group] = [each for each in json.loads(view.fetch("info.json").body)["tiles"] if each["scaleFactors"] == [1]]
    iiif = f"0,0,{group['width']},{group['height']}/{group['width']},{group['height']}/0/default.jpg"
    for rest in ("0/0_0.jpg", "thumbnail.jpg", "descriptor.json", "info.json", "full/max/0/default.jpg", iiif):
        assert view.fetch(rest).status == 200, rest
        for method in ("GET", "HEAD"):
            stranger = fetch(view.tiles + rest, method=method)
            assert (stranger.status, stranger.body) == (404, b"")
            assert stranger.headers["Cache-Control"] == "no-store"
            assert "ETag" not in stranger.headers


def test_a_file_that_was_cut_is_an_error_and_no_picture(
    view: View, client_of_reader: Client, ready_slide: Slide
) -> None:
    assert view.fetch("0/0_0.jpg").status == 200
    with ready_slide.source_path.open("r+b") as file:
        file.truncate(500)  # under an open store: a drive that failed
    answer = view.fetch("0/0_0.jpg")
    assert (answer.status, answer.headers["Cache-Control"]) == (503, "no-store")
    assert "ETag" not in answer.headers
    reference = client_of_reader.get(f"/api/slides/{ready_slide.pk}/tiles/{ready_slide.store}/0/0_0.jpg")
    assert (reference.status_code, reference["Cache-Control"]) == (503, "no-store")


def test_the_next_person_at_the_same_browser_gets_nothing(
    view: View, client_of_reader: Client, ready_slide: Slide, person: Callable[..., User], monkeypatch: Any
) -> None:
    """The browser still holds the cookie of the person before, and its history the addresses."""
    assert view.fetch("0/0_0.jpg").status == 200
    client_of_reader.post("/accounts/logout/")
    client_of_reader.force_login(person("next", Role.READER), backend="django.contrib.auth.backends.ModelBackend")
    now = tile_service.time.time()
    monkeypatch.setattr(tile_service.time, "time", lambda: now + tile_access.VERDICT_SECONDS + 0.1)
    assert view.fetch("0/0_0.jpg").status == 404
    assert client_of_reader.post(f"/api/slides/{ready_slide.pk}/view/").status_code == 404


def test_a_slide_without_profile_has_no_table_of_colours(view: View) -> None:
    assert view.answer["descriptor"]["colour"] is None
    assert view.fetch("colour.lut").status == 404


def test_iiif_names_every_tile_once(view: View) -> None:
    info = json.loads(view.fetch("info.json").body)
    assert (info["width"], info["height"], info["profile"]) == (700, 600, "level0")
    assert info["id"].endswith(view.tiles.rstrip("/"))
    seen = set()
    for group in info["tiles"]:
        for factor in group["scaleFactors"]:
            step = (group["width"] * factor, group["height"] * factor)
            for y in range(0, 600, step[1]):
                for x in range(0, 700, step[0]):
                    w, h = min(step[0], 700 - x), min(step[1], 600 - y)
                    answer = view.fetch(f"{x},{y},{w},{h}/{-(-w // factor)},{-(-h // factor)}/0/default.jpg")
                    assert answer.status == 200
                    seen.add(answer.headers["ETag"])
    assert seen == {view.fetch(name).headers["ETag"] for name in every_tile(view)}


def test_a_corrected_scale_reaches_the_viewer(view: View, operator: User, ready_slide: Slide, reader: User) -> None:
    from slides.ingest import correct_scale

    correct_scale(slide_id=ready_slide.pk, mpp_x=0.25, mpp_y=0.26, reason="scanner log", actor=operator)
    again = View(logged_in(reader), ready_slide)
    assert (again.answer["descriptor"]["mpp_x"], again.answer["descriptor"]["mpp_y"]) == (0.25, 0.26)
    assert b'"mpp_x": 0.25' in again.fetch("descriptor.json").body


def test_a_store_that_cannot_be_used_is_503_and_not_kept(view: View, ready_slide: Slide, monkeypatch: Any) -> None:
    from slides import open_stores

    tile_service.forget_verdicts()
    open_stores.forget(str(ready_slide.pk))
    ready_slide.source_path.write_bytes(b"something else")
    answer = view.fetch("0/0_0.jpg")
    assert answer.status == 503
    assert answer.headers["Cache-Control"] == "no-store"
