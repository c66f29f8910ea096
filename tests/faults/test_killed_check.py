"""kill -9 in the middle of the check of a slide: it stays viewable, and one complete check follows without a person."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from audit_trail.models import Event
from jobs.models import Job
from metadet_site.local_stack import processes
from slides.models import Slide
from slides.wsi.tile_store import TileStore
from tests.local_stack.process_watch import wait_until
from tests.slides.conftest import first_look, prepare_now, write_slide  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("first_look")]


def decoders_below(pid: int) -> list[int]:
    """The processes that decode, each below its warden."""
    table = processes.process_table()
    wardens = {p for p in processes.descendants(pid) if b"slides.wsi.child" in Path(f"/proc/{p}/cmdline").read_bytes()}
    return [entry.pid for entry in table.values() if entry.parent in wardens]


def stop_one(pids: list[int], stopped: list[int]) -> bool:
    """Stops the first that is still there: a check has more than one decoder, one after the other."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
            return True
    return False


def test_a_killed_check_is_followed_by_one_complete_check(
    received: Callable[..., Slide], start: Callable[..., object], tmp_path: Path
) -> None:
    slide = prepare_now(received(write_slide(tmp_path / "wide.svs", width=9600, height=7800)).pk)
    first, job = slide.store, Job.objects.get(kind="check_slide", subject_id=slide.pk)
    start("scheduler")
    worker = start("worker", "check")
    stopped: list[int] = []  # so that the check cannot end before the kill
    wait_until(lambda: stop_one(decoders_below(worker.pid), stopped), what="the slide is being checked", patience_s=120)
    [decoder] = stopped
    for pid in [entry.pid for entry in processes.process_table().values() if entry.parent == worker.pid]:
        os.kill(pid, signal.SIGKILL)
    slide.refresh_from_db()
    assert (slide.state, slide.store, slide.tile_check) == ("ready", first, "waiting")

    wait_until(lambda: Slide.objects.get(pk=slide.pk).tile_check == "done", what="the check is done", patience_s=180)
    job.refresh_from_db()
    slide.refresh_from_db()
    assert (job.state, job.attempt) == ("done", 2)
    assert Event.objects.filter(kind="slide_checked", slide_id=slide.pk).count() == 1
    assert {path.name for path in slide.folder.glob("tiles-*")} == {first, slide.store}
    with TileStore.load(slide.store_folder) as store:
        assert [level.downsample for level in store.levels] == [1, 2, 4, 8, 16, 32]
    wait_until(lambda: not Path(f"/proc/{decoder}").exists(), what="the decoder has gone with its worker")
