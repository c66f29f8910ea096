import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.detector.reading_plan import (
    MAP_MPP,
    SIZE_ALIGN_PX,
    SMALL_WINDOW_PX,
    WINDOW_ALIGN_PX,
    Grid,
    plan_windows,
)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    shift=st.integers(0, 12).map(lambda n: n * WINDOW_ALIGN_PX),
    mpp=st.sampled_from([1.0, 2.0]),
    margin=st.sampled_from([32, 160]),
)
def test_every_wanted_cell_is_owned_once_and_lies_inside_the_margin(
    seed: int, shift: int, mpp: float, margin: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = (int(v) for v in rng.integers(1, 260, 2))
    wanted = rng.random((rows, cols)) < rng.choice([0.001, 0.02, 0.6])
    owned = np.zeros((rows, cols), int)
    largest = 640 * 640
    for window in plan_windows(wanted, mpp=mpp, margin_px=margin, shift_px=shift, largest_px=largest):
        owned[window.row0 : window.row1, window.col0 : window.col1] += 1
        px = MAP_MPP / mpp
        assert window.left_px + margin <= window.col0 * px
        assert window.left_px + window.width_px - margin >= window.col1 * px
        assert window.top_px + margin <= window.row0 * px
        assert window.top_px + window.height_px - margin >= window.row1 * px
        assert window.width_px % SIZE_ALIGN_PX == window.height_px % SIZE_ALIGN_PX == 0
        assert (window.left_px + margin) % WINDOW_ALIGN_PX == (window.top_px + margin) % WINDOW_ALIGN_PX == 0
        # rounding outwards may add less than two strides on a side
        assert (window.width_px - 96) * (window.height_px - 96) <= largest
    assert owned.max(initial=0) <= 1
    assert (owned[wanted] == 1).all()


def test_glass_between_pieces_of_tissue_is_not_read() -> None:
    wanted = np.zeros((400, 400), bool)
    wanted[:60, :60] = wanted[:60, -60:] = wanted[-60:, :60] = True
    windows = plan_windows(wanted, mpp=1.0, margin_px=64)
    assert len(windows) == 3
    assert sum(w.width_px * w.height_px for w in windows) <= 3 * (512 + 128) ** 2


def test_pixels_read_grow_with_the_tissue_and_not_with_the_glass() -> None:
    def pixels(rows: int, cols: int, pieces: list[tuple[int, int]]) -> int:
        wanted = np.zeros((rows, cols), bool)
        for row, col in pieces:
            wanted[row : row + 120, col : col + 150] = True
        return sum(w.width_px * w.height_px for w in plan_windows(wanted, mpp=1.0, margin_px=160))

    one = pixels(128, 160, [(0, 0)])
    assert pixels(3200, 6400, [(1600, 3200)]) == one
    assert pixels(3200, 6400, [(0, 0), (1600, 3200), (3000, 6160), (800, 5600)]) == 4 * one


def test_small_windows_have_one_size_and_come_last() -> None:
    """An engine prepares itself anew for another size."""
    wanted = np.zeros((1200, 1200), bool)
    finds = [(10, 10, 4), (30, 700, 20), (500, 90, 28), (1190, 1192, 8), (600, 600, 32)]
    for row, col, side in finds:
        wanted[row : row + side, col : col + side] = True
    wanted[900:1000, 20:120] = True
    plan = plan_windows(wanted, mpp=1.0, margin_px=192)
    sizes = [(w.width_px, w.height_px) for w in plan]
    # on the grid of 64 px two of them may need one step more
    assert sizes[-3:] == [(SMALL_WINDOW_PX, SMALL_WINDOW_PX)] * 3
    others = [size for size in sizes if size != (SMALL_WINDOW_PX, SMALL_WINDOW_PX)]
    assert sizes[: len(others)] == others
    assert all(max(size) > SMALL_WINDOW_PX for size in others)
    assert len(sizes) == len(finds) + 1


def test_finds_that_lie_apart_are_read_apart() -> None:
    wanted = np.zeros((300, 300), bool)
    wanted[100:110, 100:110] = wanted[100:110, 220:230] = True
    plan = plan_windows(wanted, mpp=1.0, margin_px=192)
    assert [(w.width_px, w.height_px) for w in plan] == [(SMALL_WINDOW_PX, SMALL_WINDOW_PX)] * 2
    wanted[100:110, 125:135] = True
    assert len(plan_windows(wanted[:, :136], mpp=1.0, margin_px=192)) == 1


def test_the_cuts_move_with_the_shift() -> None:
    wanted = np.ones((400, 400), bool)
    plans = [plan_windows(wanted, mpp=1.0, margin_px=160, shift_px=shift) for shift in (0, 448)]
    starts = [{(w.row0, w.col0) for w in plan} for plan in plans]
    assert len(starts[0] & starts[1]) == 1  # the first corner alone


def test_no_tissue_needs_no_window() -> None:
    assert plan_windows(np.zeros((50, 50), bool), mpp=1.0, margin_px=160) == []


@pytest.mark.parametrize(("mpp_x", "mpp_y", "shape"), [(0.25, 0.25, (32, 63)), (0.5, 0.25, (32, 125))])
def test_the_grid_covers_the_slide_also_with_unequal_scales(mpp_x: float, mpp_y: float, shape: tuple[int, int]) -> None:
    grid = Grid.of(width=2000, height=1000, mpp_x=mpp_x, mpp_y=mpp_y)
    assert (grid.rows, grid.cols) == shape
    assert grid.cell_x0 == MAP_MPP / mpp_x


def test_windows_are_smaller_where_the_maps_are_large() -> None:
    usual, large = (Grid.of(width=w, height=100_000, mpp_x=0.25, mpp_y=0.25) for w in (80_000, 200_000))
    assert usual.largest_window_px(180) > large.largest_window_px(180)
    assert large.largest_window_px(80) > large.largest_window_px(180)
    assert math.sqrt(large.largest_window_px(180)) > 2 * 384 + WINDOW_ALIGN_PX  # the widest usual margin leaves a core
