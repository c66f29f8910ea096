"""A large slide is viewable first; every tile is decoded afterwards, and until then nothing is said of the whole slide."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from accounts.models import User
from analysis.errors import CannotDetect
from analysis.runs import check_can_detect
from audit_trail.models import Event
from jobs.enums import JobKind, JobState
from jobs.models import Job
from jobs.running import run
from slides import ingest
from slides.enums import SlideState, TileCheck
from slides.errors import WrongState
from slides.models import Slide, Viewing
from slides.preparing import check
from slides.signals import slide_ready
from slides.wsi import sandbox
from slides.wsi.tile_store import TileStore
from tests.slides.conftest import check_now, logged_in, prepare_now, write_slide
from tests.slides.wsi.made_slides import spoil_tile

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("first_look")]


@pytest.fixture
def heard() -> Any:
    calls: list[Any] = []

    def hear(sender: Any, slide: Slide, **_: Any) -> None:
        calls.append(slide.pk)

    slide_ready.connect(hear)
    yield calls
    slide_ready.disconnect(hear)


def downsamples(slide: Slide) -> list[float]:
    with TileStore.load(slide.store_folder) as store:
        return [level.downsample for level in store.levels]


def view(client: Any, slide: Slide, store: str = "") -> dict[str, Any]:
    answer = client.post(f"/api/slides/{slide.pk}/view/", {"store": store}, content_type="application/json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def tile_status(client: Any, slide: Slide, store: str) -> int:
    status: int = client.get(f"/api/slides/{slide.pk}/tiles/{store}/0/0_0.jpg").status_code
    return status


def test_a_large_slide_is_viewable_on_its_own_levels_and_then_checked(
    received: Callable[..., Slide], operator: User, heard: list[Any]
) -> None:
    slide = prepare_now(received(width=2100, height=1300).pk)
    assert (slide.state, slide.tile_check) == (SlideState.READY, TileCheck.WAITING)
    assert downsamples(slide) == [1, 2]
    assert slide.quality["blurred_share"] is None
    assert slide.tissue_mm2 is not None
    assert tile_status(logged_in(operator), slide, slide.store) == 200
    assert heard == []
    with pytest.raises(CannotDetect, match="being checked"):
        check_can_detect(slide)
    first = slide.store

    slide = check_now(slide.pk)
    assert (slide.tile_check, slide.store != first) == (TileCheck.DONE, True)
    assert downsamples(slide) == [1, 2, 4, 8]
    assert slide.quality["blurred_share"] == 0.0
    assert heard == [slide.pk]
    check_can_detect(slide)
    event = Event.objects.get(kind="slide_checked")
    assert (event.slide_id, event.details["corrupt_tiles"]) == (slide.pk, 0)


def test_damaged_tiles_are_known_after_the_check_and_count_as_not_read_at_every_resolution(
    received: Callable[..., Slide], tmp_path: Path
) -> None:
    path = write_slide(tmp_path / "made.svs", width=2100, height=1300)
    spoil_tile(path, 10, how="cut")  # column 1, row 1 of 9 columns; the file's half-size level is whole
    slide = check_now(prepare_now(received(path).pk).pk)
    assert (slide.corrupt_tiles, slide.missing_tiles) == (1, 1)
    with TileStore.load(slide.store_folder) as store:
        assert store.tile(0, 1, 1).missing
        assert not store.tile(1, 0, 0).missing
    with sandbox.open_pixels(slide.source_path, checked=slide.store_folder) as source:
        failed = source.read_at_mpp(0, 0, 512, 512, 1.0).failed
    assert failed[128:256, 128:256].all()
    assert failed.sum() == 128 * 128


def test_a_viewer_reads_on_in_the_tiles_it_holds_until_it_closes(
    received: Callable[..., Slide], operator: User, reader: User
) -> None:
    slide = prepare_now(received().pk)
    client, first = logged_in(operator), slide.store
    assert view(client, slide)["newer_tiles"] is False
    slide = check_now(slide.pk)

    again = view(client, slide, first)
    assert (first in again["tiles"], again["newer_tiles"]) == (True, True)
    assert tile_status(client, slide, first) == 200
    assert slide.store in view(logged_in(operator), slide)["tiles"]
    assert slide.store in view(client, slide, "tiles-of-another")["tiles"]

    Slide.objects.update(store_since=slide.store_since - timedelta(minutes=5))  # type: ignore[operator]
    ingest.drop_replaced_stores()
    assert (slide.folder / first).exists()
    Viewing.objects.update(renewed_at=slide.store_since - timedelta(minutes=5))  # type: ignore[operator]
    ingest.drop_replaced_stores()
    assert not (slide.folder / first).exists()
    slide.refresh_from_db()
    assert slide.earlier_stores == []
    assert tile_status(client, slide, first) == 404
    assert tile_status(client, slide, slide.store) == 200


def test_state_and_progress_of_the_check_are_in_the_api(received: Callable[..., Slide], operator: User) -> None:
    slide = prepare_now(received().pk)
    Job.objects.filter(kind=JobKind.CHECK_SLIDE).update(state="running", stage="checking tiles", progress=0.43)
    said = logged_in(operator).get(f"/api/slides/{slide.pk}/").json()
    assert (said["state"], said["tile_check"]) == ("ready", "waiting")
    assert (said["stage"], said["progress"], said["check_job"]["state"]) == ("checking tiles", 0.43, "running")


def test_a_check_that_fails_leaves_the_slide_viewable_and_says_why(
    received: Callable[..., Slide], operator: User, heard: list[Any], tmp_path: Path
) -> None:
    slide = prepare_now(received().pk)
    first = slide.store
    (tmp_path / "made.svs").rename(tmp_path / "away.svs")
    slide = check_now(slide.pk)
    assert (slide.state, slide.store, slide.tile_check) == (SlideState.READY, first, TileCheck.FAILED)
    assert "not at its place any more" in slide.tile_check_reason
    assert heard == []
    with pytest.raises(CannotDetect, match="could not be checked"):
        check_can_detect(slide)
    assert Event.objects.get(kind="slide_check_failed").details["reason"] == slide.tile_check_reason
    (tmp_path / "away.svs").rename(tmp_path / "made.svs")
    ingest.retry(slide_id=slide.pk, actor=operator)
    slide = check_now(prepare_now(slide.pk).pk)
    assert (slide.tile_check, slide.tile_check_reason, heard) == (TileCheck.DONE, "", [slide.pk])


def test_a_check_that_is_stopped_is_said_to_be_stopped(received: Callable[..., Slide], operator: User) -> None:
    slide = prepare_now(received().pk)
    ingest.cancel_job(job_id=Job.objects.get(kind=JobKind.CHECK_SLIDE).pk, actor=operator)
    slide.refresh_from_db()
    assert (slide.state, slide.tile_check) == (SlideState.READY, TileCheck.FAILED)
    assert slide.tile_check_reason == "The check was stopped."


def test_a_check_whose_worker_died_starts_anew_and_leaves_nothing_behind(received: Callable[..., Slide]) -> None:
    slide = prepare_now(received().pk)
    dead = slide.folder / "tiles-dead-1"
    dead.mkdir()
    (dead / "pyramid.tif").write_bytes(b"half of it")
    slide = check_now(slide.pk)
    assert {path.name for path in slide.folder.glob("tiles-*")} == {slide.store, *slide.earlier_stores}
    assert Job.objects.get(kind=JobKind.CHECK_SLIDE).state == JobState.DONE


def test_a_check_overtaken_by_a_new_preparation_changes_nothing(
    received: Callable[..., Slide], operator: User, heard: list[Any]
) -> None:
    slide = prepare_now(received().pk)
    old_check = Job.objects.get(kind=JobKind.CHECK_SLIDE)

    def overtaken(job: Job, lease: Any) -> None:
        ingest.retry(slide_id=slide.pk, actor=operator)
        prepare_now(slide.pk)
        check(job, lease)

    run(job_id=old_check.pk, handler=overtaken, on_ended_badly=ingest.check_ended_badly)
    slide.refresh_from_db()
    old_check.refresh_from_db()
    assert (old_check.state, slide.tile_check, heard) == (JobState.FAILED, TileCheck.WAITING, [])
    assert check_now(slide.pk).tile_check == TileCheck.DONE


def test_a_ready_slide_stays_viewable_while_it_is_prepared_once_more(
    received: Callable[..., Slide], operator: User
) -> None:
    slide = check_now(prepare_now(received().pk).pk)
    before, client = slide.store, logged_in(operator)
    ingest.retry(slide_id=slide.pk, actor=operator)
    slide.refresh_from_db()
    assert (slide.state, slide.store) == (SlideState.READY, before)
    assert tile_status(client, slide, before) == 200
    with pytest.raises(WrongState, match="already"):
        ingest.retry(slide_id=slide.pk, actor=operator)
    slide = prepare_now(slide.pk)
    assert (slide.state, slide.store != before) == (SlideState.READY, True)
    assert tile_status(client, slide, before) == 200


def test_a_preparation_that_fails_leaves_a_ready_slide_as_it_was(
    received: Callable[..., Slide], operator: User, tmp_path: Path
) -> None:
    slide = check_now(prepare_now(received().pk).pk)
    before = slide.store
    ingest.retry(slide_id=slide.pk, actor=operator)
    (tmp_path / "made.svs").rename(tmp_path / "away.svs")
    slide = prepare_now(slide.pk)
    assert (slide.state, slide.reason, slide.store, slide.tile_check) == (SlideState.READY, "", before, TileCheck.DONE)
    job = Job.objects.filter(kind=JobKind.PREPARE_SLIDE).latest("created_at")
    assert (job.state, "not at its place" in job.error) == (JobState.FAILED, True)
    assert Event.objects.get(kind="slide_failed").details["state"] == "ready"
