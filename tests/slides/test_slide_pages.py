"""The operator's pages: what arrived, what became of it, what it needs."""

from collections.abc import Callable
from typing import Any

import pytest

from accounts.enums import Role
from accounts.models import User
from slides import ingest
from slides.enums import SlideState
from slides.models import Slide
from tests.slides.conftest import Tus, logged_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def front_end(monkeypatch: Any) -> None:
    """Pages are tested without a built front end; the journey in the browser tests them with it."""
    monkeypatch.setattr("metadet_site.templatetags.frontend.read_manifest", lambda _: MANIFEST)


MANIFEST = {name: {"isEntry": True, "name": name, "file": f"{name}.js"} for name in ("pages", "upload", "viewer")}


def test_an_empty_list_says_what_to_do(operator: User) -> None:
    page = logged_in(operator).get("/slides/").content.decode()
    assert "No slide has arrived yet" in page
    assert 'data-endpoint="/api/uploads/"' in page
    assert "manage.py import_slides" in page


def test_the_list_shows_state_reason_and_what_can_be_done(operator: User, received: Callable[..., Slide]) -> None:
    slide = received()
    ingest.change_state(slide, SlideState.QUARANTINED, reason_code="truncated", reason="The copy did not finish.")
    page = logged_in(operator).get("/slides/").content.decode()
    assert "The copy did not finish." in page
    assert f'data-api="/api/slides/{slide.pk}/retry/"' in page
    assert f"/slides/{slide.pk}/look/" not in page


def test_a_slide_without_scale_asks_for_it(operator: User, ready_slide: Slide) -> None:
    ready_slide.mpp_x = ready_slide.mpp_y = None
    ready_slide.scale_state = "missing"
    ready_slide.save()
    client = logged_in(operator)
    assert "enter it before detection can run" in client.get("/slides/").content.decode()
    assert (
        f'data-api="/api/slides/{ready_slide.pk}/scale/"' in client.get(f"/slides/{ready_slide.pk}/").content.decode()
    )


def test_the_list_is_filtered_by_state_and_case(operator: User, ready_slide: Slide) -> None:
    client = logged_in(operator)
    for query, shown in [
        ("", True),
        ("?state=ready", True),
        ("?state=failed", False),
        ("?q=S1", True),
        ("?q=zz", False),
    ]:
        page = client.get(f"/slides/{query}").content.decode()
        assert (f"/slides/{ready_slide.pk}/" in page) is shown, query
    assert "No slide matches" in client.get("/slides/?q=zz").content.decode()


def test_refused_uploads_stay_listed_until_they_are_cleared_away(tus: Tus) -> None:
    tus.create(0, name="empty.svs")
    page = tus.client.get("/slides/").content.decode()
    assert "empty.svs" in page
    assert "empty (0 bytes)" in page
    [url] = [part.split('"')[0] for part in page.split('data-api="') if "/dismiss/" in part.split('"')[0]]
    assert tus.client.post(url, {}, content_type="application/json").status_code == 204
    assert "empty.svs" not in tus.client.get("/slides/").content.decode()


def test_names_are_text_on_the_page(tus: Tus) -> None:
    tus.send(b"bytes", name="<script>alert(1)</script>.svs", case="<b>S1</b>")
    page = tus.client.get("/slides/").content.decode()
    assert "<script>alert" not in page
    assert "<b>S1" not in page
    assert "&lt;b&gt;S1" in page


def test_the_detail_page_opens_for_every_state(operator: User, ready_slide: Slide) -> None:
    client = logged_in(operator)
    for state in SlideState:
        Slide.objects.update(state=state)
        assert client.get(f"/slides/{ready_slide.pk}/").status_code == 200


@pytest.mark.parametrize(
    ("role", "statuses"),
    [(Role.OPERATOR, (200, 200, 200)), (Role.ADMINISTRATOR, (200, 200, 200)), (Role.AUDITOR, (403, 403, 200)),
     (Role.READER, (403, 403, 403))],
)  # fmt: skip
def test_pages_are_for_their_roles(
    person: Callable[..., User], ready_slide: Slide, role: Role, statuses: tuple[int, ...]
) -> None:
    client = logged_in(person("somebody", role))
    paths = ("/slides/", f"/slides/{ready_slide.pk}/", f"/slides/{ready_slide.pk}/look/")
    assert tuple(client.get(path).status_code for path in paths) == statuses


def test_looking_shows_the_viewer_without_any_ai(operator: User, ready_slide: Slide) -> None:
    answer = logged_in(operator).get(f"/slides/{ready_slide.pk}/look/")
    boot = answer.context["boot"]
    assert (boot["mode"], boot["read_id"]) == ("look", None)
    assert boot["urls"]["view"] == f"/api/slides/{ready_slide.pk}/view/"
    assert "ai" not in boot["urls"]


def test_a_slide_that_is_not_ready_is_not_looked_at(operator: User, received: Callable[..., Slide]) -> None:
    answer = logged_in(operator).get(f"/slides/{received().pk}/look/")
    assert answer.status_code == 409
    assert "cannot be shown yet" in answer.content.decode()
