"""Exact-spacing reads: which level to read, and area averaging down to the wanted um per pixel."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from slides.wsi.geometry import Level
from slides.wsi.pixels import LevelSource, Pixels

_PIECE_PIXELS = 1 << 24
_LARGEST_SECOND_READ = 1 << 26  # level-0 pixels
_HALF = 0.5 + 1e-6
"""Rounds a half up, and what is a half but for the last digits of its sum, too: 1 / 0.97 and the like give many of them."""
_BLOCK = 32  # outputs at a time: the band of weights is narrow, so small dense products waste little
_BLOCK_ACROSS = 16  # where the three colours stay together, which triples what is wasted
_BLOCK_DOWN, _ROWS_AT_ONCE = 16, 96  # the second a multiple of the first
_STEPS = 4096
"""Of a weight, where few stored pixels make one of the output."""
_FEW_TAPS = 4
"""Along an axis. Of more each weighs so little that its steps would be too coarse."""


def level_for(levels: Sequence[Level], pixel0: float) -> Level:
    """The coarsest level that is not coarser than `pixel0` level-0 pixels per wanted pixel (half a percent is let pass)."""
    fine = [level for level in levels if level.downsample <= pixel0 * 1.005]
    return max(fine, key=lambda level: level.downsample) if fine else levels[0]


def read_scaled(
    source: LevelSource, *, x0: float, y0: float, width: int, height: int, pixel0_x: float, pixel0_y: float
) -> Pixels:
    """width x height pixels, each the mean of pixel0_x by pixel0_y level-0 pixels, from (x0, y0) on.

    Output pixel i covers level-0 [x0 + i * pixel0_x, x0 + (i + 1) * pixel0_x): the value depends on its place on the
    slide alone, not on where a region was cut. `failed` where any part of the area failed, in every finer level too:
    a broken tile of a reduced level hides nothing that can still be read.
    """
    level = level_for(source.levels, min(pixel0_x, pixel0_y))
    area = {"x0": x0, "y0": y0, "pixel0_x": pixel0_x, "pixel0_y": pixel0_y}
    pixels = read_from_level(source, level, width=width, height=height, **area)
    for finer in sorted(source.levels, key=lambda each: -each.downsample):
        if not pixels.failed.any():
            break
        if finer.downsample < level.downsample and pixel0_x * pixel0_y * pixels.failed.size <= _LARGEST_SECOND_READ:
            again = read_from_level(source, finer, width=width, height=height, **area)
            pixels.rgb[pixels.failed] = again.rgb[pixels.failed]
            pixels.failed[:] &= again.failed
    return pixels


def read_from_level(
    source: LevelSource,
    level: Level,
    *,
    x0: float,
    y0: float,
    width: int,
    height: int,
    pixel0_x: float,
    pixel0_y: float,
) -> Pixels:
    """As read_scaled, from one level alone."""
    across = _Axis(x0 / level.downsample, pixel0_x / level.downsample, width)
    down = _Axis(y0 / level.downsample, pixel0_y / level.downsample, height)
    pixels = source.read_level(level.index, across.first, down.first, across.count, down.count)
    if across.identity and down.identity:
        return pixels
    return Pixels(_resampled(pixels.rgb, across, down), _failed(pixels.failed, across, down))


def overview_of(source: LevelSource, pixel0_x: float, pixel0_y: float) -> Pixels:
    """The whole slide at a given size of pixel (level-0 pixels), put together from pieces to bound memory."""
    level0 = source.levels[0]
    width, height = max(1, round(level0.width / pixel0_x)), max(1, round(level0.height / pixel0_y))
    whole = Pixels.white(width, height)
    read = level_for(source.levels, min(pixel0_x, pixel0_y)).downsample
    rows = max(1, int(_PIECE_PIXELS / (width * (pixel0_x / read) * (pixel0_y / read))))
    for top in range(0, height, rows):
        count = min(rows, height - top)
        strip = read_scaled(
            source, x0=0, y0=top * pixel0_y, width=width, height=count, pixel0_x=pixel0_x, pixel0_y=pixel0_y
        )
        whole.rgb[top : top + count], whole.failed[top : top + count] = strip.rgb, strip.failed
    return whole


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

    def taps(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Index of the first stored pixel of each output pixel, and weights (out, taps) that sum to one."""
        edges = self.start - self.first + self.ratio * np.arange(self.out + 1)
        low, high = edges[:-1], edges[1:]
        if self.ratio < 1:  # finer than stored: bilinear between pixel centres
            centre = np.clip((low + high) / 2 - 0.5, 0, self.count - 1)
            index = np.minimum(np.floor(centre).astype(np.intp), max(0, self.count - 2))
            part = centre - index
            return index, np.stack([1 - part, part], axis=1)
        index = np.floor(low + 1e-9).astype(np.intp)
        taps = int(np.max(np.ceil(high - 1e-9) - index))
        cells = index[:, None] + np.arange(taps)
        cover = np.minimum(high[:, None], cells + 1) - np.maximum(low[:, None], cells)
        cover = np.clip(cover, 0, None)
        return index, cover / cover.sum(axis=1, keepdims=True)

    @property
    def few(self) -> bool:
        """Whether few stored pixels make one of the output."""
        return math.ceil(self.ratio) + 1 <= _FEW_TAPS

    def blocks(
        self, size: int = _BLOCK, *, in_steps: bool = False
    ) -> Iterator[tuple[slice, slice, npt.NDArray[np.floating]]]:
        """(outputs, stored places, weights) of `size` outputs at a time; `in_steps`: whole numbers that sum to _STEPS."""
        index, exact = self.taps()
        weights: npt.NDArray[np.floating] = _rounded_to_steps(exact) if in_steps else exact
        places = np.minimum(index[:, None] + np.arange(weights.shape[1]), self.count - 1)
        starts = np.arange(0, self.out, size)
        ends = np.minimum(starts + size, self.out)
        first, last = places[starts, 0], places[ends - 1, -1] + 1  # further on no output begins before
        dense = np.zeros((self.out, int((last - first).max())), weights.dtype)
        columns = places - first.repeat(ends - starts)[:, None]
        for tap in range(weights.shape[1]):  # beyond the end several fall on the last place
            dense[np.arange(self.out), columns[:, tap]] += weights[:, tap]
        for start, end, low, high in zip(starts.tolist(), ends.tolist(), first.tolist(), last.tolist(), strict=True):
            yield slice(start, end), slice(low, high), dense[start:end, : high - low]


