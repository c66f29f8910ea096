"""Which windows of a slide are read, and which cells of the whole-slide map each of them owns.

The map has cells of MAP_MPP micrometres, with its origin at the slide's own. The tissue is cut into rectangles that
share no cell (cores); a window is a core rounded outwards to the network's stride, with a margin on all sides whose
output is thrown away. What a read costs is its pixels, margin included, so the cuts are chosen to need few pixels:
first where glass lies between, then so that cores become large and fit the outline.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slides.wsi.focus import CELL_UM

MAP_MPP = CELL_UM
WINDOW_ALIGN_PX = 64
"""The coarsest stride: windows whose places differ by multiples of it see the slide in the same phase."""
SIZE_ALIGN_PX = 32
"""The coarsest stride of a backbone: the size of a window is a multiple of it."""
LARGEST_WINDOW_PX = 1408 * 1408
"""Margin included, with an engine of floats. Larger windows cost less time and more memory."""
WINDOW_BYTES = LARGEST_WINDOW_PX * 180
"""What a window may need of a worker's memory: an engine says how much it needs for a pixel (`Engine.bytes_per_px`)."""
WINDOW_BYTES_OF_LARGE_MAP = 864 * 864 * 180
LARGE_MAP_CELLS = 8_000_000
"""From here on the maps themselves need some hundred megabytes, and windows are smaller. 100,000 x 80,000 px at 0.25 um/px
have 7.8 million cells."""
WINDOW_COST_PX = 400_000
"""What a window costs beside its pixels, in pixels: OpenVINO makes its convolutions anew for each size, which takes some 35 ms in
8 bits, and the memory of a large window is new, too. A million pixels of the reading's network take 50 to 90 ms."""

SMALL_WINDOW_PX = 640
"""Side of all windows that need no more in either direction: a find of some 130 um with its rim and margins at 1.0 um/px. They
have one size and come last, so that OpenVINO is ready for them, on the next slide, too."""
SMALL_WINDOW_COST_PX = 50_000
"""As WINDOW_COST_PX, of a small window: Python and new memory alone."""

Rectangle = tuple[int, int, int, int]
"""row0, row1, col0, col1 in map cells; row1 and col1 lie outside."""


