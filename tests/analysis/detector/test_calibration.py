"""What a calibration makes of a detection: never a negative of what was not seen, never a number without its fit."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.detector import evaluate
from analysis.detector.calibrating import Rules, calibrate
from analysis.detector.calibration import Calibration, any_of, calibrated, lesion_features
from analysis.detector.card import ModelRefused, read_card
from analysis.detector.detection import NOT_CALIBRATED, Detection, detection_to_json
from analysis.detector.drift import STAIN
from analysis.detector.infer import detect
from analysis.detector.pixel_source import ArraySource
from analysis.detector.validation_record import load_record, record_document, slide_record
from analysis.detector.weights import LoadedModel, load_model, save_model
from analysis.metrics.matching import evaluation_labels
from tests.analysis.detector.conftest import simulated_record


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    record, _ = simulated_record(slides=120, seed=4)
    return calibrate(record, Rules(bootstrap_repeats=10))


@pytest.fixture
def detection(noise_slide: ArraySource, small_model: LoadedModel) -> Detection:
    found = detect(noise_slide, small_model)
    return dataclasses.replace(found, model={**found.model, "sha256": "w"})


def apply(detection: Detection, calibration: Calibration) -> Detection:
    card = json.loads(json.dumps({"calibration": {"standard": calibration.to_json()}}))
    return calibrated(detection, card=card, read={"mpp": 1.0, "seed_probability": 0.3})


def test_a_model_without_calibration_works_and_says_so(detection: Detection) -> None:
    assert detection.lesions
    assert detection.slide_probability is None
    assert all(lesion.probability is None for lesion in detection.lesions)
    assert (detection.triage, detection.triage_words) == ("none", NOT_CALIBRATED)
    document = detection_to_json(detection, "a.tif", 10, 10, (1.0, 1.0))
    assert document["calibration"] is None
    assert document["triage"] == {"band": "none", "words": NOT_CALIBRATED}


def test_probabilities_are_those_of_the_two_logistics(detection: Detection, calibration: Calibration) -> None:
    found = apply(detection, calibration)
    chances = [calibration.lesion.probability(lesion_features(le)) for le in detection.lesions]
    assert [le.probability for le in found.lesions] == pytest.approx(chances, abs=1e-4)
    assert found.slide_probability == pytest.approx(calibration.slide.probability(chances), abs=1e-4)
    assert found.calibration == calibration.digest
    assert any_of(chances) >= max(chances)
    assert [le.score for le in found.lesions] == [le.score for le in detection.lesions]


@pytest.mark.parametrize("status", ["incomplete", "cannot_assess"])
@pytest.mark.parametrize("score", [0.0, 0.01, 0.999, None])
def test_what_was_not_read_whole_is_in_no_negative_band_whatever_its_score(
    detection: Detection, calibration: Calibration, status: str, score: float | None
) -> None:
    unread = dataclasses.replace(detection, status=status, status_reason="40% is out of focus.", slide_score=score)
    for found in (apply(unread, calibration), calibrated(unread, card={}, read={})):
        assert found.triage == ("must_review" if status == "incomplete" and score is not None else "cannot_assess")
        assert "40% is out of focus." in found.triage_words
        assert "negative" not in found.triage_words.lower()
        if status == "cannot_assess":
            assert found.slide_probability is None


def test_a_low_score_that_was_read_whole_is_in_the_negative_band_with_its_promise(
    detection: Detection, calibration: Calibration
) -> None:
    low = apply(dataclasses.replace(detection, slide_score=0.01, status="complete"), calibration)
    assert low.triage == "ai_negative"
    assert "at most 5%" in low.triage_words
    assert "split conformal" in low.triage_words


def test_both_bands_say_what_slides_they_were_measured_on(calibration: Calibration) -> None:
    for composed in (True, False):
        band = dataclasses.replace(calibration.triage, negative_below=0.2, positive_from=0.9, composed=composed)
        for score in (0.1, 0.95):
            assert ("composed" in band.of(score)[1]) == composed


@pytest.mark.parametrize("read", [{"mpp": 2.0}, {}])
def test_another_way_of_reading_is_not_calibrated(
    detection: Detection, calibration: Calibration, read: dict[str, float]
) -> None:
    card = {"calibration": {"standard": calibration.to_json()}}
    found = calibrated(detection, card=json.loads(json.dumps(card)), read=read)
    assert found.slide_probability is None
    assert "for this way of reading" in found.triage_words


def test_another_profile_is_not_calibrated(detection: Detection, calibration: Calibration) -> None:
    fast = dataclasses.replace(detection, model={**detection.model, "profile": "fast"})
    assert apply(fast, calibration).triage_words == NOT_CALIBRATED


@pytest.fixture
def folder(small_model: LoadedModel, tmp_path: Path) -> Path:
    save_model(
        tmp_path / "model",
        state=small_model.network.state_dict(),
        config=small_model.config,
        version="small-2",
        card={"name": "small"},
    )
    return tmp_path / "model"


def write_record(path: Path, *, sha256: str, read: dict[str, object], slides: int = 60) -> None:
    record, _ = simulated_record(slides=slides, seed=6)
    rng = np.random.default_rng(0)
    rows = [
        {
            "slide": slide.name,
            "tumour": slide.tumour,
            "status": slide.status,
            "slide_score": slide.slide_score,
            "lesions": list(slide.lesions),
            "truth": list(slide.truth),
            "drift": {name: float(rng.normal(0.5, 0.1)) for name in STAIN},
            "features": rng.normal(size=16).tolist(),
        }
        for slide in record.slides
    ]
    document = record_document(weights_sha256=sha256, profile="standard", read=read, composed=True, slides=rows)
    path.write_text(json.dumps(document))


def test_the_command_keeps_threshold_suspicion_limit_and_drift_reference_in_the_card(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_model(folder)
    write_record(tmp_path / "r.json", sha256=before.sha256, read=vars(before.config.read))
    command = ["calibrate", "--record", str(tmp_path / "r.json"), "--model", str(folder)]
    assert evaluate.main([*command, "--scan-record", str(tmp_path / "r.json"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["drift_reference_slides"] == 60
    after = load_model(folder)
    assert after.card["threshold"] == said["calibration"]["threshold"]["score"]
    assert after.config.read.scan_score == said["suspicion"]["value"]
    assert after.sha256 == before.sha256


def test_runs_of_the_calibrated_profile_carry_probabilities_and_others_say_why_not(
    folder: Path, noise_slide: ArraySource, tmp_path: Path
) -> None:
    model = load_model(folder)
    write_record(tmp_path / "r.json", sha256=model.sha256, read=vars(model.config.read))
    command = ["calibrate", "--record", str(tmp_path / "r.json"), "--model", str(folder)]
    # where `fast` looks again does not touch what was fitted for `standard`
    assert evaluate.main([*command, "--scan-record", str(tmp_path / "r.json")]) == 0
    calibrated_model = load_model(folder)
    found = detect(noise_slide, calibrated_model)
    assert found.slide_probability is not None
    assert found.lesions[0].probability is not None
    assert found.calibration
    assert "z_eosin" in found.drift
    assert found.triage in ("ai_negative", "must_review", "ai_positive")
    fast = detect(noise_slide, calibrated_model, profile="fast")
    assert (fast.slide_probability, fast.triage_words) == (None, NOT_CALIBRATED)


def test_a_record_of_other_weights_and_a_damaged_card_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path / "r.json", sha256="other", read={"mpp": 1.0})
    assert evaluate.main(["calibrate", "--record", str(tmp_path / "r.json"), "--model", str(folder)]) == 2
    assert "other weights" in capsys.readouterr().err
    content = read_card(folder)
    content["card"]["calibration"] = {"standard": {"format": 1}}
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelRefused, match="other weights"):
        load_model(folder)
    del content["card"]["calibration"]
    content["card"]["drift_reference"] = {"standard": {"format": 1, "stain": {}}}
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelRefused, match="drift reference"):
        load_model(folder)


def test_a_record_made_of_a_detection_is_read_back(detection: Detection, tmp_path: Path) -> None:
    tumour = np.zeros(detection.heatmap.shape, bool)
    col, row = (int(v / 8) for v in detection.lesions[0].peak)
    tumour[max(row - 3, 0) : row + 4, max(col - 3, 0) : col + 4] = True
    truth = evaluation_labels(tumour, um_per_cell=8.0)
    one = slide_record(name="a", tumour=True, detection=detection, truth=truth)
    document = record_document(weights_sha256="w", profile="standard", read={"mpp": 1.0}, composed=True, slides=[one])
    (tmp_path / "r.json").write_text(json.dumps(document))
    (slide,) = load_record(tmp_path / "r.json").slides
    assert slide.assessed
    assert slide.lesions[0]["hit"] == 1
    assert slide.truth[0]["peak"] == pytest.approx(detection.lesions[0].peak_p, abs=0.01)
    assert lesion_features(slide.lesions[0]) == lesion_features(detection.lesions[0])
    assert slide.features == pytest.approx(detection.features)
