"""A run keeps what the calibration said, belongs to one calibration, and the models page shows how good that is."""

import dataclasses

import pytest
from django.test import Client

from accounts.models import User
from analysis import runs
from analysis.detector.calibrating import Rules, calibrate
from analysis.detector.calibration import calibrated
from analysis.enums import ModelState, Profile, TriageBand
from analysis.models import ModelVersion, Run
from slides.models import Slide
from tests.analysis.detector.conftest import simulated_record
from tests.analysis.test_runs import a_detection, claimed, home, keep, slide  # noqa: F401
from tests.factories import make_model

pytestmark = pytest.mark.django_db


@pytest.fixture
def version() -> ModelVersion:
    made = make_model(state=ModelState.ACTIVE)
    record, _ = simulated_record(slides=60, seed=3)
    found = calibrate(dataclasses.replace(record, weights_sha256=made.sha256), Rules(bootstrap_repeats=10))
    made.card = {"calibration": {"standard": found.to_json()}}
    made.save()
    made.refresh_from_db()
    return made


def test_a_run_keeps_probabilities_band_and_calibration(slide: Slide, version: ModelVersion) -> None:  # noqa: F811
    job = runs.request_run(slide=slide, actor=None)
    assert job is not None
    detection = dataclasses.replace(
        a_detection(lesions=2), model={"sha256": version.sha256, "profile": "standard"}, quality={"blurred": 0.02}
    )
    found = calibrated(detection, card=version.card, read={"mpp": 1.0})
    run = keep(slide, version, claimed(job), found)
    run.refresh_from_db()
    assert run.slide_probability == found.slide_probability
    assert run.slide_probability is not None
    assert (run.triage, run.triage_words) == (found.triage, found.triage_words)
    assert run.calibration == version.calibrations[0].digest
    assert run.quality == {"blurred": 0.02}
    assert [lesion.probability for lesion in run.lesions.all()] == [le.probability for le in found.lesions]


def test_a_run_without_calibration_says_so(slide: Slide) -> None:  # noqa: F811
    version = make_model()
    job = runs.request_run(slide=slide, actor=None)
    assert job is not None
    run = keep(slide, version, claimed(job), a_detection())
    assert (run.slide_probability, run.triage, run.calibration) == (None, TriageBand.NONE, "")
    assert "Not calibrated" in run.triage_words


def test_another_calibration_of_the_same_weights_is_another_result(slide: Slide, version: ModelVersion) -> None:  # noqa: F811
    first = runs.parameters_of(slide=slide, model_version=version, profile=Profile.STANDARD)
    assert first["calibration"] == version.calibrations[0].digest
    assert "calibration" not in runs.parameters_of(slide=slide, model_version=version, profile=Profile.FAST)
    record, _ = simulated_record(slides=60, seed=4)
    again = calibrate(dataclasses.replace(record, weights_sha256=version.sha256), Rules(bootstrap_repeats=10))
    version.card = {"calibration": {"standard": again.to_json()}}
    assert runs.parameters_of(slide=slide, model_version=version, profile=Profile.STANDARD) != first
    assert Run.objects.count() == 0


def test_the_models_page_shows_the_calibration_or_that_there_is_none(version: ModelVersion) -> None:
    make_model("2", state=ModelState.REGISTERED)
    client = Client()
    client.force_login(User.objects.create_user("ada", printed_name="Ada", roles=["administrator"]))
    page = client.get("/models/").content.decode()
    calibration = version.calibrations[0]
    assert "Of slides with tumour at most 5%" in page
    assert f"{calibration.ece['slide']['value']:.3f}" in page
    assert page.count("<td>slides</td>") == len(calibration.reliability["slide"])
    assert page.count("<td>lesions</td>") == len(calibration.reliability["lesion"])
    assert "Not calibrated" in page
