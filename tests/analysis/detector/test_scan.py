"""What the scan decides: where `fast` reads, that a find is read to its end, and how far a find may be believed."""

import dataclasses

import numpy as np
import pytest

from analysis.detector import scan
from analysis.detector.calibration import logit, sigmoid
from analysis.detector.card import default_model_folder
from analysis.detector.configuration import ReadConfig
from analysis.detector.engine import open_engine
from analysis.detector.lesions import LesionRules, find_lesions
from analysis.detector.pixel_source import ArraySource
from analysis.detector.reading import SlideReading
from analysis.detector.reading_plan import WINDOW_BYTES, Grid
from analysis.detector.second_look import GLANCE_CELLS, strongest
from analysis.detector.weights import LoadedModel, load_model
from tests.analysis.detector.conftest import engine_or_skip

RULES = ReadConfig(scan_score=0.5, scan_grow_probability=0.4, scan_stands_out=0.0, glance_score=0.0)
GRID = Grid.of(width=800, height=640, mpp_x=1.0, mpp_y=1.0)


def two_spots() -> np.ndarray:
    """(80, 100): one strong spot, one weak one, and cells that are neither."""
    p = np.full((GRID.rows, GRID.cols), 0.1, np.float32)
    p[20:28, 20:28] = 0.9
    p[50:58, 70:78] = 0.45
    return p


# -- where `fast` reads --------------------------------------------------------------------------------------------------


def looked_at(
    source: ArraySource, model: LoadedModel, p: np.ndarray, rules: ReadConfig
) -> tuple[np.ndarray, np.ndarray]:
    engine = open_engine(model, "torch", workers=2)
    return scan.where_to_read(
        p, source, engine, grid=GRID, rules=rules, on_progress=lambda stage, share: None, before_each=lambda: None
    )


def where(source: ArraySource, model: LoadedModel, p: np.ndarray, rules: ReadConfig) -> np.ndarray:
    return looked_at(source, model, p, rules)[0]


@pytest.fixture
def slide(noise_slide: ArraySource) -> ArraySource:
    return ArraySource(noise_slide.rgb[:, :800], 1.0, 1.0)


def test_what_the_scan_finds_is_read_with_what_surrounds_it(slide: ArraySource, small_model: LoadedModel) -> None:
    wanted = where(slide, small_model, two_spots(), RULES)
    expected = np.zeros_like(wanted)
    rim = scan.RIM_CELLS
    expected[20 - rim : 28 + rim, 20 - rim : 28 + rim] = True
    assert np.array_equal(wanted, expected)


STANDS_OUT = dataclasses.replace(RULES, scan_stands_out=1.0)


def test_a_weak_find_is_glanced_at_where_it_stands_out(slide: ArraySource, small_model: LoadedModel) -> None:
    p = two_spots()
    p[20:28, 20:28] = 0.6
    assert where(slide, small_model, p, STANDS_OUT)[24, 24]
    p[p < 0.2] = 0.39  # 0.85 below 0.6, in log odds
    assert not where(slide, small_model, p, STANDS_OUT).any()
    assert where(slide, small_model, p, RULES)[24, 24]
    p[20:28, 20:28] = scan.SURE  # a metastasis may fill all that surrounds it
    assert where(slide, small_model, p, dataclasses.replace(STANDS_OUT, scan_stands_out=9.0))[24, 24]


def test_glass_and_what_the_scan_could_not_see_surround_nothing(slide: ArraySource, small_model: LoadedModel) -> None:
    p = np.zeros((GRID.rows, GRID.cols), np.float32)
    p[:40, 40:] = 1.0
    p[50:58, 20:28] = 0.6  # of tissue there is nothing but the find itself, and some cells that are weak
    p[58:70, 20:60] = 0.1
    assert where(slide, small_model, p, STANDS_OUT)[54, 24]


def test_of_a_confirmed_find_the_parts_are_glanced_at(slide: ArraySource, small_model: LoadedModel) -> None:
    """Weak tissue leads from one spot to another, and past a third that is a find by itself, too."""
    p = np.full((GRID.rows, GRID.cols), 0.1, np.float32)
    p[20:60, 20:80] = 0.45
    p[22:30, 22:30], p[50:58, 70:78] = 0.9, 0.7
    engine = open_engine(small_model, "torch", workers=1)
    strong, weak = (
        strongest(cells)
        for at in ((22 * 8, 22 * 8), (70 * 8, 50 * 8))
        for cells in scan.glance(slide, engine, [at], mpp=1.0, on_progress=lambda *_: None, before_each=lambda: None)
    )
    assert abs(strong - weak) > 1e-4
    wanted = where(slide, small_model, p, dataclasses.replace(RULES, glance_score=strong))
    expected = np.zeros_like(wanted)
    rim = scan.RIM_CELLS
    expected[22 - rim : 30 + rim, 22 - rim : 30 + rim] = True
    expected[50 - rim : 58 + rim, 70 - rim : 78 + rim] |= weak >= strong
    assert np.array_equal(wanted, expected)
    everything = where(slide, small_model, p, RULES)
    assert everything[54, 74]
    assert not everything[40, 50]  # what leads there is not read