def _rounded_to_steps(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The heaviest weight of each output takes what rounding leaves."""
    steps = np.floor(weights * _STEPS + _HALF)
    steps[np.arange(len(steps)), weights.argmax(axis=1)] += _STEPS - steps.sum(axis=1)
    return steps.astype(np.float32)


def _resampled(rgb: npt.NDArray[np.uint8], across: _Axis, down: _Axis) -> npt.NDArray[np.uint8]:
    if across.whole and down.whole and across.whole * down.whole > 1:
        return block_mean(rgb, across.whole, down.whole)
    if across.few and down.few:
        return _weighted_in_steps(rgb, across, down)
    result = np.empty((down.out, across.out, 3), np.uint8)
    for colour in range(3):
        plane = _weighted(rgb[..., colour], across, down)
        plane += _HALF
        result[..., colour] = plane
    return result


def _weighted_in_steps(rgb: npt.NDArray[np.uint8], across: _Axis, down: _Axis) -> npt.NDArray[np.uint8]:
    """As `_weighted`, rounded, in whole numbers below 2^24: sums of such are exact in 32 bits, however their terms are grouped.

    Between the axes sixteenths of a grey value are kept. The mean is right to within a fifth of a grey value. Some rows of
    the output are finished at a time, which the processor's cache holds, and the colours are not taken apart.
    """
    given = rgb.reshape(len(rgb), -1)
    result = np.empty((down.out, across.out, 3), np.uint8)
    flat = result.reshape(down.out, -1)
    # both divisors are powers of two: weights that are divided beforehand are as exact
    columns = [
        (
            slice(3 * out.start, 3 * out.stop),
            slice(3 * stored.start, 3 * stored.stop),
            _for_each_colour(weights * np.float32(1 / (16 * _STEPS))),
        )
        for out, stored, weights in across.blocks(_BLOCK_ACROSS, in_steps=True)
    ]
    rows = [
        (out, stored, weights * np.float32(16 / _STEPS))
        for out, stored, weights in down.blocks(_BLOCK_DOWN, in_steps=True)
    ]
    lines = np.empty((_ROWS_AT_ONCE, given.shape[1]), np.float32)
    band = np.empty((_ROWS_AT_ONCE, flat.shape[1]), np.float32)
    for top in range(0, down.out, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, down.out - top)
        for out, stored, weights in rows[top // _BLOCK_DOWN : (top + count - 1) // _BLOCK_DOWN + 1]:
            np.matmul(weights, given[stored].astype(np.float32), out=lines[out.start - top : out.stop - top])
        np.rint(lines[:count], out=lines[:count])
        for out, stored, weights in columns:
            np.matmul(lines[:count, stored], weights, out=band[:count, out])
        np.add(band[:count], np.float32(_HALF), out=flat[top : top + count], casting="unsafe")
    return result


def _for_each_colour(weights: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """(outputs, places) -> (3 places, 3 outputs): from the samples of a row of RGB to those of another."""
    matrix = np.zeros((3 * weights.shape[1], 3 * weights.shape[0]), np.float32)
    for colour in range(3):
        matrix[colour::3, colour::3] = weights.T
    return matrix


# in 64 bits: in 32 a sum depends on how its terms were grouped, which moves with the window, and one pixel in 200,000 then
# falls on the other side of a half
def _weighted(plane: npt.NDArray[np.integer | np.bool_], across: _Axis, down: _Axis) -> npt.NDArray[np.float64]:
    """(stored rows, stored columns) to (out rows, out columns): banded weights, applied as small dense products."""
    given = plane.astype(np.float64)
    lines = np.empty((down.out, plane.shape[1]))
    for out, stored, weights in down.blocks():
        np.matmul(weights, given[stored], out=lines[out])
    result = np.empty((down.out, across.out))
    for out, stored, weights in across.blocks():
        result[:, out] = lines[:, stored] @ weights.T
    return result


def block_mean(rgb: npt.NDArray[np.uint8], wide: int, high: int) -> npt.NDArray[np.uint8]:
    """rgb (H, W, 3) -> (H // high, W // wide, 3): mean over blocks of high x wide pixels, rounded, a half up.

    Sums run over flat rows (a row plus itself 3, 6 ... samples later) because loops over RGB triples are slow.
    """
    height, width = rgb.shape[0] // high, rgb.shape[1] // wide
    kind = np.uint16 if wide * high <= 256 else np.uint32
    flat = rgb[: height * high, : width * wide].reshape(height, high, -1)
    rows = np.add.reduce(flat, axis=1, dtype=kind)
    span = rows.shape[1] - 3 * (wide - 1)
    sums = rows[:, :span].copy()
    for step in range(1, wide):
        sums += rows[:, 3 * step : 3 * step + span]
    mean = np.empty((height, width, 3), np.uint8)
    for colour in range(3):
        picked = sums[:, colour :: 3 * wide].astype(np.uint32)
        mean[..., colour] = (picked + (wide * high) // 2) // (wide * high)
    return mean


def _failed(failed: npt.NDArray[np.bool_], across: _Axis, down: _Axis) -> npt.NDArray[np.bool_]:
    if not failed.any():
        return np.zeros((down.out, across.out), np.bool_)
    touched: npt.NDArray[np.bool_] = _weighted(failed, across, down) > 1e-6
    return touched
