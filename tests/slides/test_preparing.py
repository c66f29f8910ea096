"""From a file to a slide: each way ends in a state with a reason that a technician understands."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from accounts.models import User
from audit_trail.models import Event
from jobs.enums import JobState
from jobs.models import Job
from jobs.running import run
from slides import ingest
from slides.enums import SlideState
from slides.errors import WrongState
from slides.models import Slide
from slides.preparing import prepare
from slides.signals import slide_ready
from slides.wsi.errors import RefusalCode, SlideRefused
from tests.slides.conftest import prepare_now, write_slide

pytestmark = pytest.mark.django_db


def events(slide: Slide) -> list[str]:
    return list(Event.objects.filter(slide_id=slide.pk).order_by("seq").values_list("kind", flat=True))


@pytest.fixture
def heard() -> Any:
    """What slide_ready told its listeners."""
    calls: list[tuple[Any, str]] = []

    def hear(sender: Any, slide: Slide, cause: str, **_: Any) -> None:
        calls.append((slide.pk, cause))

    slide_ready.connect(hear)
    yield calls
    slide_ready.disconnect(hear)


def test_a_good_slide_becomes_ready(received: Callable[..., Slide], heard: list[Any]) -> None:
    slide = prepare_now(received().pk)
    assert (slide.state, slide.reason) == (SlideState.READY, "")
    assert (slide.width, slide.height, slide.mpp_x, slide.scale_state) == (700, 600, 0.5, "ok")
    assert slide.pass_through is True
    assert slide.tissue_mm2 == pytest.approx(0.02625, rel=0.4)  # 350 x 300 pixels of 0.5 um, at 8 um a mask pixel
    assert (slide.store_folder / "thumbnail.jpg").stat().st_size > 0
    assert heard == [(slide.pk, "ready")]
    assert events(slide)[:1] == ["slide_received"]
    assert events(slide).count("slide_ready") == 1
    assert Job.objects.get(kind="prepare_slide").state == JobState.DONE


def test_a_file_that_tiles_cannot_be_taken_from_is_converted(received: Callable[..., Slide], tmp_path: Path) -> None:
    picture = np.random.default_rng(3).integers(90, 240, (300, 400, 3), np.uint8)
    tifffile.imwrite(tmp_path / "plain.tif", picture, photometric="rgb")
    slide = prepare_now(received(tmp_path / "plain.tif").pk)
    assert (slide.state, slide.pass_through) == (SlideState.READY, False)


def test_a_slide_without_scale_is_viewable_and_not_detected(received: Callable[..., Slide], heard: list[Any]) -> None:
    slide = prepare_now(received(mpp=None).pk)
    assert (slide.state, slide.scale_state, slide.mpp_x) == (SlideState.READY, "missing", None)
    assert slide.tissue_mm2 is None
    assert heard == []


def test_an_implausible_scale_is_kept_for_the_operator_and_not_used(
    received: Callable[..., Slide], heard: list[Any]
) -> None:
    slide = prepare_now(received(mpp=25.0).pk)
    assert (slide.scale_state, slide.mpp_x, slide.properties["mpp_x"]) == ("implausible", None, 25.0)
    assert heard == []


def test_an_entered_scale_starts_what_waited_for_it_and_outlives_a_retry(
    received: Callable[..., Slide], operator: User, heard: list[Any]
) -> None:
    slide = prepare_now(received(mpp=None).pk)
    ingest.correct_scale(slide_id=slide.pk, mpp_x=0.5, mpp_y=0.5, reason="scanner manual", actor=operator)
    slide.refresh_from_db()
    assert (slide.scale_state, slide.mpp_x) == ("entered", 0.5)
    assert slide.tissue_fraction is not None
    assert slide.tissue_mm2 == pytest.approx(slide.tissue_fraction * 700 * 600 * 0.25 / 1e6)
    assert heard == [(slide.pk, "scale")]
    event = Event.objects.get(kind="slide_scale_corrected")
    assert event.details == {"before": [None, None], "after": [0.5, 0.5], "reason": "scanner manual"}
    ingest.retry(slide_id=slide.pk, actor=operator)
    assert slide.quality["measured_mm2"] is None
    slide = prepare_now(slide.pk)
    assert (slide.state, slide.scale_state, slide.mpp_x) == (SlideState.READY, "entered", 0.5)
    assert slide.quality["tissue_mm2"] == pytest.approx(slide.tissue_mm2, rel=0.2)
    assert slide.quality["measured_mm2"] is not None, "focus is measured with the scale that was entered"
    assert slide.properties["mpp_x"] is None, "what the file says stays what it says"


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a text file": (lambda path: path.write_text("Dear colleague, " * 100), "not_a_slide"),
    "an empty file": (lambda path: path.write_bytes(b""), "empty"),
    "a copy that stopped": (
        lambda path: (write_slide(path), os.truncate(path, path.stat().st_size // 2)),
        "truncated",
    ),
    "sixteen bit": (
        lambda path: tifffile.imwrite(
            path, np.zeros((512, 512, 3), np.uint16), tile=(256, 256), photometric="rgb", compression="deflate"
        ),
        "sixteen_bit",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_quarantined_with_its_reason(received: Callable[..., Slide], tmp_path: Path, name: str) -> None:
    make, code = BAD_FILES[name]
    make(tmp_path / "bad.svs")
    slide = prepare_now(received(tmp_path / "bad.svs").pk)
    assert (slide.state, slide.reason_code) == (SlideState.QUARANTINED, code)
    assert len(slide.reason) > 30
    assert events(slide) == ["slide_received", "slide_quarantined"]
    assert Job.objects.get().state == JobState.DONE
    assert [path.name for path in slide.folder.iterdir()] == []


def test_a_duplicate_that_only_the_worker_can_see_is_named(received: Callable[..., Slide], tmp_path: Path) -> None:
    first = received(write_slide(tmp_path / "a.svs"), case="S1")
    second = received(write_slide(tmp_path / "b.svs"), case="S2", hash_now=False)
    slide = prepare_now(second.pk)
    assert (slide.state, slide.reason_code) == (SlideState.QUARANTINED, "duplicate")
    assert f"{first.display_name} of case S1" in slide.reason


def test_a_file_that_went_away_is_said_to_be_missing_and_may_be_retried(
    received: Callable[..., Slide], operator: User, tmp_path: Path
) -> None:
    slide = received()
    (tmp_path / "made.svs").rename(tmp_path / "away.svs")
    slide = prepare_now(slide.pk)
    assert (slide.state, slide.reason_code) == (SlideState.QUARANTINED, "source_missing")
    (tmp_path / "away.svs").rename(tmp_path / "made.svs")
    ingest.retry(slide_id=slide.pk, actor=operator)
    assert prepare_now(slide.pk).state == SlideState.READY
    assert "slide_retried" in events(slide)


def test_a_file_that_was_exchanged_is_not_prepared(received: Callable[..., Slide], tmp_path: Path) -> None:
    slide = received()
    write_slide(tmp_path / "made.svs", seed=2)
    slide = prepare_now(slide.pk)
    assert (slide.state, slide.reason_code) == (SlideState.QUARANTINED, "source_changed")


def test_a_file_that_was_only_touched_is_prepared(received: Callable[..., Slide], tmp_path: Path) -> None:
    slide = received()
    os.utime(tmp_path / "made.svs", ns=(0, 10**18))
    assert prepare_now(slide.pk).state == SlideState.READY


def test_a_full_disk_fails_the_slide_and_blames_no_file(received: Callable[..., Slide], monkeypatch: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SlideRefused(RefusalCode.NO_SPACE, "The storage is full.")

    monkeypatch.setattr("slides.preparing.sandbox.prepare", full)
    slide = prepare_now(received().pk)
    assert (slide.state, slide.reason) == (SlideState.FAILED, "The storage is full.")
    assert events(slide) == ["slide_received", "slide_failed"]


def test_trouble_of_ours_is_tried_again_and_then_said(received: Callable[..., Slide], monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a cable")

    monkeypatch.setattr("slides.preparing.sandbox.prepare", broken)
    slide = received()
    for _ in range(2):
        assert prepare_now(slide.pk).state == SlideState.PREPARING
    slide = prepare_now(slide.pk)
    assert slide.state == SlideState.FAILED
    assert "a cable" in slide.reason
    assert "tried 3 times" in slide.reason
    assert events(slide) == ["slide_received", "slide_failed"]


def test_a_cancelled_preparation_leaves_a_failed_slide(received: Callable[..., Slide], operator: User) -> None:
    slide = received()
    job = Job.objects.get()
    ingest.cancel_job(job_id=job.pk, actor=operator)
    slide.refresh_from_db()
    assert (slide.state, Job.objects.get().state) == (SlideState.FAILED, JobState.CANCELLED)
    assert events(slide) == ["slide_received", "slide_failed", "job_cancel_requested"]


def test_a_running_preparation_is_cancelled_at_its_next_step(received: Callable[..., Slide], operator: User) -> None:
    slide = received()
    job = Job.objects.get()

    def cancelled_midway(job: Job, lease: Any) -> None:
        ingest.cancel_job(job_id=job.pk, actor=operator)
        prepare(job, lease)

    slide.sha256 = ""  # so that the file is read, with progress
    slide.save()
    state = run(job_id=job.pk, handler=cancelled_midway, on_ended_badly=ingest.preparation_ended_badly)
    slide.refresh_from_db()
    assert (state, slide.state) == (JobState.CANCELLED, SlideState.FAILED)


def test_a_worker_that_lost_its_lease_changes_nothing(received: Callable[..., Slide]) -> None:
    slide = received()
    job = Job.objects.get()

    def overtaken(job: Job, lease: Any) -> None:
        Job.objects.filter(pk=job.pk).update(fence=job.fence + 1)  # another worker claimed it
        prepare(job, lease)

    assert run(job_id=job.pk, handler=overtaken, on_ended_badly=ingest.preparation_ended_badly) is None
    slide.refresh_from_db()
    assert slide.state == SlideState.CHECKING
    assert events(slide) == ["slide_received"]


def test_a_worker_that_died_while_preparing_is_followed_by_one_result(received: Callable[..., Slide]) -> None:
    slide = received()
    ingest.change_state(slide, SlideState.PREPARING)  # what the dead worker left behind
    (slide.folder / "tiles-dead-1").mkdir(parents=True)
    slide = prepare_now(slide.pk)
    assert slide.state == SlideState.READY
    assert [path.name for path in slide.folder.glob("tiles-*")] == [slide.store]


def test_nothing_is_written_beside_a_file_in_place(received: Callable[..., Slide], tmp_path: Path) -> None:
    folder = tmp_path / "scanner"
    folder.mkdir()
    file = write_slide(folder / "a.svs")
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    os.chmod(folder, 0o555)
    slide = prepare_now(received(file).pk)
    assert slide.state == SlideState.READY
    assert [path.name for path in folder.iterdir()] == ["a.svs"]
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_states_follow_their_table(received: Callable[..., Slide], operator: User) -> None:
    slide = received()
    with pytest.raises(WrongState):
        ingest.retry(slide_id=slide.pk, actor=operator)
    slide.state = SlideState.READY
    with pytest.raises(WrongState):
        ingest.change_state(slide, SlideState.QUARANTINED)


@pytest.mark.parametrize(("mpp_x", "mpp_y", "reason"), [(0.01, 0.5, "x"), (0.5, 30.0, "x"), (0.5, 0.5, "  ")])
def test_a_scale_needs_a_plausible_value_and_a_reason(
    ready_slide: Slide, operator: User, mpp_x: float, mpp_y: float, reason: str
) -> None:
    with pytest.raises(ingest.SlidesError):
        ingest.correct_scale(slide_id=ready_slide.pk, mpp_x=mpp_x, mpp_y=mpp_y, reason=reason, actor=operator)
    assert not Event.objects.filter(kind="slide_scale_corrected").exists()
