"""The fits against known answers, the conformal promise on simulated slides, ECE against a vector worked by hand."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from analysis.detector.calibrating import (
    LEAST,
    SUSPICION_RANGE,
    CannotCalibrate,
    Rules,
    calibrate,
    ece_of_perfect,
    equal_mass_bins,
    expected_calibration_error,
    fit_logistic,
    operating_threshold,
    parts_of,
    reliability_table,
    slides_needed,
    suspicion_threshold,
    triage_band,
)
from analysis.detector.calibration import (
    CalibrationDamaged,
    any_of,
    calibrations_of,
    lesion_features,
    sigmoid,
    strongest_of,
)
from analysis.detector.validation_record import RecordDamaged, ValidationRecord, ValidationSlide, load_record
from tests.analysis.detector.conftest import simulated_record


def test_the_logistic_fit_finds_the_coefficients_that_made_the_data() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6000, 2))
    y = (rng.random(6000) < 1 / (1 + np.exp(-(1.5 * x[:, 0] - 0.7 * x[:, 1] - 0.4)))).astype(float)
    assert fit_logistic(x, y, ridge=1e-6, prior=np.zeros(2)) == pytest.approx([1.5, -0.7, -0.4], abs=0.12)


def test_the_logistic_fit_ends_at_the_gradients_zero_also_when_the_classes_are_separable() -> None:
    x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0.0, 0, 1, 1])
    w = fit_logistic(x, y, ridge=1.0, prior=np.zeros(1))
    p = 1 / (1 + np.exp(-(x @ w[:1] + w[1])))
    assert x[:, 0] @ (p - y) + w[0] == pytest.approx(0, abs=1e-8)
    assert 0 < w[0] < 5


def test_a_strong_ridge_stays_at_the_prior() -> None:
    x, y = np.array([[-1.0], [1.0], [0.5]]), np.array([1.0, 0, 1])
    assert fit_logistic(x, y, ridge=1e8, prior=np.ones(1))[0] == pytest.approx(1, abs=1e-4)


def test_ece_of_a_vector_worked_by_hand() -> None:
    # two bins: mean 0.15 with 0 of 2 true, mean 0.75 with 1 of 2 true -> (2 * 0.15 + 2 * 0.25) / 4 = 0.2
    judged = [(0.1, False), (0.7, False), (0.2, False), (0.8, True)]
    assert expected_calibration_error(judged, bins=2) == pytest.approx(0.2)
    assert expected_calibration_error(judged[::-1], bins=2) == pytest.approx(0.2)
    assert expected_calibration_error([]) is None


def test_equal_probabilities_are_never_parted_so_the_order_of_the_pairs_does_not_matter() -> None:
    judged = [(0.5, i % 3 == 0) for i in range(30)] + [(0.9, True)] * 5
    assert [len(group) for group in equal_mass_bins(judged, bins=10)] == [30, 5]
    shuffled = [judged[i] for i in np.random.default_rng(0).permutation(len(judged))]
    assert expected_calibration_error(shuffled) == pytest.approx(expected_calibration_error(judged))


def test_the_reliability_table_counts_every_pair_once() -> None:
    rng = np.random.default_rng(3)
    judged = [(float(p), bool(rng.random() < p)) for p in rng.random(200)]
    table = reliability_table(judged)
    assert sum(row["n"] for row in table) == 200
    assert [row["mean"] for row in table] == sorted(row["mean"] for row in table)
    assert all(row["low"] <= row["share"] <= row["high"] for row in table)


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.02, 49)])
def test_the_promise_needs_enough_tumour_slides(alpha: float, needed: int) -> None:
    assert slides_needed(alpha) == needed
    scores = [0.5 + i / 1000 for i in range(needed)]
    assert triage_band(scores, [], alpha=alpha, composed=False).negative_below == 0.5
    short = triage_band(scores[1:], [], alpha=alpha, composed=False)
    assert short.negative_below is None
    assert f"({needed - 1} of the {needed} needed)" in short.promise
    assert short.of(0.0)[0] == "none"


def test_of_new_tumour_slides_no_more_than_promised_fall_in_the_negative_band() -> None:
    """Exchangeable scores of any distribution, with ties: the miss rate over many calibrations stays below alpha."""
    rng = np.random.default_rng(7)
    missed, stopped, draws = 0, 0, 4000
    for _ in range(draws):
        tumour, other = np.round(rng.beta(4, 1, 31), 2), np.round(rng.beta(1, 4, 31), 2)
        band = triage_band(tumour[:30].tolist(), other[:30].tolist(), alpha=0.1, composed=True)
        missed += band.of(float(tumour[30]))[0] == "ai_negative"
        stopped += band.of(float(other[30]))[0] == "ai_positive"
    margin = 3 * math.sqrt(0.1 * 0.9 / draws)
    assert 0 < missed / draws <= 0.1 + margin
    assert 0 < stopped / draws <= 0.1 + margin


def test_bands_that_cross_leave_no_slide_in_both() -> None:
    band = triage_band([0.8] * 40, [0.3] * 40, alpha=0.05, composed=True)
    assert [band.of(score)[0] for score in (0.2, 0.3, 0.5, 0.8, 0.9)] == [
        *("ai_negative", "ai_negative", "must_review", "ai_positive", "ai_positive")
    ]


def test_the_calibration_recovers_the_probabilities_of_a_simulated_detector() -> None:
    record, truth = simulated_record(slides=400, seed=5)
    found = calibrate(record, Rules(bootstrap_repeats=50))
    given = [found.lesion.probability(lesion_features(le)) for s in record.slides for le in s.lesions]
    assert np.abs(np.array(given) - np.array(truth)).mean() < 0.04
    assert found.ece["lesion"]["value"] < 0.05
    assert found.ece["slide"]["value"] < 0.08
    assert found.ece["lesion"]["low"] <= found.ece["lesion"]["value"] <= found.ece["lesion"]["high"]
    assert found.triage.negative_below is not None


def test_weak_finds_that_come_in_crowds_do_not_make_a_slide_suspect() -> None:
    """On half of the slides lie many weak finds, with tumour or without; what tells is the strongest. They are not
    independent, so that one of them be true is no likelier where there are many."""
    rng = np.random.default_rng(4)
    record, _ = simulated_record(slides=1, seed=1)
    slides = []
    for n in range(120):
        tumour, crowd = n % 2 == 0, (n // 2) % 2 == 0
        strongest = float(np.clip(rng.normal(0.8 if tumour else 0.65, 0.08), 0.3, 0.97))
        scores = [strongest, *rng.uniform(0.4, 0.6, 60 if crowd else 1).tolist()]
        found = [(score, int(tumour and i == 0)) for i, score in enumerate(scores)]
        slides.append(
            dataclasses.replace(_slide(found, [(1, False)] if tumour else []), name=f"slide {n}", tumour=tumour)
        )
    crowded = dataclasses.replace(record, slides=tuple(slides))
    assert calibrate(crowded, Rules(bootstrap_repeats=20)).slide.of == "strongest"


def test_finds_that_are_independent_add_up() -> None:
    """Each slide has three finds of the same strength, each true by chance of its own."""
    rng = np.random.default_rng(4)
    record, _ = simulated_record(slides=1, seed=1)
    slides = []
    for n in range(300):
        few = bool(rng.integers(2))
        hits = rng.random(1 if few else 8) < 0.2
        found = [(0.6, i if hit else 0) for i, hit in enumerate(hits, start=1)]
        truth = [(i, False) for i, hit in enumerate(hits, start=1) if hit]
        slides.append(dataclasses.replace(_slide(found, truth), name=f"slide {n}", tumour=bool(hits.any())))
    told = calibrate(dataclasses.replace(record, slides=tuple(slides)), Rules(bootstrap_repeats=20)).slide
    assert told.of == "any"
    assert told.probability([0.2] * 8) == pytest.approx(1 - 0.8**8, abs=0.1)


def test_a_slide_without_finds_is_no_surer_to_be_normal_than_one_with_weak_ones() -> None:
    """One in six of both has tumour, all of it isolated cells that nothing finds."""
    rng = np.random.default_rng(4)
    record, _ = simulated_record(slides=1, seed=1)
    slides = []
    for n in range(240):
        strong, hidden = n % 3 == 0, rng.random() < 1 / 6
        weak = [(float(rng.uniform(0.3, 0.5)), 0)] * int(rng.integers(2))
        truth = [(1, False)] if strong else [(1, True)] if hidden else []
        found = [(0.95, 1)] if strong else weak
        slides.append(dataclasses.replace(_slide(found, truth), name=f"slide {n}", tumour=strong or hidden))
    calibration = calibrate(dataclasses.replace(record, slides=tuple(slides)), Rules(bootstrap_repeats=20))
    assert calibration.slide.least == max(LEAST)
    assert calibration.slide.probability([]) == calibration.slide.probability([0.01]) == pytest.approx(1 / 6, abs=0.07)
    assert calibration.slide.probability([0.99]) > 0.9


def test_a_calibration_survives_the_card_and_is_refused_for_other_weights() -> None:
    record, _ = simulated_record(slides=80, seed=2)
    found = calibrate(record, Rules(bootstrap_repeats=20))
    card = json.loads(json.dumps({"calibration": {"standard": found.to_json()}}))
    again = calibrations_of(card, weights_sha256="w")["standard"]
    assert again.digest == found.digest
    # fitted before there was a choice
    for name in ("of", "least"):
        card["calibration"]["standard"]["slide"].pop(name, None)
    before = calibrations_of(card, weights_sha256="w")["standard"]
    assert (before.slide.of, before.slide.least) == ("any", 0.0)
    assert "least" not in before.to_json()["slide"]
    with pytest.raises(CalibrationDamaged, match="other weights"):
        calibrations_of(card, weights_sha256="x")
    for change in (
        {"format": 2},
        {"profile": "fast"},
        {"lesion": {**card["calibration"]["standard"]["lesion"], "weights": [1.0]}},
        {"lesion": {**card["calibration"]["standard"]["lesion"], "intercept": "high"}},
        {"slide": {"slope": -1.0, "bias": 0.0}},
        {"slide": {"slope": 1.0, "bias": 0.0, "of": "best"}},
        {"slide": {"slope": 1.0, "bias": 0.0, "least": 1.0}},
        {"triage": {**card["calibration"]["standard"]["triage"], "positives": 1}},
        {"triage": {}},
    ):
        damaged = {"calibration": {"standard": {**card["calibration"]["standard"], **change}}}
        with pytest.raises(CalibrationDamaged):
            calibrations_of(damaged, weights_sha256="w")


def test_slides_that_were_not_read_whole_shape_no_triage_band() -> None:
    record, _ = simulated_record(slides=80, seed=2)
    spoilt = tuple(
        dataclasses.replace(s, name=f"spoilt {s.name}", status="incomplete", tumour=not s.tumour) for s in record.slides
    )
    both = dataclasses.replace(record, slides=record.slides + spoilt)
    a, b = (calibrate(one, Rules(bootstrap_repeats=20)) for one in (record, both))
    assert a.triage == b.triage
    assert a.slide != b.slide, "readers see their probabilities, so these must fit them too"
    assert (b.fitted_on["slides"], b.fitted_on["read_whole"]) == (160, 80)


def test_slides_without_a_score_shape_nothing() -> None:
    record, _ = simulated_record(slides=80, seed=2)
    unread = tuple(dataclasses.replace(s, name=f"unread {s.name}", status="cannot_assess") for s in record.slides)
    both = dataclasses.replace(record, slides=record.slides + unread)
    a, b = (calibrate(one, Rules(bootstrap_repeats=20)) for one in (record, both))
    assert (a.lesion, a.slide, a.triage, a.threshold) == (b.lesion, b.slide, b.triage, b.threshold)
    assert b.fitted_on["left_out_without_score"] == 80


def test_few_exact_probabilities_show_an_error_and_many_hardly_any() -> None:
    assert ece_of_perfect([0.5] * 30) > 0.05
    assert ece_of_perfect([0.5] * 20_000, repeats=20) < 0.01
    assert ece_of_perfect([0.0] * 50 + [1.0] * 50) == 0


def test_too_small_a_record_is_refused_with_what_is_missing() -> None:
    record, _ = simulated_record(slides=6, seed=2)
    with pytest.raises(CannotCalibrate, match="slides with tumour"):
        calibrate(record, Rules())


def _slide(found: list[tuple[float, int]], truth: list[tuple[int, bool]]) -> ValidationSlide:
    facts = {"area_mm2": 0.05, "box_score": None}
    lesions = tuple({"score": score, "mean_p": score, "hit": hit, **facts} for score, hit in found)
    return ValidationSlide(
        "s", bool(truth), "complete", 0.9, lesions, tuple({"label": k, "itc": itc, "peak": 0.5} for k, itc in truth)
    )


def test_the_operating_threshold_keeps_its_rule_and_leaves_itc_out() -> None:
    slides = [
        _slide([(0.9, 1), (0.8, 1), (0.7, 2), (0.6, 0)], [(1, False), (2, False)]),
        _slide([(0.65, 1), (0.2, 2), (0.75, 0)], [(1, False), (2, True)]),
    ]
    at_two_thirds = operating_threshold(slides, sensitivity=0.66)
    assert (at_two_thirds["score"], at_two_thirds["found"], at_two_thirds["lesions"]) == (0.7, 2, 3)
    assert at_two_thirds["false_per_slide"] == 0.5
    assert operating_threshold(slides, sensitivity=1.0)["score"] == 0.65


def test_a_sensitivity_that_no_score_reaches_is_said_so() -> None:
    slides = [_slide([(0.7, 1)], [(1, False), (2, False)])]
    found = operating_threshold(slides, sensitivity=0.9)
    assert found["score"] == 0.7
    assert "not reached at any score (1 of 2" in found["rule"]


def seen(peaks: dict[int, float], scores: dict[int, float], *, itc: int = 0) -> ValidationRecord:
    """One slide: the highest probability in each true lesion, and the score of what was found there."""
    record, _ = simulated_record(slides=1, seed=1)
    truth = tuple({"label": i, "itc": i == itc, "peak": p} for i, p in peaks.items())
    lesions = tuple({**record.slides[0].lesions[0], "hit": i, "score": p} for i, p in scores.items())
    return dataclasses.replace(record, slides=(dataclasses.replace(record.slides[0], truth=truth, lesions=lesions),))


def test_the_suspicion_threshold_lets_nearly_every_lesion_through() -> None:
    peaks = {i: 0.09 + i / 100 for i in range(1, 51)}
    scanned, reading = seen(peaks, {}), seen(peaks, dict.fromkeys(peaks, 0.9))
    assert suspicion_threshold(scanned, reading, share=0.98)["value"] == pytest.approx(0.105)
    assert suspicion_threshold(scanned, reading, share=0.98)["reached"] == 49
    assert suspicion_threshold(scanned, reading, share=1.0)["value"] == pytest.approx(0.095)
    high, low = (seen({1: peak}, {1: 0.9}) for peak in (0.9, 0.01))
    assert [suspicion_threshold(one, one, share=1.0)["value"] for one in (low, high)] == list(SUSPICION_RANGE)


def test_what_the_reading_does_not_find_no_scan_can_lose() -> None:
    peaks = {1: 0.3, 2: 0.1, 3: 0.05}
    # of two lesions the second lies under the threshold that finds half of them; the third is of isolated cells
    reading = seen(peaks, {1: 0.9, 2: 0.2, 3: 0.95}, itc=3)
    found = suspicion_threshold(seen(peaks, {}, itc=3), reading, sensitivity=0.5, share=1.0)
    assert (found["lesions"], found["value"]) == (1, pytest.approx(0.295))
    with pytest.raises(CannotCalibrate):
        suspicion_threshold(reading, seen(peaks, {}, itc=3))


def test_parts_hold_tumour_slides_evenly_and_do_not_depend_on_order() -> None:
    record, _ = simulated_record(slides=50, seed=1)
    parts = dict(zip([s.name for s in record.slides], parts_of(record.slides), strict=True))
    again = dict(zip([s.name for s in record.slides[::-1]], parts_of(record.slides[::-1]), strict=True))
    assert parts == again
    tumour = [sum(s.tumour for s in record.slides if parts[s.name] == k) for k in range(5)]
    assert max(tumour) - min(tumour) <= 1


def test_any_of_and_sigmoid_at_their_ends() -> None:
    assert any_of([]) == strongest_of([]) == 0
    assert strongest_of([0.2, 0.5, 0.3]) == 0.5
    assert any_of([0.5, 0.5]) == 0.75
    assert sigmoid(-1000) == 0
    assert sigmoid(1000) == 1


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_text('{"format": 1, "slides": []}')
    (tmp_path / "c.json").write_text("no")
    for name in ("a.json", "b.json", "c.json", "none.json"):
        with pytest.raises(RecordDamaged):
            load_record(tmp_path / name)


def test_simulated_records_are_of_the_type_that_is_read(tmp_path: Path) -> None:
    record, _ = simulated_record(slides=3, seed=1)
    assert isinstance(record, ValidationRecord)
