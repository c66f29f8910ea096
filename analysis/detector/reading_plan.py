"""Which windows of a slide are read, and which cells of the whole-slide map each of them owns.

The map has cells of MAP_MPP micrometres, with its origin at the slide's own. Core squares lie on a fixed grid and
share no cell; a window is the part of a core that holds tissue, rounded outwards to the network's stride, with a
margin on all sides whose output is thrown away.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAP_MPP = 8.0
WINDOW_ALIGN_PX = 64
"""The coarsest stride: windows that differ by multiples of it see the same cells."""
CORE_PX = 768
MARGIN_PX = 128


@dataclass(frozen=True)
class Grid:
    """The whole-slide map of one slide."""

    rows: int
    cols: int
    cell_x0: float
    cell_y0: float
    """Level-0 pixels per cell."""

    @classmethod
    def of(cls, *, width: int, height: int, mpp_x: float, mpp_y: float) -> "Grid":
        cols, rows = math.ceil(width * mpp_x / MAP_MPP), math.ceil(height * mpp_y / MAP_MPP)
        return cls(rows=max(rows, 1), cols=max(cols, 1), cell_x0=MAP_MPP / mpp_x, cell_y0=MAP_MPP / mpp_y)


@dataclass(frozen=True)
class Window:
    """Core in map cells, window in pixels of `mpp` from `left_px`, `top_px` (in the same pixels, from the slide's origin)."""

    row0: int
    row1: int
    col0: int
    col1: int
    left_px: int
    top_px: int
    width_px: int
    height_px: int
    mpp: float

    @property
    def cells_per_side(self) -> float:
        """Output pixels per map cell."""
        return MAP_MPP / self.mpp


def plan_windows(
    wanted: NDArray[np.bool_], *, mpp: float, shift_px: int = 0, core_px: int = CORE_PX, margin_px: int = MARGIN_PX
) -> list[Window]:
    """Windows whose cores cover every True cell of `wanted` (rows, cols) exactly once, row by row.

    `shift_px` moves the grid of cores (a multiple of WINDOW_ALIGN_PX); the result of a run must not depend on it.
    """
    px_per_cell = round(MAP_MPP / mpp)
    core = core_px // px_per_cell
    align = WINDOW_ALIGN_PX // px_per_cell
    rows, cols = wanted.shape
    first = -((shift_px // px_per_cell) % core)
    windows = []
    for row in range(first, rows, core):
        for col in range(first, cols, core):
            r0, c0 = max(row, 0), max(col, 0)
            block = wanted[r0 : row + core, c0 : col + core]
            if block.any():
                windows.append(_window(block, r0, c0, align, px_per_cell, margin_px, mpp))
    return windows


def _window(
    block: NDArray[np.bool_], row: int, col: int, align: int, px_per_cell: int, margin_px: int, mpp: float
) -> Window:
    ys, xs = np.flatnonzero(block.any(axis=1)), np.flatnonzero(block.any(axis=0))
    row0, row1 = row + int(ys[0]), row + int(ys[-1]) + 1
    col0, col1 = col + int(xs[0]), col + int(xs[-1]) + 1
    # the window starts and ends on the stride's own grid, so that every cell is seen in the same phase everywhere
    top, bottom = row0 // align * align, -(-row1 // align) * align
    left, right = col0 // align * align, -(-col1 // align) * align
    return Window(
        row0=row0,
        row1=row1,
        col0=col0,
        col1=col1,
        left_px=left * px_per_cell - margin_px,
        top_px=top * px_per_cell - margin_px,
        width_px=(right - left) * px_per_cell + 2 * margin_px,
        height_px=(bottom - top) * px_per_cell + 2 * margin_px,
        mpp=mpp,
    )