@dataclass(frozen=True)
class Grid:
    """The whole-slide map of one slide."""

    rows: int
    cols: int
    cell_x0: float
    cell_y0: float
    """Level-0 pixels per cell."""

    def largest_window_px(self, bytes_per_px: int, *, held_bytes: int = 0) -> int:
        """What keeps a reading within about 1.5 GB with two workers, on a slide full of tissue, too. `held_bytes`: what is held
        beside (`Engine.held_bytes`); on a large map there is room for it."""
        if self.rows * self.cols > LARGE_MAP_CELLS:
            return WINDOW_BYTES_OF_LARGE_MAP // bytes_per_px
        return (WINDOW_BYTES - held_bytes // 2) // bytes_per_px

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
    margin_px: int
    mpp: float

    @property
    def cells_per_side(self) -> float:
        """Output pixels per map cell."""
        return MAP_MPP / self.mpp

    @property
    def is_small(self) -> bool:
        return max(self.width_px, self.height_px) <= SMALL_WINDOW_PX


def plan_windows(
    wanted: NDArray[np.bool_], *, mpp: float, margin_px: int, shift_px: int = 0, largest_px: int = LARGEST_WINDOW_PX
) -> list[Window]:
    """Windows whose cores cover every True cell of `wanted` (rows, cols) exactly once, about row by row, small ones last.

    `margin_px` is a multiple of SIZE_ALIGN_PX. No window but a small one is much larger than `largest_px`. `shift_px` (a
    multiple of WINDOW_ALIGN_PX) moves the first cuts, and with them all others; the result of a run must not depend on it.
    """
    px_per_cell = round(MAP_MPP / mpp)
    cutter = _Cutter(wanted, px_per_cell, margin_px, largest_px)
    cores = [core for part in _first_cuts(wanted, shift_px // px_per_cell) for core in cutter.cores(part)]
    align = WINDOW_ALIGN_PX // px_per_cell
    cores.sort(key=lambda core: (core[0] // (8 * align), core[2], core[0]))
    windows = [_window(core, px_per_cell, margin_px, mpp) for core in cores]
    return sorted(windows, key=lambda window: window.is_small)


def _first_cuts(wanted: NDArray[np.bool_], shift: int) -> list[Rectangle]:
    rows, cols = wanted.shape
    box = _crop(wanted, (0, rows, 0, cols))
    if box is None or not shift:
        return [] if box is None else [box]
    row0, row1, col0, col1 = box
    row, col = min(row0 + shift, row1), min(col0 + shift, col1)
    parts = [(row0, row, col0, col), (row0, row, col, col1), (row, row1, col0, col), (row, row1, col, col1)]
    return [cropped for part in parts if (cropped := _crop(wanted, part)) is not None]


class _Cutter:
    """Cuts rectangles in two until a window holds each and no further cut saves pixels."""

    def __init__(self, wanted: NDArray[np.bool_], px_per_cell: int, margin_px: int, largest_px: int) -> None:
        self.wanted, self.px, self.margin, self.largest = wanted, px_per_cell, margin_px, largest_px
        self.align = WINDOW_ALIGN_PX // px_per_cell
        self.side = max(math.sqrt(largest_px) - 2 * margin_px, WINDOW_ALIGN_PX)

    def cores(self, box: Rectangle) -> Iterator[Rectangle]:
        """`box` is cropped to its True cells already."""
        row0, row1, col0, col1 = box
        high, wide = (np.array([float(n * self.px)]) for n in (row1 - row0, col1 - col0))
        whole = float(self._cost(high, wide)[0])
        fits = (high[0] + 2 * self.margin) * (wide[0] + 2 * self.margin) <= self.largest
        cut = self._best_cut(box)
        if cut is None or (fits and cut[0] >= whole):
            yield box
            return
        _, axis, at = cut
        halves = [(row0, at, col0, col1), (at, row1, col0, col1)] if axis == 0 else [(row0, row1, col0, at), (row0, row1, at, col1)]  # fmt: skip
        for half in halves:
            cropped = _crop(self.wanted, half)
            if cropped is not None:
                yield from self.cores(cropped)

    def _best_cut(self, box: Rectangle) -> tuple[float, int, int] | None:
        """(pixels of both halves, axis, place); None where the box is too small to be cut."""
        row0, row1, col0, col1 = box
        part = self.wanted[row0:row1, col0:col1]
        cuts = []
        for axis, (cells, start) in enumerate(((part, row0), (part.T, col0))):
            first = -(-(start + 1) // self.align) * self.align
            places = np.arange(first, start + cells.shape[0], self.align)
            if len(places):
                cost = self._cost_of_halves(cells, places - start)
                # of cuts that cost the same, the most even one
                uneven = np.abs(2 * (places - start) - cells.shape[0])
                best = int(np.lexsort((uneven, np.round(cost)))[0])
                cuts.append((float(cost[best]), axis, int(places[best])))
        return min(cuts, default=None)

    def _cost_of_halves(self, cells: NDArray[np.bool_], places: NDArray[np.intp]) -> NDArray[np.float64]:
        """Cost of the two cropped halves for a cut before each of `places` along the first axis."""
        filled = np.asarray(cells.any(axis=1), bool)
        low = np.where(filled, cells.argmax(axis=1), cells.shape[1])
        high = np.where(filled, cells.shape[1] - cells[:, ::-1].argmax(axis=1), 0)
        rows = np.arange(len(filled))
        before = _extent(low, high, np.where(filled, rows, len(rows)), np.where(filled, rows + 1, 0))
        after = _extent(low[::-1], high[::-1], np.where(filled, rows, len(rows))[::-1], np.where(filled, rows + 1, 0)[::-1])  # fmt: skip
        total = np.zeros(len(places))
        for (deep, wide), index in ((before, places - 1), (after, len(rows) - places - 1)):
            d, w = (deep[index] * self.px).astype(np.float64), (wide[index] * self.px).astype(np.float64)
            total += np.where(d > 0, self._cost(d, w), 0)
        return total

    def _cost(self, high: NDArray[np.float64], wide: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels of the windows that a full rectangle of high x wide pixels would need: cut across first, or down first."""
        return np.minimum(self._cost_in_bands(high, wide), self._cost_in_bands(wide, high))

    def _cost_in_bands(self, high: NDArray[np.float64], wide: NDArray[np.float64]) -> NDArray[np.float64]:
        around = 2 * self.margin
        bands = np.ceil(np.maximum(high, 1) / self.side)
        longest = np.maximum(self.largest / (high / bands + around) - around, WINDOW_ALIGN_PX)
        parts = np.ceil(np.maximum(wide, 1) / longest)
        cost = (high + around * bands) * (wide + around * parts) + WINDOW_COST_PX * bands * parts
        small = (high + around <= SMALL_WINDOW_PX) & (wide + around <= SMALL_WINDOW_PX)
        return np.where(small, SMALL_WINDOW_PX**2 + SMALL_WINDOW_COST_PX, cost)


def _extent(
    low: NDArray[np.intp], high: NDArray[np.intp], first: NDArray[np.intp], last: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Size (along, across) of the bounding box of all lines up to and with each one; 0 where nothing is in it."""
    along = np.maximum.accumulate(last) - np.minimum.accumulate(first)
    across = np.maximum.accumulate(high) - np.minimum.accumulate(low)
    return np.maximum(along, 0), np.maximum(across, 0)


def _crop(wanted: NDArray[np.bool_], box: Rectangle) -> Rectangle | None:
    """The box of the True cells in `box`; None when there are none."""
    row0, row1, col0, col1 = box
    part = wanted[row0:row1, col0:col1]
    ys, xs = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not len(ys):
        return None
    return row0 + int(ys[0]), row0 + int(ys[-1]) + 1, col0 + int(xs[0]), col0 + int(xs[-1]) + 1


def _window(core: Rectangle, px_per_cell: int, margin_px: int, mpp: float) -> Window:
    row0, row1, col0, col1 = core
    # the window starts on the coarsest stride's own grid, so that every cell is seen in the same phase everywhere
    top, left = (start * px_per_cell // WINDOW_ALIGN_PX * WINDOW_ALIGN_PX for start in (row0, col0))
    bottom, right = (-(-end * px_per_cell // SIZE_ALIGN_PX) * SIZE_ALIGN_PX for end in (row1, col1))
    if max(bottom - top, right - left) + 2 * margin_px <= SMALL_WINDOW_PX:
        bottom, right = (start + SMALL_WINDOW_PX - 2 * margin_px for start in (top, left))
    return Window(
        row0=row0,
        row1=row1,
        col0=col0,
        col1=col1,
        left_px=left - margin_px,
        top_px=top - margin_px,
        width_px=right - left + 2 * margin_px,
        height_px=bottom - top + 2 * margin_px,
        margin_px=margin_px,
        mpp=mpp,
    )
