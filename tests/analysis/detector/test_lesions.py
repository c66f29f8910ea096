import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_closing, gaussian_filter, label

from analysis.detector.lesions import (
    MIN_DIAMETER_UM,
    LesionRules,
    cells_of,
    ellipse_major_um,
    find_foci,
    find_lesions,
    longest_diameter_um,
)
from analysis.detector.outline_tracing import mask_polygon
from analysis.detector.reading_plan import MAP_MPP, Grid

RULES = LesionRules(seed=0.6, grow=0.5)
PX0 = 0.25
GRID = Grid.of(width=20_000, height=16_000, mpp_x=PX0, mpp_y=PX0)


def disc(*, diameter_um: float, row: float = 250, col: float = 300, hole_um: float = 0) -> np.ndarray:
    """A map with one disc or ring of probability 0.9."""
    rows, cols = np.indices((GRID.rows, GRID.cols))
    distance = np.hypot(rows - row, cols - col) * MAP_MPP
    return np.where((distance <= diameter_um / 2) & (distance >= hole_um / 2), 0.9, 0.0).astype(np.float32)


@pytest.mark.parametrize(("true_mm", "expected"), [(0.16, "itc"), (0.24, "micro"), (1.9, "micro"), (2.1, "macro")])
def test_size_and_class_follow_the_longest_diameter(true_mm: float, expected: str) -> None:
    (lesion,) = find_lesions(disc(diameter_um=true_mm * 1000), grid=GRID, rules=RULES)
    assert lesion.size_class == expected
    assert lesion.longest_diameter_mm == pytest.approx(true_mm, abs=0.025)
    assert lesion.area_mm2 == pytest.approx(np.pi * true_mm**2 / 4, rel=0.1)
    assert lesion.ellipse_major_mm == pytest.approx(true_mm, rel=0.1)


def test_a_lesion_whose_class_changes_with_the_edge_is_borderline() -> None:
    def soft(diameter_um: float) -> np.ndarray:
        # an edge that falls over 80 um
        sharp = disc(diameter_um=diameter_um) / 0.9
        return np.asarray(gaussian_filter(sharp, 5)).astype(np.float32)

    near, far = (find_lesions(soft(d), grid=GRID, rules=RULES)[0] for d in (2000, 1200))
    assert near.borderline
    assert not far.borderline


def test_the_peak_of_a_ring_lies_in_the_tumour_and_the_hole_is_kept() -> None:
    p = disc(diameter_um=3000, hole_um=1800)
    (lesion,) = find_lesions(p, grid=GRID, rules=RULES)
    col, row = lesion.peak[0] / GRID.cell_x0, lesion.peak[1] / GRID.cell_y0
    assert p[int(row), int(col)] == pytest.approx(0.9)
    assert len(lesion.outline) == 2
    outer, hole = (np.ptp(np.array(ring), axis=0).max() * PX0 for ring in lesion.outline)
    assert outer == pytest.approx(3000, abs=30)
    assert hole == pytest.approx(1800, abs=40)


