"""The JSON API: each may see and do what is theirs, and what one may not see is 404."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.enums import Role
from accounts.models import User
from audit_trail.models import Event
from jobs.models import Job
from slides import ingest
from slides.errors import WrongState
from slides.models import AssociatedImage, Slide
from slides.signals import slide_deleting
from tests.slides.conftest import Tus, give_access, logged_in, prepare_now, write_slide

pytestmark = pytest.mark.django_db

ACTS = ("retry", "scale", "delete", "link")


def post(client: Client, url: str, /, **body: Any) -> Any:
    return client.post(url, body, content_type="application/json")


def test_an_operator_sees_state_reason_and_job(operator: User, received: Callable[..., Slide]) -> None:
    slide = received()
    answer = logged_in(operator).get(f"/api/slides/{slide.pk}/").json()
    assert answer["case"] == "S1"
    assert answer["name"] == "slide 1"
    assert answer["file_name"] == "made.svs"
    assert answer["state"] == "checking"
    assert answer["progress"] == 0.0
    assert answer["job"]["kind"] == "prepare_slide"
    assert answer["size_bytes"] == slide.size_bytes


def test_the_list_is_filtered_by_case_and_state(
    operator: User, received: Callable[..., Slide], tmp_path: Path, django_assert_max_num_queries: Any
) -> None:
    for number in range(4):
        received(write_slide(tmp_path / f"{number}.svs", seed=number), case=f"S{number % 2}")
    client = logged_in(operator)
    with django_assert_max_num_queries(6):
        assert client.get("/api/slides/").json()["count"] == 4
    assert client.get("/api/slides/?case=S1").json()["count"] == 2
    assert client.get("/api/slides/?state=ready").json()["count"] == 0
    assert client.get("/api/slides/?state=checking&case=S0").json()["count"] == 2


def test_a_reader_sees_ready_slides_of_own_cases_without_file_names(
    reader: User, ready_slide: Slide, received: Callable[..., Slide], tmp_path: Path
) -> None:
    received(write_slide(tmp_path / "not-ready.svs", seed=5), case="S1")
    other = received(write_slide(tmp_path / "other.svs", seed=6), case="S2")
    client = logged_in(reader)
    assert client.get("/api/slides/").json()["results"] == []
    assert client.get(f"/api/slides/{ready_slide.pk}/").status_code == 404
    give_access(reader, ready_slide)
    [seen] = client.get("/api/slides/").json()["results"]
    assert (seen["id"], seen["file_name"]) == (str(ready_slide.pk), None)
    assert client.get(f"/api/slides/{other.pk}/").status_code == 404
    assert client.get(f"/api/slides/{uuid.uuid4()}/").status_code == 404


@pytest.mark.parametrize("path", ["/api/slides/", "/api/slides/{id}/", "/api/slides/{id}/thumbnail.jpg", "/slides/"])
def test_a_stranger_sees_nothing(ready_slide: Slide, path: str) -> None:
    answer = Client().get(path.format(id=ready_slide.pk))
    assert answer.status_code in (302, 403)
    assert str(ready_slide.pk).encode() not in answer.content


def test_a_person_who_left_sees_nothing(operator: User, ready_slide: Slide) -> None:
    client = logged_in(operator)
    operator.is_active = False
    operator.save()
    assert client.get(f"/api/slides/{ready_slide.pk}/").status_code == 403


@pytest.mark.parametrize("role", [Role.READER, Role.AUDITOR, Role.ADJUDICATOR])
def test_acts_are_for_operators(person: Callable[..., User], ready_slide: Slide, role: Role) -> None:
    user = person("somebody", role)
    give_access(user, ready_slide)
    client = logged_in(user)
    for act in ACTS:
        assert (
            post(
                client, f"/api/slides/{ready_slide.pk}/{act}/", reason="x", mpp_x=0.5, mpp_y=0.5, case="S1"
            ).status_code
            == 403
        )
    assert post(client, "/api/imports/", path="/x", case="S1").status_code == 403
    job = Job.objects.first()
    assert client.get(f"/api/jobs/{job.pk}/").status_code == 403
    assert post(client, f"/api/jobs/{job.pk}/cancel/").status_code == 403


@pytest.mark.parametrize("act", ACTS)
def test_an_act_on_what_is_not_there_is_404(operator: User, act: str) -> None:
    answer = post(
        logged_in(operator), f"/api/slides/{uuid.uuid4()}/{act}/", reason="x", mpp_x=0.5, mpp_y=0.5, case="S2"
    )
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


def test_retry_answers_with_the_job(operator: User, ready_slide: Slide) -> None:
    answer = post(logged_in(operator), f"/api/slides/{ready_slide.pk}/retry/")
    assert answer.status_code == 202
    job = Job.objects.get(pk=answer.json()["job"]["id"])
    assert (job.subject_id, job.requested_by_id) == (ready_slide.pk, operator.pk)
    again = post(logged_in(operator), f"/api/slides/{ready_slide.pk}/retry/")
    assert (again.status_code, again.json()["error"]) == (400, "wrong_state")


def test_a_scale_is_entered_and_a_bad_one_refused_in_words(operator: User, ready_slide: Slide) -> None:
    client = logged_in(operator)
    url = f"/api/slides/{ready_slide.pk}/scale/"
    refused = post(client, url, mpp_x=50, mpp_y=0.5, reason="x")
    assert refused.status_code == 400
    assert "mpp_x" in refused.json()["fields"]
    assert post(client, url, mpp_x=0.25, mpp_y=0.25, reason="scanner log").status_code == 202
    ready_slide.refresh_from_db()
    assert (ready_slide.mpp_x, ready_slide.scale_state) == (0.25, "entered")
    assert Event.objects.get(kind="slide_scale_corrected").actor_id == operator.pk


def test_a_deleted_slide_is_gone_for_everybody_and_its_files_too(
    operator: User, ready_slide: Slide, tmp_path: Path, django_capture_on_commit_callbacks: Any
) -> None:
    client = logged_in(operator)
    url = f"/api/slides/{ready_slide.pk}/delete/"
    assert post(client, url, reason=" ").status_code == 400
    with django_capture_on_commit_callbacks(execute=True):
        assert post(client, url, reason="wrong patient").status_code == 202
    assert client.get(f"/api/slides/{ready_slide.pk}/").status_code == 404
    assert post(client, url, reason="again").status_code == 404
    assert not ready_slide.folder.exists()
    assert (tmp_path / "made.svs").exists(), "a file in place is never touched"
    event = Event.objects.get(kind="slide_deleted")
    assert event.details["reason"] == "wrong patient"


def test_a_deleted_slide_may_be_sent_again(
    operator: User, ready_slide: Slide, received: Callable[..., Slide], tmp_path: Path
) -> None:
    ingest.delete_slide(slide_id=ready_slide.pk, reason="wrong case", actor=operator)
    assert received(tmp_path / "made.svs", case="S2").pk != ready_slide.pk


def test_another_room_may_object_to_a_deletion(operator: User, ready_slide: Slide) -> None:
    def object_to_it(**_: Any) -> None:
        raise WrongState("This slide is part of a signed case.")

    slide_deleting.connect(object_to_it)
    try:
        answer = post(logged_in(operator), f"/api/slides/{ready_slide.pk}/delete/", reason="x")
    finally:
        slide_deleting.disconnect(object_to_it)
    assert (answer.status_code, answer.json()["message"]) == (400, "This slide is part of a signed case.")
    ready_slide.refresh_from_db()
    assert ready_slide.deleted_at is None
    assert not Event.objects.filter(kind="slide_deleted").exists()


def test_deleting_ends_the_slides_jobs(operator: User, received: Callable[..., Slide]) -> None:
    slide = received()
    ingest.delete_slide(slide_id=slide.pk, reason="wrong case", actor=operator)
    assert Job.objects.get(subject_id=slide.pk).state == "cancelled"


def test_a_slide_is_linked_to_a_second_case_and_its_file_lives_as_long_as_either(
    tus: Tus, tmp_path: Path, django_capture_on_commit_callbacks: Any
) -> None:
    data = write_slide(tmp_path / "a.svs").read_bytes()
    tus.send(data, case="S1")
    first = prepare_now(Slide.objects.get().pk)
    answer = post(tus.client, f"/api/slides/{first.pk}/link/", case="S2", node="B1")
    assert answer.status_code == 202
    second = prepare_now(Slide.objects.get(case__accession="S2").pk)
    assert (second.state, second.source, second.node.label) == ("ready", first.source, "B1")
    assert Event.objects.get(kind="slide_linked").details["linked_from"] == str(first.pk)
    again = post(tus.client, f"/api/slides/{first.pk}/link/", case="S2")
    assert (again.status_code, again.json()["message"]) == (400, "Case S2 holds this slide already.")
    for slide, stays in ((first, True), (second, False)):
        with django_capture_on_commit_callbacks(execute=True):
            post(tus.client, f"/api/slides/{slide.pk}/delete/", reason="wrong case")
        assert first.source_path.exists() is stays
        assert not slide.store_folder.exists()
    assert not first.folder.exists()
    assert not second.folder.exists()


def test_label_and_macro_need_their_own_right_and_each_view_is_an_event(
    person: Callable[..., User], ready_slide: Slide
) -> None:
    ready_slide.associated_folder.mkdir(parents=True)
    (ready_slide.associated_folder / "label.png").write_bytes(b"\x89PNG a name")
    AssociatedImage.objects.create(slide=ready_slide, kind="label")
    url = f"/api/slides/{ready_slide.pk}/associated/label/"
    assert logged_in(person("without", Role.OPERATOR)).get(url).status_code == 403
    allowed = person("allowed", Role.OPERATOR, may_view_associated=True)
    client = logged_in(allowed)
    for _ in range(2):
        answer = client.get(url, headers={"Accept": "image/avif,image/webp"})
        assert (answer.status_code, answer.content) == (200, b"\x89PNG a name")
        assert "no-store" in answer["Cache-Control"]
    assert client.get(f"/api/slides/{ready_slide.pk}/associated/macro/").status_code == 404
    seen = Event.objects.filter(kind="associated_viewed")
    assert [event.actor_id for event in seen] == [allowed.pk, allowed.pk]
    blind = person("elsewhere", Role.READER, may_view_associated=True)
    assert logged_in(blind).get(url).status_code == 404


def test_the_thumbnail_is_for_those_who_may_see_the_slide(reader: User, operator: User, ready_slide: Slide) -> None:
    url = f"/api/slides/{ready_slide.pk}/thumbnail.jpg"
    assert logged_in(reader).get(url).status_code == 404
    answer = logged_in(operator).get(url)
    assert (answer.status_code, answer["Content-Type"]) == (200, "image/jpeg")
    assert not Event.objects.filter(kind="slide_opened").exists()


def test_a_job_is_followed_and_cancelled(operator: User, received: Callable[..., Slide]) -> None:
    slide = received()
    job = Job.objects.get()
    client = logged_in(operator)
    assert client.get(f"/api/jobs/{job.pk}/").json()["state"] == "queued"
    assert post(client, f"/api/jobs/{job.pk}/cancel/").json()["job"]["state"] == "cancelled"
    slide.refresh_from_db()
    assert slide.state == "failed"
    assert post(client, f"/api/jobs/{job.pk}/cancel/").json()["error"] == "not_cancellable"
    assert client.get(f"/api/jobs/{uuid.uuid4()}/").status_code == 404


def test_import_from_the_page_stays_inside_its_folders(operator: User, tmp_path: Path, settings: Any) -> None:
    allowed, outside = tmp_path / "scanner", tmp_path / "private"
    for folder in (allowed / "day", outside):
        folder.mkdir(parents=True)
    write_slide(allowed / "day" / "a.svs")
    write_slide(outside / "b.svs", seed=2)
    (allowed / "link").symlink_to(outside)
    client = logged_in(operator)
    off = post(client, "/api/imports/", path=str(allowed), case="S1")
    assert (off.status_code, "METADET_IMPORT_FOLDERS" in off.json()["message"]) == (400, True)
    settings.IMPORT_FOLDERS = [allowed]
    for path in (str(outside), f"{allowed}/../private", "../private", f"{allowed}/link", "/", "link/b.svs"):
        refused = post(client, "/api/imports/", path=path, case="S1")
        assert refused.status_code == 400, path
    assert not Slide.objects.exists()
    answer = post(client, "/api/imports/", path="day", case="S1", node="A1")
    assert answer.status_code == 202
    slide = Slide.objects.get(pk=answer.json()["slides"][0])
    assert (slide.source, slide.imported_in_place, slide.node.label) == (str(allowed / "day" / "a.svs"), True, "A1")
    again = post(client, "/api/imports/", path="day", case="S2")
    assert "is here already: it is A1 1 of case S1" in again.json()["message"]
