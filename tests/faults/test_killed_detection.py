"""kill -9 in the middle of a detection: one complete result, the same bytes, without a person."""

import gzip
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import runs
from analysis.detector import infer
from analysis.detector.weights import load_model
from analysis.models import Run
from analysis.models_registry import register_shipped
from jobs.models import Job
from metadet_site.local_stack import processes
from slides.models import Slide
from slides.wsi.sandbox import open_pixels
from tests.local_stack.process_watch import wait_until
from tests.slides.conftest import prepare_now, write_slide

pytestmark = pytest.mark.django_db(transaction=True)


def kill_pool_child(worker_pid: int) -> None:
    """The process that does the work; its parent, the worker, lives on."""
    children = [entry.pid for entry in processes.process_table().values() if entry.parent == worker_pid]
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def is_in_the_middle(job: Job) -> bool:
    """A finished block is kept and the job is not done. Its progress alone would not do: a fast engine leaps over values."""
    job.refresh_from_db()
    return job.state == "running" and any(runs._work_folder(job).glob("block-*.npz"))


@pytest.mark.parametrize(
    "whole_worker",
    [
        pytest.param(False, id="the working child"),
        pytest.param(True, id="the worker and its child", marks=pytest.mark.slow),
    ],
)
def test_a_killed_detection_gives_one_complete_result(
    received: Callable[..., Slide], start: Callable[..., object], tmp_path: Path, whole_worker: bool
) -> None:
    version = register_shipped()
    slide = prepare_now(received(write_slide(tmp_path / "wide.svs", width=6400, height=5200, mpp=1.0)).pk)
    job = Job.objects.get(kind="detect", subject_id=slide.pk)
    start("scheduler")
    worker = start("worker", "detect")
    wait_until(lambda: is_in_the_middle(job), what="the detection is in the middle", patience_s=120)
    kill_pool_child(worker.pid)
    if whole_worker:
        worker.kill()
        worker.wait()
        start("worker", "detect")
    wait_until(lambda: Run.objects.filter(slide=slide).exists(), what="the result is there", patience_s=180)

    job.refresh_from_db()
    run = Run.objects.get(slide=slide)
    assert (job.state, job.attempt) == ("done", 2)
    assert run.analysed_fraction + run.failed_fraction == pytest.approx(1.0)
    with open_pixels(slide.source_path, mpp_override=(slide.mpp_x, slide.mpp_y)) as source:
        unbroken = infer.detect(source, load_model(version.path), profile="standard")
    assert gzip.decompress(run.heatmap_path.read_bytes()) == unbroken.heatmap.tobytes()
    assert [lesion.score for lesion in run.lesions.all()] == [finding.score for finding in unbroken.lesions]
    assert not runs._work_folder(job).exists()
