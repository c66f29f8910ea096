"""Exact-spacing reads: which level to read, and area averaging down to the wanted um per pixel."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slides.wsi.geometry import Level
from slides.wsi.pixels import LevelSource, Pixels


def level_for(levels: Sequence[Level], pixel0: float) -> Level:
    """The coarsest level that is not coarser than `pixel0` level-0 pixels per wanted pixel (half a percent is let pass)."""
    fine = [level for level in levels if level.downsample <= pixel0 * 1.005]
    return max(fine, key=lambda level: level.downsample) if fine else levels[0]


def read_scaled(
    source: LevelSource, *, x0: float, y0: float, width: int, height: int, pixel0_x: float, pixel0_y: float
) -> Pixels:
    """width x height pixels, each the mean of pixel0_x by pixel0_y level-0 pixels, from (x0, y0) on.

    Output pixel i covers level-0 [x0 + i * pixel0_x, x0 + (i + 1) * pixel0_x): the value depends on its place on the
    slide alone, not on where a region was cut. `failed` where any part of the area failed.
    """
    level = level_for(source.levels, min(pixel0_x, pixel0_y))
    across = _Axis(x0 / level.downsample, pixel0_x / level.downsample, width)
    down = _Axis(y0 / level.downsample, pixel0_y / level.downsample, height)
    pixels = source.read_level(level.index, across.first, down.first, across.count, down.count)
    if across.identity and down.identity:
        return pixels
    return Pixels(_resampled(pixels.rgb, across, down), _failed(pixels.failed, across, down))


class _Axis:
    """Which stored pixels an axis of the output needs, and with what weights."""

    def __init__(self, start: float, ratio: float, count: int) -> None:
        if abs(start - round(start)) < 1e-6:
            start = round(start)
        if abs(ratio - round(ratio)) < 1e-9:
            ratio = round(ratio)
        self.start, self.ratio, self.out = start, ratio, count
        margin = 0.5 if ratio < 1 else 0.0  # bilinear looks half a pixel further on both sides
        self.first = math.floor(start - margin)
        self.count = max(1, math.ceil(start + ratio * count + margin - 1e-9) - self.first)
        self.identity = ratio == 1 and start == self.first
        self.whole = int(ratio) if ratio == int(ratio) and start == self.first else 0

    def taps(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Index of the first stored pixel of each output pixel, and weights (out, taps) that sum to one."""
        edges = self.start - self.first + self.ratio * np.arange(self.out + 1)
        low, high = edges[:-1], edges[1:]
        if self.ratio < 1:  # finer than stored: bilinear between pixel centres
            centre = np.clip((low + high) / 2 - 0.5, 0, self.count - 1)
            index = np.minimum(np.floor(centre).astype(np.intp), max(0, self.count - 2))
            part = (centre - index).astype(np.float32)
            return index, np.stack([1 - part, part], axis=1)
        index = np.floor(low + 1e-9).astype(np.intp)
        taps = int(np.max(np.ceil(high - 1e-9) - index))
        cells = index[:, None] + np.arange(taps)
        cover = np.minimum(high[:, None], cells + 1) - np.maximum(low[:, None], cells)
        cover = np.clip(cover, 0, None)
        return index, (cover / cover.sum(axis=1, keepdims=True)).astype(np.float32)


def _resampled(rgb: npt.NDArray[np.uint8], across: _Axis, down: _Axis) -> npt.NDArray[np.uint8]:
    if across.whole and down.whole and across.whole * down.whole > 1:
        return _block_mean(rgb, across.whole, down.whole)
    lines = _along_rows(rgb, down)
    turned = _along_rows(np.ascontiguousarray(np.swapaxes(lines, 0, 1)), across)
    return np.ascontiguousarray(np.rint(np.swapaxes(turned, 0, 1)).astype(np.uint8))


def _block_mean(rgb: npt.NDArray[np.uint8], wide: int, high: int) -> npt.NDArray[np.uint8]:
    """Mean over blocks of high x wide pixels, summed in uint32."""
    height, width = rgb.shape[0] // high, rgb.shape[1] // wide
    total = np.zeros((height, width, 3), np.uint32)
    for row in range(high):
        for col in range(wide):
            total += rgb[row : height * high : high, col : width * wide : wide]
    return ((total + (wide * high) // 2) // (wide * high)).astype(np.uint8)


def _along_rows(array: npt.NDArray[np.generic], axis: _Axis) -> npt.NDArray[np.float32]:
    """(stored, other, 3) to (out, other, 3) float32."""
    index, weights = axis.taps()
    result = np.zeros((axis.out, *array.shape[1:]), np.float32)
    for tap in range(weights.shape[1]):
        rows = np.minimum(index + tap, array.shape[0] - 1)
        result += weights[:, tap, None, None] * array[rows]
    return result


def _failed(failed: npt.NDArray[np.bool_], across: _Axis, down: _Axis) -> npt.NDArray[np.bool_]:
    if not failed.any():
        return np.zeros((down.out, across.out), np.bool_)
    touched = np.stack([failed] * 3, axis=2).astype(np.float32)
    lines = _along_rows(touched, down)
    turned = _along_rows(np.ascontiguousarray(np.swapaxes(lines, 0, 1)), across)
    return np.ascontiguousarray(np.swapaxes(turned, 0, 1)[..., 0] > 1e-6)