def test_the_scan_is_sure_of_a_part_of_a_confirmed_find(slide: ArraySource, small_model: LoadedModel) -> None:
    """One glance is narrow: a metastasis that the scan is sure of is not lost by it."""
    engine, places = open_engine(small_model, "torch", workers=1), [(22, 22), (50, 70)]

    def said(place: tuple[int, int]) -> float:
        at = (place[1] * 8.0, place[0] * 8.0)
        (cells,) = scan.glance(slide, engine, [at], mpp=1.0, on_progress=lambda *_: None, before_each=lambda: None)
        return strongest(cells)

    less, more = sorted(places, key=said)
    p = np.full((GRID.rows, GRID.cols), 0.1, np.float32)
    p[20:60, 20:80] = 0.45
    for (row, col), strength in ((more, 0.9), (less, scan.SURE)):
        p[row : row + 8, col : col + 8] = strength
    only_the_first = dataclasses.replace(RULES, glance_score=said(more))
    assert said(less) < said(more)
    assert where(slide, small_model, p, only_the_first)[less]
    p[less[0] : less[0] + 8, less[1] : less[1] + 8] = scan.SURE - 0.05
    assert not where(slide, small_model, p, only_the_first)[less]


def test_a_confirmed_peak_is_read_though_its_part_is_no_find(slide: ArraySource, small_model: LoadedModel) -> None:
    p = np.full((GRID.rows, GRID.cols), 0.1, np.float32)
    p[20:60, 20:80] = 0.49
    p[30, 30] = p[30:34, 60:64] = 0.6
    p[30, 30] = 0.7  # one cell: with the strongest of the other spot a find, alone none
    wanted = where(slide, small_model, p, dataclasses.replace(RULES, scan_score=0.55))
    assert wanted[30, 30]


def test_what_a_glance_clears_is_not_read(slide: ArraySource, small_model: LoadedModel) -> None:
    assert not where(slide, small_model, two_spots(), dataclasses.replace(RULES, glance_score=1.0)).any()


def test_of_two_finds_a_glance_keeps_the_one_that_the_network_sees(
    slide: ArraySource, small_model: LoadedModel
) -> None:
    p = two_spots()
    p[50:58, 70:78] = 0.8
    engine = open_engine(small_model, "torch", workers=1)
    said = [
        strongest(cells)
        for at in ((20 * 8, 20 * 8), (70 * 8, 50 * 8))  # of equal cells the first is the peak
        for cells in scan.glance(slide, engine, [at], mpp=1.0, on_progress=lambda *_: None, before_each=lambda: None)
    ]
    assert abs(said[0] - said[1]) > 1e-4
    limit = sum(said) / 2
    wanted = where(slide, small_model, p, dataclasses.replace(RULES, glance_score=limit))
    assert (wanted[24, 24], wanted[54, 74]) == (said[0] > limit, said[1] > limit)


def test_the_map_of_what_is_not_read_is_what_a_glance_said_and_else_a_weak_scan(
    slide: ArraySource, small_model: LoadedModel
) -> None:
    p = two_spots()
    p[40:42, 2:98] = 0.3  # no find
    engine, half = open_engine(small_model, "torch", workers=2), GLANCE_CELLS // 2
    rules = dataclasses.replace(RULES, glance_score=1.0, grow_probability=0.5)
    _, believed = looked_at(slide, small_model, p, rules)
    (cells,) = scan.glance(
        slide, engine, [(20 * 8, 20 * 8)], mpp=1.0, on_progress=lambda *_: None, before_each=lambda: None
    )
    near = np.s_[20 - half : 20 + half, 20 - half : 20 + half]
    assert np.array_equal(believed[near], cells)
    # as a reading says of these cells
    reading = engine.read(slide.rgb[None, :576, :768]).probability[0]
    per_cell = 8 // engine.dense_stride
    as_mapped = reading.reshape(72, per_cell, 96, per_cell).mean(axis=(1, 3))
    assert np.abs(cells - as_mapped[near]).mean() < 0.05
    away = np.ones_like(believed, bool)
    away[near] = False
    assert np.array_equal(believed[away], p[away] * np.float32(0.5))
    assert believed[away].max() < rules.grow_probability


