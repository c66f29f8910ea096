import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.detector.reading_plan import MAP_MPP, WINDOW_ALIGN_PX, Grid, plan_windows


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    shift=st.integers(0, 12).map(lambda n: n * WINDOW_ALIGN_PX),
    mpp=st.sampled_from([1.0, 2.0]),
)
def test_every_wanted_cell_is_owned_once_and_lies_inside_the_margin(seed: int, shift: int, mpp: float) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = (int(v) for v in rng.integers(1, 260, 2))
    wanted = rng.random((rows, cols)) < rng.choice([0.001, 0.02, 0.6])
    owned = np.zeros((rows, cols), int)
    for window in plan_windows(wanted, mpp=mpp, shift_px=shift):
        owned[window.row0 : window.row1, window.col0 : window.col1] += 1
        px = MAP_MPP / mpp
        assert window.left_px + 128 <= window.col0 * px
        assert window.left_px + window.width_px - 128 >= window.col1 * px
        assert window.top_px + 128 <= window.row0 * px
        assert window.top_px + window.height_px - 128 >= window.row1 * px
        assert window.width_px % WINDOW_ALIGN_PX == window.height_px % WINDOW_ALIGN_PX == 0
        assert (window.left_px + 128) % WINDOW_ALIGN_PX == (window.top_px + 128) % WINDOW_ALIGN_PX == 0
    assert owned.max(initial=0) <= 1
    assert (owned[wanted] == 1).all()


def test_no_tissue_needs_no_window() -> None:
    assert plan_windows(np.zeros((50, 50), bool), mpp=1.0) == []


@pytest.mark.parametrize(("mpp_x", "mpp_y", "shape"), [(0.25, 0.25, (32, 63)), (0.5, 0.25, (32, 125))])
def test_the_grid_covers_the_slide_also_with_unequal_scales(mpp_x: float, mpp_y: float, shape: tuple[int, int]) -> None:
    grid = Grid.of(width=2000, height=1000, mpp_x=mpp_x, mpp_y=mpp_y)
    assert (grid.rows, grid.cols) == shape
    assert grid.cell_x0 == MAP_MPP / mpp_x
