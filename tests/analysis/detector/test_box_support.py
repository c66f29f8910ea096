"""A candidate's box score is the strongest box with its centre inside, however the tissue was cut."""

import dataclasses
from functools import partial

import pytest
import shapely

from analysis.detector.box_support import LARGEST_SIDE_PX, MARGIN_PX, with_boxes
from analysis.detector.detection import LesionFinding
from analysis.detector.engine import open_engine
from analysis.detector.infer import DetectionCancelled, detect
from analysis.detector.lesions import MOST_CANDIDATES
from analysis.detector.pixel_source import ArraySource
from analysis.detector.weights import LoadedModel
from tests.analysis.detector.conftest import engine_or_skip, tissue_like


def square(lesion: LesionFinding, left: float, top: float, side: float) -> LesionFinding:
    ring = [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]
    return dataclasses.replace(lesion, outline=[ring], bbox0=(left, top, left + side, top + side), box_score=None)


@pytest.fixture
def lesion(noise_slide: ArraySource, small_model: LoadedModel) -> LesionFinding:
    return detect(noise_slide, small_model).lesions[0]


def looking(model: LoadedModel, source: ArraySource, *lesions: LesionFinding) -> list[float | None]:
    found = with_boxes(
        source,
        open_engine(model),
        lesions,
        mpp=1.0,
        least_score=0.0,
        on_progress=lambda *_: None,
        before_each=lambda: None,
    )
    return [one.box_score for one in found]


def test_the_box_score_does_not_depend_on_how_the_tissue_is_cut(
    noise_slide: ArraySource, small_model: LoadedModel
) -> None:
    cut = partial(detect, noise_slide, small_model, margin_px=192)
    first, second = cut(largest_window_px=512 * 512), cut(largest_window_px=576 * 576, grid_shift_px=128)
    assert any(le.box_score is not None for le in first.lesions)
    assert [le.box_score for le in first.lesions] == [le.box_score for le in second.lesions]


def test_boxes_are_looked_for_where_a_find_is_believed(noise_slide: ArraySource, small_model: LoadedModel) -> None:
    (strongest, *_) = detect(noise_slide, small_model).lesions
    assert strongest.box_score is not None

    def with_limit(name: str, limit: float) -> float | None:
        read = dataclasses.replace(small_model.config.read, **{name: limit})
        model = dataclasses.replace(small_model, config=dataclasses.replace(small_model.config, read=read))
        return detect(noise_slide, model).lesions[0].box_score

    for name in ("box_score", "candidate_score"):
        assert with_limit(name, strongest.score) == strongest.box_score
        assert with_limit(name, strongest.score + 0.01) is None


def test_only_boxes_whose_centre_lies_in_the_candidate_count(
    noise_slide: ArraySource, small_model: LoadedModel, lesion: LesionFinding
) -> None:
    wide = square(lesion, 192, 192, 256)  # its field, 96 px around it, is 64..576 on the grid of 64
    boxes = open_engine(small_model).boxes(noise_slide.rgb[64:576, 64:576])
    x, y = 64 + (boxes[:, 0] + boxes[:, 2]) / 2, 64 + (boxes[:, 1] + boxes[:, 3]) / 2
    inside = shapely.contains_xy(shapely.box(192, 192, 448, 448), x, y)
    assert inside.any()
    assert not inside.all()
    assert looking(small_model, noise_slide, wide) == [pytest.approx(boxes[inside, 4].max(), abs=1e-3)]
    assert looking(small_model, noise_slide, square(lesion, 300.2, 300.2, 0.1)) == [None]


def test_the_slide_scale_is_minded(noise_slide: ArraySource, small_model: LoadedModel, lesion: LesionFinding) -> None:
    finer = ArraySource(noise_slide.rgb.repeat(2, 0).repeat(2, 1), 0.5, 0.5)
    (a,), (b,) = (
        looking(small_model, noise_slide, square(lesion, 192, 192, 256)),
        looking(small_model, finer, square(lesion, 384, 384, 512)),
    )
    assert a == pytest.approx(b, abs=1e-3)


def test_of_a_very_large_candidate_the_middle_is_looked_at(small_model: LoadedModel, lesion: LesionFinding) -> None:
    side = LARGEST_SIDE_PX + 6 * MARGIN_PX
    source = ArraySource(tissue_like(side, side), 1.0, 1.0)
    start = (side - LARGEST_SIDE_PX) // 2 // 64 * 64
    middle = ArraySource(source.rgb.copy(), 1.0, 1.0)
    middle.rgb[:start] = middle.rgb[:, :start] = 244  # what lies outside changes nothing
    whole = square(lesion, 1, 1, side - 2)
    assert looking(small_model, source, whole) == looking(small_model, middle, whole) != [None]


@pytest.mark.parametrize("engine_name", ["torch", "openvino"])
def test_the_weakest_of_very_many_are_left_as_they_are_and_stopping_stops(
    noise_slide: ArraySource, small_model: LoadedModel, lesion: LesionFinding, engine_name: str
) -> None:
    engine = engine_or_skip(small_model, engine_name)
    many = tuple(square(lesion, 192, 192, 64) for _ in range(MOST_CANDIDATES + 2))
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls > MOST_CANDIDATES + 1:
            raise DetectionCancelled("enough")

    look = partial(
        with_boxes, noise_slide, engine, mpp=1.0, least_score=0.0, on_progress=lambda *_: None, before_each=count
    )
    found = look(many)
    assert calls == MOST_CANDIDATES
    assert len(found) == len(many)
    assert [one.box_score for one in found[MOST_CANDIDATES:]] == [None, None]
    with pytest.raises(DetectionCancelled):
        look(many)


def test_no_box_is_looked_for_below_the_least_score(
    noise_slide: ArraySource, small_model: LoadedModel, lesion: LesionFinding
) -> None:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    pair = tuple(dataclasses.replace(square(lesion, 192, 192, 64), score=score) for score in (0.7, 0.69))
    engine = open_engine(small_model)
    with_boxes(noise_slide, engine, pair, mpp=1.0, least_score=0.7, on_progress=lambda *_: None, before_each=count)
    assert calls == 1
