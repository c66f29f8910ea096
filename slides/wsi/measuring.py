"""Measuring the Quality of a slide in its prepared tiles. Loads SciPy: in the child alone."""

import math

import numpy as np
from numpy.typing import NDArray

from slides.wsi.focus import BLOCK_CELLS, CELL_UM, cell_sharpness, find_blur
from slides.wsi.geometry import Level
from slides.wsi.pixels import LevelSource, Rgb
from slides.wsi.quality import Quality
from slides.wsi.resample import overview_of
from slides.wsi.tissue import tissue_and_ink_masks, tissue_mask

_CELL_PX = 8
_STRIP_CELLS = 8 * BLOCK_CELLS
_LARGEST_OVERVIEW = 5000
_OVERVIEW_WITHOUT_SCALE = 32.0  # level-0 pixels: 8 um at the usual 0.25


def tissue_and_ink(source: LevelSource, mpp: tuple[float, float] | None) -> tuple[Quality, Rgb]:
    """From an overview of 8 um a pixel, which is given too. `mpp`: um per level-0 pixel across and down, None without
    scale."""
    width, height = source.levels[0].width, source.levels[0].height
    pixel0 = (CELL_UM / mpp[0], CELL_UM / mpp[1]) if mpp else (_OVERVIEW_WITHOUT_SCALE, _OVERVIEW_WITHOUT_SCALE)
    grow = max(1.0, width / pixel0[0] / _LARGEST_OVERVIEW, height / pixel0[1] / _LARGEST_OVERVIEW)
    view = overview_of(source, pixel0[0] * grow, pixel0[1] * grow)
    tissue, ink = (mask & ~view.failed for mask in tissue_and_ink_masks(view.rgb, CELL_UM * grow))
    cell_mm2 = (CELL_UM * grow / 1000) ** 2
    quality = Quality(
        tissue_mm2=float(tissue.sum()) * cell_mm2 if mpp else None,
        tissue_fraction=float(tissue.mean()),
        ink_mm2=float(ink.sum()) * cell_mm2 if mpp else None,
        ink_share=float(ink.mean()),
    )
    return quality, view.rgb


def blur_of(source: LevelSource, mpp: tuple[float, float]) -> tuple[float, float]:
    """(share of the measured tissue that is out of focus, mm2 measured), from the level nearest to 1 um a pixel.

    Tissue alone is read. The cells are 8 pixels of that level, about the 8 um that the limits were found with.
    """
    level = _level_near(source.levels, 1.0 / mpp[0])
    spacing = level.downsample * mpp[0]
    cell0 = level.downsample * _CELL_PX
    cols, rows = level.width // _CELL_PX, level.height // _CELL_PX
    if not cols or not rows:
        return 0.0, 0.0
    view = overview_of(source, cell0, cell0)
    rgb, failed = view.rgb[:rows, :cols], view.failed[:rows, :cols]
    rows, cols = failed.shape
    tissue = tissue_mask(rgb, spacing * _CELL_PX) & ~failed
    sharpness = np.zeros((rows, cols), np.float32)
    for top in range(0, rows, _STRIP_CELLS):
        strip = tissue[top : top + _STRIP_CELLS]
        for left, right in _runs(np.asarray(strip.any(axis=0))):
            part = _sharpness(source, level, left, top, right - left, len(strip))
            sharpness[top : top + len(strip), left:right] = part
    focus = find_blur(sharpness, tissue, rgb, mpp=spacing)
    return focus.blurred_share, focus.measured_mm2 * (spacing * _CELL_PX / CELL_UM) ** 2


def _level_near(levels: tuple[Level, ...], downsample: float) -> Level:
    return min(levels, key=lambda level: abs(math.log(level.downsample / downsample)))


def _sharpness(source: LevelSource, level: Level, left: int, top: int, cols: int, rows: int) -> NDArray[np.float32]:
    """Of cells (rows, cols) at (left, top), read with a margin of one cell, whose outermost pixels have no Laplacian."""
    x, y = (left - 1) * _CELL_PX, (top - 1) * _CELL_PX
    pixels = source.read_level(level.index, x, y, (cols + 2) * _CELL_PX, (rows + 2) * _CELL_PX)
    return cell_sharpness(pixels.rgb, _CELL_PX)[1:-1, 1:-1]


def _runs(wanted: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(from, to) of the runs of true, those less than a block apart as one, at most 4,096 long."""
    places = np.flatnonzero(wanted)
    if places.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(places) > BLOCK_CELLS)
    starts, ends = [0, *(breaks + 1)], [*breaks, places.size - 1]
    runs = [(int(places[start]), int(places[end]) + 1) for start, end in zip(starts, ends, strict=True)]
    return [(left, min(left + 4096, end)) for start, end in runs for left in range(start, end, 4096)]
