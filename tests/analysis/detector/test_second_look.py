"""The second look is the same for every orientation of the slide, deterministic, and counted."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from analysis.detector import second_look
from analysis.detector.engine import open_engine
from analysis.detector.infer import DetectionCancelled, detect
from analysis.detector.lesions import MOST_CANDIDATES
from analysis.detector.pixel_source import ArraySource
from analysis.detector.second_look import all_looks, look_again, second_score
from analysis.detector.weights import LoadedModel


def looking_twice(model: LoadedModel) -> LoadedModel:
    read = dataclasses.replace(model.config.read, second_look=True)
    return dataclasses.replace(model, config=dataclasses.replace(model.config, read=read))


def test_all_looks_count_alike_in_log_odds() -> None:
    assert all_looks(0.9, 0.1, networks=1) == pytest.approx(0.5)
    assert all_looks(0.8, 0.8, networks=1) == all_looks(0.8, 0.8, networks=2) == pytest.approx(0.8)
    assert all_looks(1.0, 0.5, networks=1) < 1
    assert all_looks(0.9, 0.1, networks=2) == pytest.approx(0.3247)  # odds 9 * 1/9 * 1/9, and the cube root


def test_it_changes_scores_and_order_alone_and_says_what_it_cost(
    noise_slide: ArraySource, small_model: LoadedModel
) -> None:
    once, twice = detect(noise_slide, small_model), detect(noise_slide, looking_twice(small_model))
    assert "second_look" not in once.seconds
    assert twice.seconds["second_look"] > 0
    assert all(lesion.second_look is None for lesion in once.lesions)
    first = {lesion.peak: lesion for lesion in once.lesions}
    assert {lesion.peak for lesion in twice.lesions} == set(first)
    for lesion in twice.lesions:
        if lesion.second_look is not None:
            assert lesion.score == pytest.approx(
                all_looks(first[lesion.peak].score, lesion.second_look, networks=1), abs=2e-4
            )
        assert lesion.outline == first[lesion.peak].outline
    assert [lesion.score for lesion in twice.lesions] == sorted((le.score for le in twice.lesions), reverse=True)
    assert [lesion.rank for lesion in twice.lesions] == list(range(1, len(twice.lesions) + 1))
    assert twice.slide_score == twice.lesions[0].score
    again = detect(noise_slide, looking_twice(small_model))
    assert again.lesions == twice.lesions


def test_a_turned_slide_gets_the_same_second_look(noise_slide: ArraySource, small_model: LoadedModel) -> None:
    """The eight orientations are averaged, so turning the slide only changes the order of the sum."""
    lesion = detect(noise_slide, small_model).lesions[0]
    engine = open_engine(small_model)
    side = noise_slide.height
    x, y = lesion.peak
    left = min(max(int(x) - side // 2, 0), noise_slide.width - side)
    square = np.ascontiguousarray(noise_slide.rgb[:, left : left + side])
    outline = [[(px - left, py) for px, py in ring] for ring in lesion.outline]
    upright = dataclasses.replace(lesion, peak=(x - left, y), outline=outline)
    turned = dataclasses.replace(
        lesion,
        peak=(y, side - (x - left)),  # a quarter to the left
        outline=[[(py, side - px) for px, py in ring] for ring in outline],
    )
    scores = [
        second_score(ArraySource(np.ascontiguousarray(rgb), 1.0, 1.0), engine, le, mpp=1.0)
        for rgb, le in ((square, upright), (np.rot90(square), turned))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_a_finer_slide_is_read_at_half_a_micrometre_and_seen_alike(
    noise_slide: ArraySource, small_model: LoadedModel
) -> None:
    lesion = detect(noise_slide, small_model).lesions[0]
    finer = ArraySource(noise_slide.rgb.repeat(2, 0).repeat(2, 1), 0.5, 0.5)
    doubled = dataclasses.replace(
        lesion,
        peak=(lesion.peak[0] * 2, lesion.peak[1] * 2),
        outline=[[(x * 2, y * 2) for x, y in ring] for ring in lesion.outline],
    )
    engine = open_engine(small_model)
    a, b = (second_score(source, engine, le, mpp=1.0) for source, le in ((noise_slide, lesion), (finer, doubled)))
    assert a == pytest.approx(b, abs=1e-4)


def test_a_candidate_that_two_ways_up_do_not_believe_is_not_looked_at_further(
    noise_slide: ArraySource, small_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, lesions = open_engine(small_model), detect(noise_slide, small_model).lesions[:3]

    def looked(give_up_score: float) -> dict[tuple[float, float], float | None]:
        found = look_again(
            noise_slide,
            engine,
            lesions,
            mpp=1.0,
            least_score=0.0,
            on_progress=lambda *_: None,
            before_each=lambda: None,
            give_up_score=give_up_score,
        )
        return {lesion.peak: lesion.second_look for lesion in found}

    patient, hasty = looked(0.0), looked(1.0)
    assert patient == {le.peak: round(second_score(noise_slide, engine, le, mpp=1.0), 4) for le in lesions}
    assert sorted(way for ways in second_look.IN_TURN for way in ways) == list(range(8))
    monkeypatch.setattr(second_look, "IN_TURN", second_look.IN_TURN[:1])
    of_two = {le.peak: round(second_score(noise_slide, engine, le, mpp=1.0), 4) for le in lesions}
    assert hasty == of_two != patient
    monkeypatch.undo()
    # who is believed after two ways is seen all eight
    (first, *_) = lesions
    believed = all_looks(first.score, hasty[first.peak] or 0.0, networks=1)
    assert looked(believed - 1e-3)[first.peak] == patient[first.peak]
    assert looked(believed + 1e-3)[first.peak] == hasty[first.peak]


def test_no_more_than_the_most_candidates_are_read_and_stopping_stops(
    noise_slide: ArraySource, small_model: LoadedModel
) -> None:
    lesion = detect(noise_slide, small_model).lesions[0]
    many = tuple(dataclasses.replace(lesion, rank=n) for n in range(1, MOST_CANDIDATES + 4))
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise DetectionCancelled("enough")

    look = partial(
        look_again,
        noise_slide,
        open_engine(small_model),
        mpp=1.0,
        least_score=0.05,
        on_progress=lambda *_: None,
        before_each=count,
    )
    with pytest.raises(DetectionCancelled):
        look(many)
    assert calls == 3
    weak = tuple(dataclasses.replace(one, score=0.01) for one in many)
    kept = look(weak)
    assert all(one.second_look is None for one in kept)
    assert calls == 3
