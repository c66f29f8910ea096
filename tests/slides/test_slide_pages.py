"""The operator's pages: what arrived, what became of it, what it needs."""

from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from accounts.enums import Role
from accounts.models import User
from jobs.enums import JobKind
from jobs.models import Job
from jobs.queue import enqueue
from slides import ingest
from slides.enums import SlideState
from slides.models import Slide
from slides.wsi.facts import NEEDS_SCALE
from slides.wsi.quality import Quality
from tests.slides.conftest import Tus, logged_in, prepare_now, write_slide

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
    Job.objects.update(state="done")
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
    assert "an operator must enter it before detection" in client.get("/slides/").content.decode()
    assert (
        f'data-api="/api/slides/{ready_slide.pk}/scale/"' in client.get(f"/slides/{ready_slide.pk}/").content.decode()
    )


def test_the_page_says_of_a_file_what_the_command_says(
    operator: User, received: Callable[..., Slide], tmp_path: Path, capsys: Any
) -> None:
    slide = prepare_now(received(write_slide(tmp_path / "made.svs", mpp=None)).pk)
    call_command("check_slide", str(tmp_path / "made.svs"))
    lines = capsys.readouterr().out.splitlines()
    page = unescape(logged_in(operator).get(f"/slides/{slide.pk}/").content.decode())
    assert len(lines) == 10
    for line in lines[1:-1]:
        what, _, words = line.strip().partition(": ")
        assert f"<dt>{what}</dt><dd>{words}</dd>" in page
    assert lines[-1] in page


def test_what_was_found_of_tissue_ink_blur_and_damage_stands_on_the_page(operator: User, ready_slide: Slide) -> None:
    found = Quality(
        tissue_mm2=31.26, tissue_fraction=0.2, ink_mm2=4.2, ink_share=0.03, blurred_share=0.124, measured_mm2=25.0
    )
    Slide.objects.update(quality=found.to_json(), corrupt_tiles=3, missing_tiles=1503)
    client = logged_in(operator)
    page = client.get(f"/slides/{ready_slide.pk}/").content.decode()
    for words in (
        "<dt>Tissue</dt><dd>31.3 mm² (20 % of the scan)</dd>",
        "<dt>Pen ink</dt><dd>4.2 mm² (3 % of the scan)</dd>",
        "<dt>Out of focus</dt><dd>12 % of the 25.0 mm² that were measured</dd>",
        "<dt>Damaged tiles</dt><dd>3, shown hatched; they count as not read</dd>",
        "<dt>Tiles not stored</dt><dd>1,500, shown hatched</dd>",
    ):
        assert words in page
    Slide.objects.update(quality=Quality(None, 0.2, None, 0.0).to_json())
    assert f"<dt>Out of focus</dt><dd>{NEEDS_SCALE}</dd>" in client.get(f"/slides/{ready_slide.pk}/").content.decode()
    Slide.objects.update(quality=found.to_json())
    listed = client.get("/slides/").content.decode()
    assert "Out of focus: 12 %" in listed
    assert "3 tiles damaged" in listed


def test_a_check_under_way_is_shown_and_can_be_filtered_for(
    operator: User, ready_slide: Slide, received: Callable[..., Slide]
) -> None:
    client = logged_in(operator)
    assert "not every tile checked" not in client.get("/slides/").content.decode()
    Slide.objects.update(tile_check="waiting")
    job = enqueue(kind=JobKind.CHECK_SLIDE, subject_id=ready_slide.pk, parameters={"store": ready_slide.store})
    Job.objects.filter(pk=job.pk).update(state="running", stage="checking tiles", progress=0.43)
    page = client.get("/slides/?state=not_checked").content.decode()
    assert f"/slides/{ready_slide.pk}/look/" in page
    assert "checking tiles" in page
    assert "43 %" in page
    assert f"/api/slides/{ready_slide.pk}/detect" not in page
    assert f'data-api="/api/jobs/{job.pk}/cancel/"' in client.get(f"/slides/{ready_slide.pk}/").content.decode()


def test_a_check_that_failed_says_why_and_offers_another_attempt(operator: User, ready_slide: Slide) -> None:
    Slide.objects.update(tile_check="failed", tile_check_reason="The decoder hung.")
    for path in ("/slides/", f"/slides/{ready_slide.pk}/"):
        page = logged_in(operator).get(path).content.decode()
        assert "The decoder hung." in page
        assert f'data-api="/api/slides/{ready_slide.pk}/retry/"' in page


def test_the_storage_left_the_floor_and_the_quota_are_said(operator: User, ready_slide: Slide, settings: Any) -> None:
    settings.DISK_FLOOR_BYTES, settings.UPLOAD_QUOTA_BYTES = 7 * 2**30, 300 * 2**30
    Slide.objects.update(imported_in_place=False, size_bytes=5 * 2**30)
    page = logged_in(operator).get("/slides/").content.decode().replace("\xa0", " ")
    assert "above the 7.0 GB that are kept free" in page
    assert "5.0 GB of 300.0 GB" in page


def test_the_other_slides_of_a_file_are_named(operator: User, ready_slide: Slide) -> None:
    ingest.link_slide(slide_id=ready_slide.pk, accession="S2", node_label="", actor=operator)
    page = logged_in(operator).get(f"/slides/{ready_slide.pk}/").content.decode()
    assert "slide 1 of case S2" in page


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
