"""What of the tissue is out of focus.

Shown to the operator after preparation, and used by the detector. The measure is the mean square of the 4-neighbour
Laplacian of the green channel (Pech-Pacheco 2000), in blocks of
64 um. At 1 um/px nine of ten patches of sharp lymph-node tissue give 1,900 to 9,600; a blur of 1 um (sigma) leaves 100
to 690, one of 1.5 um 30 to 180, one of 2 um 11 to 52 (`benchmarks/blur.py`, 500 CAMELYON16 patches). A block is out of
focus below an absolute floor, or below a small part of what the slide's own sharpest tissue reaches, so that half a
blurred slide is found beside a sharp half.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

CELL_UM = 8.0
BLOCK_CELLS = 8
FLOOR = 120.0
"""At 1 um/px. At another spacing the detail that is left scales the floor by SPACING_POWER."""
SPACING_POWER = 2.3
OWN_SHARE = 0.03
"""Part of the slide's own 90th percentile below which a block is out of focus ..."""
MOST_OVER_FLOOR = 3.0
"""... but never above this many times the floor: the sharpest scanner does not make good tissue bad."""
STAINED_GREEN = 205
"""Only cells darker than this can be measured: glass, fat and pale stroma have no detail to lose."""
LEAST_STAINED = 0.3
FEWEST_BLOCKS = 4
_BLOCKS_AT_ONCE = 8
_CELL_ROWS_AT_ONCE = 16
"""What is computed of them stays in the processor's cache."""


@dataclass(frozen=True)
class Focus:
    """`blurred` (rows, cols) bool, on the map's cells; shares of the tissue that could be measured."""

    blurred: NDArray[np.bool_]
    blurred_share: float
    measured_mm2: float


def cell_sharpness(rgb: NDArray[np.uint8], cell_px: int) -> NDArray[np.float32]:
    """(H, W, 3) -> (H // cell_px, W // cell_px): root mean square of the Laplacian, 0 to 1,020.

    Every second row is enough. The outermost pixels have no Laplacian: the window's margin must hold them.
    """
    rows, cols = rgb.shape[0] // cell_px, rgb.shape[1] // cell_px
    root = np.empty((rows, cols), np.float32)
    for first in range(0, rows, _CELL_ROWS_AT_ONCE):
        some = root[first : first + _CELL_ROWS_AT_ONCE]
        # with a pixel more above and below, where there is one: only the outermost rows have no Laplacian
        top, bottom = first * cell_px, (first + len(some)) * cell_px
        above = min(top, 2)
        part = rgb[top - above : bottom + 1, :, 1].astype(np.int16)
        squares = _laplacian_squares(part)[above // 2 : above // 2 + (bottom - top) // 2]
        some[:] = _root_mean(squares, cell_px)
    return root


def _laplacian_squares(green: NDArray[np.int16]) -> NDArray[np.int32]:
    """Of every second row; 0 where there is no Laplacian."""
    squares = np.zeros((green.shape[0] // 2, green.shape[1]), np.int32)
    edge = 4 * green[2:-1:2, 1:-1]
    for side in (green[2:-1:2, :-2], green[2:-1:2, 2:], green[1:-2:2, 1:-1], green[3::2, 1:-1]):
        edge -= side
    np.multiply(edge, edge, out=squares[1 : 1 + len(edge), 1:-1], dtype=np.int32)
    return squares


def _root_mean(squares: NDArray[np.int32], cell_px: int) -> NDArray[np.float32]:
    half, cols = cell_px // 2, squares.shape[1] // cell_px
    lines = squares[::half].copy()
    for k in range(1, half):
        lines += squares[k::half]
    sums = lines[:, : cols * cell_px : cell_px].copy()
    for k in range(1, cell_px):
        sums += lines[:, k : cols * cell_px : cell_px]
    root: NDArray[np.float32] = np.sqrt(sums / np.float32(half * cell_px)).astype(np.float32)
    return root


def floor_at(mpp: float) -> float:
    """The lowest mean square of sharp tissue at this spacing."""
    return FLOOR * mpp**SPACING_POWER


def find_blur(
    sharpness: NDArray[np.floating[Any]], read: NDArray[np.bool_], overview_rgb: NDArray[np.uint8], *, mpp: float
) -> Focus:
    """All (rows, cols) of the map: `cell_sharpness` at `mpp`, the tissue cells that were read, and the overview's colours."""
    rows, cols = (math.ceil(n / BLOCK_CELLS) for n in read.shape)
    counts, sums = np.zeros((rows, cols), np.float32), np.zeros((rows, cols), np.float32)
    for block in range(0, rows, _BLOCKS_AT_ONCE):  # of a large slide a map of floats is 80 MB
        some = np.s_[block : block + _BLOCKS_AT_ONCE]
        cells = np.s_[block * BLOCK_CELLS : (block + _BLOCKS_AT_ONCE) * BLOCK_CELLS]
        stained = (read[cells] & (overview_rgb[cells, :, 1] < STAINED_GREEN)).astype(np.float32)
        squares = sharpness[cells].astype(np.float32)
        squares *= squares
        squares *= stained
        counts[some], sums[some] = _block_sum(stained), _block_sum(squares)
    measured = counts >= LEAST_STAINED * BLOCK_CELLS**2
    if measured.sum() < FEWEST_BLOCKS:
        return Focus(np.zeros(read.shape, bool), 0.0, 0.0)
    values = sums / np.maximum(counts, 1)
    floor = floor_at(mpp)
    own = OWN_SHARE * float(np.percentile(values[measured], 90))
    limit = min(max(floor, own), MOST_OVER_FLOOR * floor)
    out = measured & (values < limit)
    # a pale block in the midst of blurred ones is blurred too, but only measured blocks are counted
    share = float(counts[out].sum() / counts[measured].sum())
    spread = binary_dilation(out, np.ones((3, 3))) & ~measured
    blocks = (out | spread).repeat(BLOCK_CELLS, 0).repeat(BLOCK_CELLS, 1)[: read.shape[0], : read.shape[1]]
    return Focus(blocks & read, share, float(counts[measured].sum()) * CELL_UM**2 / 1e6)


def _block_sum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The last blocks of a row or column may be cut."""
    total = values
    for axis in range(2):
        total = np.add.reduceat(total, range(0, total.shape[axis], BLOCK_CELLS), axis=axis)
    return total