@pytest.mark.parametrize(("gap_um", "count"), [(56, 1), (104, 2)])
def test_foci_nearer_than_75_um_are_one_metastasis(gap_um: int, count: int) -> None:
    p = np.zeros((GRID.rows, GRID.cols), np.float32)
    p[200:240, 200:240] = 0.8
    p[200:240, 240 + gap_um // 8 : 280 + gap_um // 8] = 0.8
    assert len(find_lesions(p, grid=GRID, rules=RULES)) == count


@pytest.mark.parametrize(
    ("gap_um", "between", "bridge", "count"),
    [(104, 0.3, 0.25, 1), (104, 0.2, 0.25, 2), (104, 0.3, 1.0, 2), (136, 0.3, 0.25, 1), (168, 0.3, 0.25, 2)],
)
def test_foci_farther_apart_are_one_metastasis_if_what_lies_between_could_be(
    gap_um: int, between: float, bridge: float, count: int
) -> None:
    p = np.full((GRID.rows, GRID.cols), between, np.float32)
    gap = gap_um // 8
    p[200:240, 200:240] = 0.8
    p[200:240, 240 + gap : 280 + gap] = 0.8
    lesions = find_lesions(p, grid=GRID, rules=replace(RULES, bridge=bridge))
    assert len(lesions) == count
    whole = (80 + gap) * 8 if count == 1 else 40 * 8
    assert lesions[0].longest_diameter_mm * 1000 == pytest.approx(math.hypot(whole, 40 * 8), abs=0.1)
    # the bridge is drawn, and no wider than the foci that it joins
    area = 2 * 40 * 40 + 40 * gap if count == 1 else 40 * 40
    assert lesions[0].area_mm2 == pytest.approx(area * 8 * 8 / 1e6, rel=0.05)
    assert lesions[0].score == pytest.approx(0.8)


@pytest.mark.parametrize(("smooth", "share"), [(1, 0.001), (3, 0.01), (6, 0.03), (20, 0.3)])
def test_many_foci_are_joined_as_a_closing_of_the_whole_map_joins_them(smooth: int, share: float) -> None:
    noise = gaussian_filter(np.random.default_rng(3).normal(size=(240, 320)), smooth)
    mask = noise > np.quantile(noise, 1 - share)
    foci = find_foci(np.where(mask, 0.9, 0.0).astype(np.float32), rules=RULES)
    radius = RULES.join_um / 2 / MAP_MPP
    reach = math.ceil(radius)
    down, across = np.indices((2 * reach + 1, 2 * reach + 1)) - reach
    near = np.hypot(down, across) < radius
    padded = np.pad(mask, 2 * reach)
    closed = binary_closing(padded, near)[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    labels, _ = label(closed | mask, np.ones((3, 3)))
    of_size = 2 * np.sqrt(np.bincount(labels.ravel()) / np.pi) * MAP_MPP >= MIN_DIAMETER_UM
    of_size[0] = False
    assert np.array_equal(cells_of(foci, mask.shape), of_size[labels])
    assert smooth == 20 or (closed & ~mask).any(), "nothing to join"


def test_what_was_not_measured_counts_as_nothing() -> None:
    rng = np.random.default_rng(4)
    p = gaussian_filter(rng.normal(size=(240, 320)), 5).astype(np.float32)
    p = np.clip((p - p.mean()) / p.std() * 0.3 + 0.3, 0, 1)
    measured = gaussian_filter(rng.normal(size=p.shape), 15) > 0
    rules = replace(RULES, bridge=0.25)
    foci = find_foci(p, rules=rules, measured=measured)
    wanted = find_foci(np.where(measured, p, np.float32(0)), rules=rules)
    assert len(foci) > 5
    assert not np.array_equal(cells_of(foci, p.shape), cells_of(find_foci(p, rules=rules), p.shape))
    for focus, other in zip(foci, wanted, strict=True):
        assert (focus.row0, focus.col0, focus.score) == (other.row0, other.col0, other.score)
        assert np.array_equal(focus.shape, other.shape)
        assert np.array_equal(focus.p, other.p)


def test_weak_and_tiny_foci_are_no_lesions() -> None:
    p = np.zeros((GRID.rows, GRID.cols), np.float32)
    p[100:130, 100:130] = 0.55
    p[200, 200] = 0.95
    assert find_lesions(p, grid=GRID, rules=RULES) == ()


def test_lesions_touching_the_edge_of_the_slide_keep_their_size() -> None:
    p = disc(diameter_um=1000, row=0, col=0)
    (lesion,) = find_lesions(p, grid=GRID, rules=RULES)
    assert lesion.bbox0[:2] == (0.0, 0.0)
    assert lesion.longest_diameter_mm == pytest.approx(0.5 * np.sqrt(2), rel=0.05)


def test_lesions_come_strongest_first() -> None:
    p = disc(diameter_um=400, row=100, col=100) * 0.8 + disc(diameter_um=400, row=300, col=400)
    first, second = find_lesions(p, grid=GRID, rules=RULES)
    assert (first.rank, second.rank) == (1, 2)
    assert first.score > second.score
    assert first.peak[1] > second.peak[1]


def test_diameters_of_simple_shapes() -> None:
    assert longest_diameter_um(np.ones((1, 1), bool)) == pytest.approx(np.sqrt(2) * MAP_MPP)
    assert longest_diameter_um(np.ones((30, 40), bool)) == pytest.approx(50 * MAP_MPP)
    assert ellipse_major_um(np.ones((10, 100), bool)) == pytest.approx(2 / np.sqrt(3) * 100 * MAP_MPP, rel=0.01)


def test_an_outline_holds_its_cells_and_welds_corners() -> None:
    mask = np.zeros((6, 6), bool)
    mask[0:3, 0:3] = True
    mask[3:6, 3:6] = True
    polygon = mask_polygon(mask, simplify=0.0)
    assert polygon.is_valid
    assert polygon.area == pytest.approx(18, rel=0.1)
    with pytest.raises(ValueError, match="empty mask"):
        mask_polygon(np.zeros((3, 3), bool))