def test_what_remains_of_a_find_that_a_glance_clears_is_not_above_the_glance(
    slide: ArraySource, small_model: LoadedModel
) -> None:
    p = two_spots()
    p[20:28, 20:60] = 0.95  # longer than a glance is wide
    rules = dataclasses.replace(RULES, glance_score=1.0, grow_probability=0.9)
    _, believed = looked_at(slide, small_model, p, rules)
    said = strongest(believed[20 - GLANCE_CELLS // 2 : 20 + GLANCE_CELLS // 2, 20 - GLANCE_CELLS // 2 : 20 + GLANCE_CELLS // 2])  # fmt: skip
    assert said < 0.8
    assert believed[20:28, 40:60] == pytest.approx(said, abs=1e-6)


def test_where_two_glances_overlap_the_more_counts(slide: ArraySource, small_model: LoadedModel) -> None:
    p, half = np.full((GRID.rows, GRID.cols), 0.1, np.float32), GLANCE_CELLS // 2
    p[20:24, 20:24] = p[20:24, 34:38] = 0.9  # 80 um between them: two finds
    engine = open_engine(small_model, "torch", workers=2)
    _, believed = looked_at(slide, small_model, p, dataclasses.replace(RULES, glance_score=1.0))
    left, right = scan.glance(
        slide, engine, [(20 * 8, 20 * 8), (34 * 8, 20 * 8)], mpp=1.0, on_progress=lambda *_: None, before_each=lambda: None
    )  # fmt: skip
    both = np.s_[20 - half : 20 + half, 34 - half : 20 + half]
    assert np.array_equal(believed[both], np.maximum(left[:, -2:], right[:, :2]))
    assert (left[:, -2:] > right[:, :2]).any() and (left[:, -2:] < right[:, :2]).any()  # noqa: PT018


def test_a_glance_at_the_edge_of_the_slide_stays_on_it(slide: ArraySource, small_model: LoadedModel) -> None:
    p = np.full((GRID.rows, GRID.cols), 0.1, np.float32)
    p[:5, :5] = p[-5:, -5:] = 0.9
    wanted, believed = looked_at(slide, small_model, p, RULES)
    assert wanted[0, 0] and wanted[-1, -1]  # noqa: PT018
    assert believed.shape == p.shape
    assert (believed[:8, :8] != p[:8, :8] * np.float32(RULES.grow_probability)).all()


def test_without_a_find_nothing_is_read(slide: ArraySource, small_model: LoadedModel) -> None:
    p = np.full((GRID.rows, GRID.cols), 0.3, np.float32)
    assert not where(slide, small_model, p, RULES).any()


# -- to the end of a find ------------------------------------------------------------------------------------------------


def test_a_find_is_read_on_where_it_reaches_the_edge_and_not_into_glass() -> None:
    tissue = np.ones((60, 60), bool)
    tissue[:, 40:] = False
    measured = np.zeros_like(tissue)
    measured[20:40, 20:30] = True
    p = np.zeros(tissue.shape, np.float32)
    p[25:35, 22:30] = 0.9
    more = scan.beyond(p, measured, tissue, rules=RULES)
    assert more[30, 30]
    assert not (more & measured).any()
    assert not (more & ~tissue).any()
    assert not more[30, :20].any()  # on the other side it ends within what was read
    p[25:35, 28:30] = 0.1
    assert not scan.beyond(p, measured, tissue, rules=RULES).any()


def test_what_is_no_candidate_is_not_followed() -> None:
    tissue = np.ones((60, 60), bool)
    measured = np.zeros_like(tissue)
    measured[20:40, 20:30] = True
    p = np.zeros(tissue.shape, np.float32)
    p[25:35, 22:30] = RULES.candidate_score - 0.05
    assert not scan.beyond(p, measured, tissue, rules=RULES).any()


# -- how far a find may be believed --------------------------------------------------------------------------------------


def test_no_find_is_believed_much_more_than_the_scan_believes() -> None:
    p = np.zeros((GRID.rows, GRID.cols), np.float32)
    p[20:28, 20:28], p[50:58, 70:78] = 0.95, 0.9
    lesions = find_lesions(p, grid=GRID, rules=LesionRules(seed=0.6, grow=0.5))
    scanned = np.full_like(p, 0.02)
    scanned[20:28, 20:28], scanned[50:54, 70:74] = 0.3, 0.8
    believed = scan.capped(lesions, scanned.__getitem__, grid=GRID, most_above=1.75)
    assert [lesion.rank for lesion in believed] == [1, 2]
    assert believed[0] == dataclasses.replace(lesions[1], rank=1)  # supported: as it was
    assert believed[1].score == pytest.approx(sigmoid(logit(0.3) + 1.75), abs=1e-3)
    assert believed[1].peak == lesions[0].peak
    assert scan.capped(lesions, scanned.__getitem__, grid=GRID, most_above=20.0) == lesions


def test_windows_are_as_large_as_the_memory_of_each_network_allows(noise_slide: ArraySource) -> None:
    model = load_model(default_model_folder())
    engine = engine_or_skip(model, "openvino-int8")
    grid = Grid.of(width=70_000, height=60_000, mpp_x=0.25, mpp_y=0.25)
    reading = SlideReading(
        noise_slide,
        model,
        engine,
        grid,
        profile="fast",
        on_progress=lambda stage, fraction: None,
        should_stop=lambda: False,
        checkpoint_dir=None,
    )
    assert engine.scanner.bytes_per_px < engine.bytes_per_px  # half as wide
    assert reading.largest_px["scanning"] > reading.largest_px["reading"]
    assert reading.largest_px["reading"] * engine.bytes_per_px <= WINDOW_BYTES
