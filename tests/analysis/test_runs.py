"""Asking for runs and keeping their results."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from django.db import connection
from safetensors.numpy import save_file

from accounts.models import User
from analysis import runs
from analysis.detector.card import WEIGHTS_NAME, file_sha256
from analysis.detector.detection import Detection, LesionFinding, TissueSummary
from analysis.enums import ModelState, Profile
from analysis.errors import CannotDetect, ModelRefused, NoActiveModel
from analysis.models import Lesion, ModelVersion, Run
from analysis.models_registry import activate_model, register_model
from audit_trail.enums import EventKind
from audit_trail.models import Event
from jobs import queue
from jobs.enums import JobState
from jobs.errors import LeaseLost
from jobs.models import Job
from jobs.running import Lease
from slides.enums import ScaleState, SlideState, TileCheck
from slides.models import Case, Slide
from slides.signals import slide_ready

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def home(settings, tmp_path: Path) -> Path:
    settings.METADET_HOME = tmp_path / "home"
    return settings.METADET_HOME


@pytest.fixture
def operator() -> User:
    return User.objects.create_user("op", printed_name="Op", roles=["operator"])


@pytest.fixture
def slide() -> Slide:
    case = Case.objects.create(accession="S1")
    return Slide.objects.create(
        case=case,
        file_name="a.svs",
        source="slides/a.svs",
        sha256="ab" * 32,
        state=SlideState.READY,
        width=4000,
        height=3000,
        mpp_x=0.5,
        mpp_y=0.5,
        scale_state=ScaleState.OK,
        tile_check=TileCheck.DONE,
    )


def model_folder(folder: Path, *, seed: int, evaluation: dict[str, object] | None) -> Path:
    folder.mkdir(parents=True)
    weights = np.random.default_rng(seed).normal(size=4).astype(np.float32)
    save_file({"w": weights}, folder / WEIGHTS_NAME)
    sha256 = file_sha256(folder / WEIGHTS_NAME)
    named = {"patches": {"model": {"sha256": sha256}, **evaluation}} if evaluation else None
    content = {
        "format": 1,
        "version": str(seed),
        "sha256": sha256,
        "config": {"name": "tiny"},
        "card": {"evaluation": named} if named else {},
    }
    (folder / "model.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def model_version(tmp_path: Path) -> ModelVersion:
    folder = model_folder(tmp_path / "model", seed=1, evaluation={"auc": 0.9})
    return activate_model(model_version=register_model(folder=folder, actor=None), actor=None)


def a_detection(*, lesions: int = 1) -> Detection:
    ring = [(100.0, 100.0), (300.0, 100.0), (300.0, 250.0), (100.0, 250.0)]
    findings = tuple(
        LesionFinding(
            rank=n + 1,
            score=0.9 - n / 10,
            peak=(150.0, 150.0),
            outline=[ring],
            bbox0=(100.0, 100.0, 300.0, 250.0),
            longest_diameter_mm=0.125,
            ellipse_major_mm=0.11,
            area_mm2=0.0075,
            size_class="itc",
            borderline=False,
            mean_p=0.7,
            peak_p=0.95,
            box_score=None,
        )
        for n in range(lesions)
    )
    grid = np.arange(12, dtype=np.uint8).reshape(3, 4)
    return Detection(
        status="complete",
        status_reason="",
        slide_score=0.9,
        tissue=TissueSummary(mm2=2.0, analysed=1.0, failed=0.0),
        lesions=findings,
        heatmap=grid,
        heatmap_mpp=8.0,
        heatmap_x0=0.0,
        heatmap_y0=0.0,
        heatmap_cell_px0=(16.0, 16.0),
        seconds={"total": 1.0},
        model={},
    )


def claimed(job: Job) -> Lease:
    taken = queue.claim(job_id=job.pk, owner="test")
    assert taken is not None
    return Lease(taken)


def keep(slide: Slide, model_version: ModelVersion, lease: Lease, detection: Detection) -> Run:
    return runs.finish_run(
        job=lease.job, lease=lease, slide=slide, model_version=model_version, detection=detection, fields=[b"\xff\xd8"]
    )


def test_a_request_is_a_job_and_an_event_once(slide, model_version, operator):
    first = runs.request_run(slide=slide, actor=operator)
    again = runs.request_run(slide=slide, actor=operator)
    assert first is not None
    assert again is not None
    assert first.pk == again.pk
    assert Event.objects.filter(kind=EventKind.RUN_REQUESTED, actor_id=operator.pk).count() == 2
    fast = runs.request_run(slide=slide, profile=Profile.FAST, actor=operator)
    assert fast is not None
    assert fast.pk != first.pk


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": SlideState.QUARANTINED}, "ready"),
        ({"scale_state": ScaleState.MISSING}, "um per pixel"),
        ({"scale_state": ScaleState.IMPLAUSIBLE}, "um per pixel"),
    ],
)
def test_a_slide_that_is_not_ready_or_has_no_scale_is_refused_in_words(slide, model_version, operator, changes, words):
    for name, value in changes.items():
        setattr(slide, name, value)
    with pytest.raises(CannotDetect, match=words):
        runs.request_run(slide=slide, actor=operator)
    assert not Job.objects.exists()


def test_without_an_active_model_nothing_starts(slide, operator):
    with pytest.raises(NoActiveModel):
        runs.request_run(slide=slide, actor=operator)


def test_a_ready_slide_starts_by_itself(slide, model_version):
    slide_ready.send(sender=Slide, slide=slide)
    assert Job.objects.get().subject_id == slide.pk


def test_a_ready_slide_without_model_or_scale_starts_nothing(slide):
    slide_ready.send(sender=Slide, slide=slide)
    assert not Job.objects.exists()


def test_a_result_job_and_event_are_kept_together(slide, model_version, operator):
    lease = claimed(runs.request_run(slide=slide, actor=operator))
    run = keep(slide, model_version, lease, a_detection(lesions=2))
    assert Job.objects.get().state == JobState.DONE
    assert [lesion.rank for lesion in run.lesions.all()] == [1, 2]
    assert [lesion.has_field for lesion in run.lesions.all()] == [True, False]
    assert gzip.decompress(run.heatmap_path.read_bytes()) == bytes(range(12))
    event = Event.objects.get(kind=EventKind.RUN_FINISHED)
    assert event.details["heatmap_sha256"] == run.heatmap_sha256
    assert runs.live_run(slide) == run
    assert runs.request_run(slide=slide, actor=operator) is None


def test_a_worker_that_lost_its_lease_keeps_nothing(slide, model_version, operator, home):
    lease = claimed(runs.request_run(slide=slide, actor=operator))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_job SET lease_until = clock_timestamp() - interval '1 s'")
    second = claimed(lease.job)
    with pytest.raises(LeaseLost):
        keep(slide, model_version, lease, a_detection())
    assert not Run.objects.exists()
    assert not Lesion.objects.exists()
    assert list((home / "runs").iterdir()) == []
    keep(slide, model_version, second, a_detection())
    assert Run.objects.count() == 1


def test_a_new_scale_makes_the_old_result_no_longer_live(slide, model_version, operator):
    lease = claimed(runs.request_run(slide=slide, actor=operator))
    run = keep(slide, model_version, lease, a_detection())
    slide.mpp_x = slide.mpp_y = 0.25
    slide.save()
    assert runs.live_run(slide) is None
    assert runs.request_run(slide=slide, actor=operator) is not None
    assert Run.objects.filter(pk=run.pk).exists()


def test_a_bad_end_is_an_event_with_its_reason(slide, model_version, operator):
    lease = claimed(runs.request_run(slide=slide, actor=operator))
    lease.job.state, lease.job.error = JobState.FAILED, "The slide could not be read."
    runs.record_bad_end(lease.job)
    event = Event.objects.get(kind=EventKind.RUN_FAILED)
    assert event.details["reason"] == "The slide could not be read."
    assert event.outcome == "failed"


def test_altered_weights_are_not_registered(tmp_path):
    folder = model_folder(tmp_path / "m", seed=3, evaluation={"auc": 0.9})
    (folder / WEIGHTS_NAME).write_bytes((folder / WEIGHTS_NAME).read_bytes() + b"x")
    with pytest.raises(ModelRefused, match="SHA-256"):
        register_model(folder=folder, actor=None)


def test_a_folder_without_weights_or_card_is_not_registered(tmp_path):
    folder = model_folder(tmp_path / "m", seed=3, evaluation=None)
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(ModelRefused, match="missing"):
        register_model(folder=folder, actor=None)
    shutil.rmtree(folder)
    with pytest.raises(ModelRefused, match="cannot be read"):
        register_model(folder=folder, actor=None)


def test_a_version_without_evaluation_is_not_activated(tmp_path):
    version = register_model(folder=model_folder(tmp_path / "m", seed=3, evaluation=None), actor=None)
    with pytest.raises(ModelRefused, match="was not evaluated"):
        activate_model(model_version=version, actor=None)


def test_one_version_is_active_and_both_changes_are_events(tmp_path, model_version):
    other = register_model(folder=model_folder(tmp_path / "o", seed=2, evaluation={"auc": 1}), actor=None)
    activate_model(model_version=other, actor=None)
    model_version.refresh_from_db()
    assert model_version.state == ModelState.RETIRED
    assert ModelVersion.objects.get(state=ModelState.ACTIVE) == other
    assert Event.objects.filter(kind=EventKind.MODEL_RETIRED).count() == 1


@pytest.mark.parametrize(("role", "status"), [("operator", 202), ("reader", 403), ("auditor", 403), (None, 403)])
def test_only_operators_start_detection(client, slide, model_version, role, status):
    if role:
        client.force_login(User.objects.create_user("u", printed_name="U", roles=[role]))
    answer = client.post(f"/api/slides/{slide.pk}/detect/", {"profile": "fast"}, content_type="application/json")
    assert answer.status_code == status
    assert Job.objects.count() == (1 if status == 202 else 0)


def test_a_refusal_reaches_the_operator_in_words(client, slide, model_version, operator):
    Slide.objects.update(scale_state=ScaleState.MISSING)
    client.force_login(operator)
    answer = client.post(f"/api/slides/{slide.pk}/detect/", {}, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["error"] == "cannot_detect"
    assert "um per pixel" in answer.json()["message"]


@pytest.mark.parametrize(
    ("role", "status"), [("administrator", 200), ("auditor", 200), ("reader", 404), ("operator", 404)]
)
def test_the_models_page_is_for_administrators_and_auditors(client, model_version, role, status):
    client.force_login(User.objects.create_user("u", printed_name="U", roles=[role]))
    answer = client.get("/models/")
    assert answer.status_code == status
    assert (model_version.sha256 in answer.content.decode()) is (status == 200)


def test_auditors_cannot_activate(client, model_version):
    client.force_login(User.objects.create_user("u", printed_name="U", roles=["auditor"]))
    assert client.post(f"/models/{model_version.pk}/activate/").status_code == 404
