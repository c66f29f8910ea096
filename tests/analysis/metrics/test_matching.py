import numpy as np
import pytest

from analysis.metrics.matching import evaluation_labels, judge_slide, major_axis

UM = 8.0


def disc(grid: np.ndarray, row: float, col: float, diameter_um: float) -> None:
    rows, cols = np.indices(grid.shape)
    grid |= (rows - row) ** 2 + (cols - col) ** 2 <= (diameter_um / UM / 2) ** 2


@pytest.mark.parametrize(("gap_um", "lesions"), [(56, 1), (96, 2)])
def test_foci_nearer_than_75_um_are_one_lesion(gap_um: int, lesions: int) -> None:
    tumour = np.zeros((120, 200), bool)
    tumour[40:80, 20:60] = True
    tumour[40:80, 60 + gap_um // 8 : 110 + gap_um // 8] = True
    assert len(evaluation_labels(tumour, um_per_cell=UM).counted) == lesions


@pytest.mark.parametrize(("diameter_um", "itc"), [(150, True), (260, False)])
def test_a_focus_below_200_um_is_itc(diameter_um: int, itc: bool) -> None:
    tumour = np.zeros((100, 100), bool)
    disc(tumour, 50, 50, diameter_um)
    assert bool(evaluation_labels(tumour, um_per_cell=UM).itc) is itc


def test_holes_are_filled_so_that_a_hit_inside_counts() -> None:
    tumour = np.zeros((120, 120), bool)
    disc(tumour, 60, 60, 700)
    hole = np.zeros_like(tumour)
    disc(hole, 60, 60, 300)
    truth = evaluation_labels(tumour & ~hole, um_per_cell=UM)
    assert judge_slide(truth, [(0.7, 60, 60)]).lesions == (0.7,)


def test_several_hits_count_once_itc_is_neither_and_the_rest_is_false() -> None:
    tumour = np.zeros((150, 150), bool)
    disc(tumour, 50, 50, 400)
    disc(tumour, 120, 120, 80)
    truth = evaluation_labels(tumour, um_per_cell=UM)
    hits = judge_slide(truth, [(0.6, 50, 50), (0.8, 52, 52), (0.9, 120, 120), (0.4, 10, 140)])
    assert hits.lesions == (0.8,)
    assert hits.false_positives == (0.4,)
    assert judge_slide(truth, [(0.9, 120, 120)], include_itc=True).lesions == (0.0, 0.9)


def test_a_missed_lesion_scores_zero_and_a_point_outside_the_slide_is_moved_to_its_edge() -> None:
    tumour = np.zeros((100, 100), bool)
    disc(tumour, 50, 50, 400)
    hits = judge_slide(evaluation_labels(tumour, um_per_cell=UM), [(0.5, -3, 10_000)])
    assert hits.lesions == (0.0,)
    assert hits.false_positives == (0.5,)


def test_without_tumour_every_detection_is_false() -> None:
    truth = evaluation_labels(np.zeros((10, 10), bool), um_per_cell=UM)
    assert judge_slide(truth, [(0.5, 1, 1), (0.2, 5, 5)]).false_positives == (0.5, 0.2)


def test_major_axis_of_a_disc_is_its_diameter() -> None:
    mask = np.zeros((101, 101), bool)
    rows, cols = np.indices(mask.shape)
    mask |= (rows - 50) ** 2 + (cols - 50) ** 2 <= 40**2
    assert major_axis(mask) == pytest.approx(80, rel=0.02)
