"""A model version is measured on what the installation has; only then may it be used, and it can be taken back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.test import Client

from accounts.enums import Role
from accounts.models import User
from analysis import evaluating
from analysis.detector.card import WEIGHTS_NAME
from analysis.detector.evaluate import evaluate_patches
from analysis.detector.weights import load_model
from analysis.enums import ModelState
from analysis.errors import CannotEvaluate, ModelRefused, NotEvaluated
from analysis.evaluation_sets import evaluation_sets
from analysis.models import Evaluation, ModelVersion
from analysis.models_registry import activate_model, deactivate_model, register_model, register_shipped
from audit_trail.enums import EventKind
from audit_trail.models import Event
from jobs.enums import JobState
from jobs.models import Job
from jobs.running import run
from tests.analysis.detector.test_patch_file import write_patches
from tests.factories import make_case, make_run, make_slide, make_user
from tests.slides.conftest import logged_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]
PATCHES, SLIDES = "patches: some_patches.npz", "slides: two_slides"


@pytest.fixture
def admin(db: None) -> User:
    return make_user("admin", Role.ADMINISTRATOR)


@pytest.fixture
def administrator(admin: User) -> Client:
    return logged_in(admin)


@pytest.fixture
def version(model_files: Callable[..., Path]) -> ModelVersion:
    return register_model(folder=model_files(), actor=None, believe_card=False)


def do(job: Job) -> JobState | None:
    return run(job_id=job.pk, handler=evaluating.do_evaluation, on_ended_badly=evaluating.record_bad_end)


def evaluated(version: ModelVersion, admin: User, set_name: str = PATCHES) -> Evaluation:
    assert do(evaluating.request_evaluation(model_version=version, set_name=set_name, actor=admin)) == JobState.DONE
    version.refresh_from_db()
    return Evaluation.objects.filter(model_version=version).latest("created_at")


def test_patches_of_the_fold_kept_aside_are_measured(version: ModelVersion, admin: User, patch_set: Path) -> None:
    evaluation = evaluated(version, admin)
    expected = evaluate_patches(patch_set, load_model(version.path), fold=4)
    assert evaluation.figures["auc"] == expected["auc"]
    assert evaluation.figures["auc_interval"] == expected["auc_interval"]
    assert (evaluation.n, evaluation.figures["positive"]) == (8, 4)
    assert evaluation.weights_sha256 == version.sha256
    assert evaluation.requested_by == admin
    assert version.state == ModelState.EVALUATED
    event = Event.objects.get(kind=EventKind.MODEL_EVALUATED)
    assert event.details["sha256"] == version.sha256
    assert event.details["n"] == 8


def test_slides_are_measured_by_the_camelyon_rules(
    version: ModelVersion, admin: User, slide_set: Path, home: Path
) -> None:
    evaluation = evaluated(version, admin, SLIDES)
    assert (evaluation.n, evaluation.figures["tumour_slides"], evaluation.figures["lesions"]) == (2, 1, 1)
    assert evaluation.figures["slide_auc"] is not None
    assert [one["slide"] for one in evaluation.detail] == ["with.tif", "without.tif"]
    assert not any((home / "work").iterdir())


def test_the_set_is_named_by_its_bytes(
    version: ModelVersion, admin: User, patch_set: Path, slide_set: Path, tmp_path: Path
) -> None:
    first = evaluated(version, admin).set_sha256
    write_patches(patch_set, n=12, fold=np.full(12, 4, np.int8))
    assert evaluated(version, admin).set_sha256 != first
    (one,) = [each for each in evaluation_sets() if each.name == SLIDES]
    before = one.sha256()
    outline = slide_set / "with.xml"
    outline.write_text(outline.read_text() + "\n")
    assert one.sha256() != before


def test_without_a_set_the_words_say_how_to_name_one(version: ModelVersion, admin: User, settings: Any) -> None:
    settings.EVALUATION_PATCHES = Path("/nonexistent/patches.npz")
    with pytest.raises(CannotEvaluate, match="METADET_EVALUATION_SLIDES"):
        evaluating.request_evaluation(model_version=version, set_name=PATCHES, actor=admin)
    page = logged_in(admin).get("/models/").content.decode()
    assert "METADET_EVALUATION_PATCHES" in page


def test_a_set_of_one_class_measures_nothing(version: ModelVersion, admin: User, patch_set: Path) -> None:
    write_patches(patch_set, n=12, label=np.zeros(12, np.int8), fold=np.full(12, 4, np.int8))
    job = evaluating.request_evaluation(model_version=version, set_name=PATCHES, actor=admin)
    assert do(job) == JobState.FAILED
    assert not Evaluation.objects.exists()
    version.refresh_from_db()
    assert version.state == ModelState.REGISTERED
    assert "no AUC can be measured" in Event.objects.get(kind=EventKind.MODEL_EVALUATION_FAILED).details["reason"]


def test_weights_changed_on_disk_are_neither_measured_nor_activated(
    version: ModelVersion, admin: User, patch_set: Path, model_files: Callable[..., Path]
) -> None:
    evaluated(version, admin)
    other = model_files("2", seed=2)
    (version.path / WEIGHTS_NAME).write_bytes((other / WEIGHTS_NAME).read_bytes())
    job = evaluating.request_evaluation(model_version=version, set_name=PATCHES, actor=admin)
    assert do(job) == JobState.FAILED
    with pytest.raises(ModelRefused, match="not those that were registered"):
        activate_model(model_version=version, actor=admin)
    (version.path / WEIGHTS_NAME).unlink()
    with pytest.raises(ModelRefused, match="gone from the server"):
        activate_model(model_version=version, actor=admin)
    assert Event.objects.filter(kind=EventKind.MODEL_REFUSED).count() == 2


def test_weights_that_do_not_fit_their_network_fail_in_words(
    model_files: Callable[..., Path], admin: User, patch_set: Path
) -> None:
    folder = model_files()
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"tower_depth": 1', '"tower_depth": 2'))
    version = register_model(folder=folder, actor=None, believe_card=False)
    job = evaluating.request_evaluation(model_version=version, set_name=PATCHES, actor=admin)
    assert do(job) == JobState.FAILED
    assert "do not fit the network" in Job.objects.get().error


def test_a_version_without_evaluation_is_refused_and_the_refusal_stays(
    administrator: Client, version: ModelVersion, admin: User
) -> None:
    answer = administrator.post(f"/api/models/{version.pk}/activate/")
    assert answer.status_code == 409
    assert answer.json()["error"] == "not_evaluated"
    assert "was not evaluated" in answer.json()["message"]
    event = Event.objects.get(kind=EventKind.MODEL_REFUSED)
    assert (event.actor_id, event.subject_id, event.outcome) == (admin.pk, str(version.pk), "denied")
    page = administrator.post(f"/models/{version.pk}/activate/", follow=True).content.decode()
    assert "was not evaluated" in page


def test_an_evaluation_of_other_weights_does_not_count(version: ModelVersion, admin: User, patch_set: Path) -> None:
    evaluated(version, admin)
    Evaluation.objects.update(weights_sha256="0" * 64)
    with pytest.raises(NotEvaluated):
        activate_model(model_version=version, actor=admin)


def test_an_evaluation_in_a_card_of_other_weights_does_not_count(model_files: Callable[..., Path]) -> None:
    card = {"name": "small", "evaluation": {"patches": {"auc": 0.99, "model": {"sha256": "0" * 64}}}}
    version = register_model(folder=model_files(card=card), actor=None)
    assert version.state == ModelState.REGISTERED


def test_the_way_there_and_back_with_runs_that_stay(
    administrator: Client, model_files: Callable[..., Path], admin: User, patch_set: Path
) -> None:
    first = register_model(folder=model_files("1", seed=1), actor=None, believe_card=False)
    second = register_model(folder=model_files("2", seed=2), actor=None, believe_card=False)
    for version in (first, second):
        evaluated(version, admin)
    assert administrator.post(f"/api/models/{first.pk}/activate/").json()["state"] == "active"
    run_of_first = make_run(make_slide(make_case()), model=first)
    assert administrator.post(f"/api/models/{second.pk}/activate/").json()["state"] == "active"
    run_of_first.refresh_from_db()
    assert run_of_first.model_version == first
    first.refresh_from_db()
    assert first.state == ModelState.RETIRED
    assert administrator.post(f"/api/models/{first.pk}/activate/").json()["state"] == "active"
    assert ModelVersion.objects.get(state=ModelState.ACTIVE) == first
    assert administrator.post(f"/api/models/{second.pk}/deactivate/").status_code == 409
    assert administrator.post(f"/api/models/{first.pk}/deactivate/").json()["state"] == "retired"
    assert "No version is active" in administrator.get("/models/").content.decode()
    assert Event.objects.filter(kind=EventKind.MODEL_ACTIVATED).count() == 3
    assert Event.objects.filter(kind=EventKind.MODEL_RETIRED).count() == 3


def test_the_shipped_version_is_active_at_once_and_stays_out_of_use_when_taken_out(db: None) -> None:
    shipped = register_shipped()
    assert shipped.state == ModelState.ACTIVE
    assert shipped.card_evaluates_these_weights
    deactivate_model(model_version=shipped, actor=None)
    assert register_shipped().state == ModelState.RETIRED
    assert activate_model(model_version=shipped, actor=None).state == ModelState.ACTIVE


def test_a_waiting_evaluation_is_shown_and_can_be_cancelled(
    administrator: Client, version: ModelVersion, patch_set: Path
) -> None:
    answer = administrator.post(
        f"/api/models/{version.pk}/evaluate/", {"set": PATCHES}, content_type="application/json"
    )
    assert answer.status_code == 202
    job = answer.json()["job"]["id"]
    again = administrator.post(f"/api/models/{version.pk}/evaluate/", {"set": PATCHES}, content_type="application/json")
    assert again.json()["job"]["id"] == job
    assert f"/api/models/jobs/{job}/" in administrator.get("/models/").content.decode()
    assert administrator.get(f"/api/models/jobs/{job}/").json()["state"] == "queued"
    assert administrator.post(f"/api/models/jobs/{job}/cancel/").json()["job"]["state"] == "cancelled"
    assert administrator.post(f"/api/models/jobs/{job}/cancel/").status_code == 400
    assert Event.objects.filter(kind=EventKind.MODEL_EVALUATION_CANCELLED).count() == 1
    assert "cancelled" in administrator.get("/models/").content.decode()


def test_a_wish_to_cancel_ends_a_running_evaluation(version: ModelVersion, admin: User, patch_set: Path) -> None:
    job = evaluating.request_evaluation(model_version=version, set_name=PATCHES, actor=admin)

    def cancelled_meanwhile(claimed: Job, lease: Any) -> None:
        Job.objects.filter(pk=job.pk).update(cancel_requested=True)
        evaluating.do_evaluation(claimed, lease)

    ended = run(job_id=job.pk, handler=cancelled_meanwhile, on_ended_badly=evaluating.record_bad_end)
    assert ended == JobState.CANCELLED
    assert not Evaluation.objects.exists()


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.OPERATOR, Role.READER])
def test_others_neither_evaluate_nor_choose(role: Role, version: ModelVersion, patch_set: Path, admin: User) -> None:
    evaluated(version, admin)
    client = logged_in(make_user("other", role))
    for act in ("evaluate", "activate", "deactivate"):
        assert client.post(f"/api/models/{version.pk}/{act}/", {}, content_type="application/json").status_code == 403
        assert client.post(f"/models/{version.pk}/{act}/").status_code == 404
    assert client.get(f"/api/models/{version.pk}/").status_code == (200 if role == Role.AUDITOR else 403)


def test_the_page_shows_the_figures_with_their_interval(
    administrator: Client, version: ModelVersion, admin: User, patch_set: Path
) -> None:
    evaluation = evaluated(version, admin)
    page = administrator.get("/models/").content.decode()
    low, high = evaluation.figures["auc_interval"]
    assert f"{evaluation.figures['auc']:.3f} ({low:.3f} to {high:.3f})" in page
    assert PATCHES in page
    auditor = logged_in(make_user("auditor", Role.AUDITOR)).get("/models/").content.decode()
    assert PATCHES in auditor
    assert "Activate" not in auditor


@pytest.mark.slow
def test_the_shipped_version_measures_here_what_its_card_says(reference_data: Path, admin: User, settings: Any) -> None:
    settings.EVALUATION_PATCHES = reference_data / "pcam_patches.npz"
    shipped = register_shipped()
    figures = evaluated(shipped, admin, "patches: pcam_patches.npz").figures
    claimed = shipped.card["evaluation"]["patches"]
    assert (figures["n"], figures["fold"]) == (claimed["n"], claimed["fold"])
    assert figures["auc"] == pytest.approx(claimed["auc"], abs=1e-3)
    assert shipped.state == ModelState.ACTIVE
