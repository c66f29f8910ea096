"""What the scan decides: where `fast` reads, that a find is read to its end, and how far a find may be believed."""

import dataclasses

import numpy as np
import pytest

from analysis.detector import scan
from analysis.detector.calibration import logit, sigmoid
from analysis.detector.configuration import ReadConfig
from analysis.detector.engine import open_engine
from analysis.detector.lesions import LesionRules, find_lesions
from analysis.detector.pixel_source import ArraySource
from analysis.detector.reading_plan import Grid
from analysis.detector.weights import LoadedModel

RULES = ReadConfig(scan_score=0.5, scan_grow_probability=0.4, glance_score=0.0)
GRID = Grid.of(width=800, height=640, mpp_x=1.0, mpp_y=1.0)


def two_spots() -> np.ndarray:
    """(80, 100): one strong spot, one weak one, and cells that are neither."""
    p = np.full((GRID.rows, GRID.cols), 0.1, np.float32)
    p[20:28, 20:28] = 0.9
    p[50:58, 70:78] = 0.45
    return p


# -- where `fast` reads --------------------------------------------------------------------------------------------------


def where(source: ArraySource, model: LoadedModel, p: np.ndarray, rules: ReadConfig) -> np.ndarray:
    engine = open_engine(model, "torch", workers=2)
    return scan.where_to_read(
        p, source, engine, grid=GRID, rules=rules, on_progress=lambda stage, share: None, before_each=lambda: None
    )


@pytest.fixture
def slide(noise_slide: ArraySource) -> ArraySource:
    return ArraySource(noise_slide.rgb[:, :800], 1.0, 1.0)


def test_what_the_scan_finds_is_read_with_what_surrounds_it(slide: ArraySource, small_model: LoadedModel) -> None:
    wanted = where(slide, small_model, two_spots(), RULES)
    expected = np.zeros_like(wanted)
    rim = scan.RIM_CELLS
    expected[20 - rim : 28 + rim, 20 - rim : 28 + rim] = True
    assert np.array_equal(wanted, expected)


def test_what_a_glance_clears_is_not_read(slide: ArraySource, small_model: LoadedModel) -> None:
    assert not where(slide, small_model, two_spots(), dataclasses.replace(RULES, glance_score=1.0)).any()


def test_of_two_finds_a_glance_keeps_the_one_that_the_network_sees(
    slide: ArraySource, small_model: LoadedModel
) -> None:
    p = two_spots()
    p[50:58, 70:78] = 0.8
    engine = open_engine(small_model, "torch", workers=1)
    said = [
        scan.glance(slide, engine, [at], mpp=1.0, on_progress=lambda stage, share: None, before_each=lambda: None)[0]
        for at in ((20.5 * 8, 20.5 * 8), (70.5 * 8, 50.5 * 8))  # of equal cells the first is the peak
    ]
    assert abs(said[0] - said[1]) > 1e-4
    limit = sum(said) / 2
    wanted = where(slide, small_model, p, dataclasses.replace(RULES, glance_score=limit))
    assert (wanted[24, 24], wanted[54, 74]) == (said[0] > limit, said[1] > limit)


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
    believed = scan.capped(lesions, scanned, grid=GRID, most_above=1.75)
    assert [lesion.rank for lesion in believed] == [1, 2]
    assert believed[0] == dataclasses.replace(lesions[1], rank=1)  # supported: as it was
    assert believed[1].score == pytest.approx(sigmoid(logit(0.3) + 1.75), abs=1e-3)
    assert believed[1].peak == lesions[0].peak
    assert scan.capped(lesions, scanned, grid=GRID, most_above=20.0) == lesions
