"""Make the tiles a slide lacks: a pyramid of 512-pixel JPEG tiles in factors of two, in one pass over the slide.

Each band of 512 rows is cut into tiles, encoded, halved and handed to the next level: memory holds one band per level.
Where the slide's own tiles fit into ours without a rest, each of ours is decoded, encoded and halved by one thread in
one go, while its pixels are in the processor's cache; other slides are read in strips.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import simplejpeg

from slides.wsi import tiff_walk
from slides.wsi.geometry import Level
from slides.wsi.pixels import ApartSource, LevelSource, Mask, Pixels, Rgb
from slides.wsi.pyramid_file import PyramidFile, WrittenLevel
from slides.wsi.store_plan import PYRAMID_TILE_SIDE
from slides.wsi.tiff_pyramid import TiffLevel
from slides.wsi.tile_index import hatched

TILE_SIDE = PYRAMID_TILE_SIDE
QUALITY = 85
_STRIP_BYTES = 64 << 20
_THREADS = 2
_RUN = 6

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PyramidPlan:
    """A pyramid from `start_downsample` (1: whole slide; 2: the side pyramid) down, read from one level of the slide."""

    full: tuple[int, int]
    start_downsample: int
    source_level: Level

    @property
    def shrink(self) -> int:
        return round(self.start_downsample / self.source_level.downsample)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the finest level made; its last column and row may stand for less than a whole pixel."""
        width, height = (math.ceil(side / self.start_downsample) for side in self.full)
        return width, height

    @property
    def level_count(self) -> int:
        return 1 + max(0, math.ceil(math.log2(max(self.size) / TILE_SIDE)))


@dataclass(frozen=True, slots=True)
class WrittenPyramid:
    """Levels in slide coordinates; `hatched`: tiles of the finest one in which a part could not be read, row by row."""

    levels: tuple[TiffLevel, ...]
    hatched: frozenset[int]


def plan_pyramid(levels: tuple[Level, ...], start_downsample: int) -> PyramidPlan:
    """Reads from the coarsest level that is fine enough and divides evenly."""
    fits = [
        level for level in levels if level.downsample <= start_downsample and start_downsample % level.downsample == 0
    ]
    return PyramidPlan(
        (levels[0].width, levels[0].height), start_downsample, max(fits, key=lambda level: level.downsample)
    )


def write_pyramid(
    source: LevelSource,
    plan: PyramidPlan,
    path: Path,
    *,
    icc: bytes = b"",
    mpp: tuple[float, float] | None = None,
    on_fraction: Callable[[float], None] = lambda fraction: None,
) -> WrittenPyramid:
    """Write a pyramidal JPEG TIFF; places that cannot be read are hatched.

    `mpp` is that of the slide's level 0.
    """
    scaled = (mpp[0] * plan.start_downsample, mpp[1] * plan.start_downsample) if mpp else None
    hatched = _Hatched(math.ceil(plan.size[0] / TILE_SIDE))
    with PyramidFile(path, tile_side=TILE_SIDE, icc=icc, mpp=scaled) as file, ThreadPoolExecutor(_THREADS) as pool:
        width, height = plan.size
        band = _Band(file, pool, width, height, levels_below=plan.level_count - 1)
        if isinstance(source, ApartSource) and _tiles_fit(plan):
            _add_tile_by_tile(source, plan, band, pool, hatched, on_fraction)
        else:
            for strip in _strips(source, plan, hatched, on_fraction):
                band.add(strip)
        band.finish()
    return WrittenPyramid(levels_written(path, plan), frozenset(hatched.numbers))


@dataclass
class _Hatched:
    """Numbers of tiles of the finest level made, `cols` a row, in which something failed."""

    cols: int
    numbers: set[int] = field(default_factory=set)

    def note(self, failed: Mask, top: int, shrink: int) -> None:
        """`failed` of the source, whose first row is row `top` of the finest level made."""
        rows, cols = np.nonzero(failed)
        if rows.size:
            numbers = (top + rows // shrink) // TILE_SIDE * self.cols + cols // shrink // TILE_SIDE
            self.numbers |= set(np.unique(numbers).tolist())


def _tiles_fit(plan: PyramidPlan) -> bool:
    side, level = TILE_SIDE * plan.shrink, plan.source_level
    return side % level.tile_width == 0 and side % level.tile_height == 0 and plan.shrink in (1, 2)


def _add_tile_by_tile(
    source: ApartSource,
    plan: PyramidPlan,
    band: "_Band",
    pool: ThreadPoolExecutor,
    hatched: _Hatched,
    on_fraction: Callable[[float], None],
) -> None:
    width, height = plan.size
    side, halve = TILE_SIDE * plan.shrink, plan.level_count > 1

    def made(col: int, row: int) -> tuple[bytes, Rgb | None]:
        pixels = source.read_apart(plan.source_level.index, col * side, row * side, side, side)
        if pixels.failed.any():
            hatched.numbers.add(row * hatched.cols + col)
        rgb = _with_edges_repeated(_marked(pixels), plan.source_level, col * side, row * side)
        rgb = rgb if plan.shrink == 1 else _halved_in_blocks(rgb)
        return _finished(rgb[: height - row * TILE_SIDE, : width - col * TILE_SIDE], halve=halve)

    rows = math.ceil(height / TILE_SIDE)
    ahead = _in_runs(
        pool, partial(made, row=0), range(hatched.cols)
    )  # a row ahead, so that no thread waits for the end of a row
    for row in range(rows):
        current = ahead
        if row + 1 < rows:
            ahead = _in_runs(pool, partial(made, row=row + 1), range(hatched.cols))
        band.add_made(current)
        on_fraction((row + 1) / rows)


def _in_runs(pool: ThreadPoolExecutor, act: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """As pool.map, a few items at a time: handing a thread single tiles of a millisecond costs more than it gives."""

    def run(start: int) -> list[Result]:
        return [act(item) for item in items[start : start + _RUN]]

    return chain.from_iterable(pool.map(run, range(0, len(items), _RUN)))


class _Band:
    """One level of the pyramid being written: rows go in at the top, tiles come out, halves go to the level below."""

    def __init__(
        self, file: PyramidFile, pool: ThreadPoolExecutor, width: int, height: int, *, levels_below: int
    ) -> None:
        self._file = file
        self._pool = pool
        self._level: WrittenLevel = file.add_level(width, height)
        self._held: list[Rgb] = []
        self._held_rows = 0
        self._below: _Band | None = None
        if levels_below:
            self._below = _Band(file, pool, math.ceil(width / 2), math.ceil(height / 2), levels_below=levels_below - 1)

    def add(self, rows: Rgb) -> None:
        """The next rows, uint8 (n, width, 3)."""
        while self._held_rows + len(rows) >= TILE_SIDE:
            count = TILE_SIDE - self._held_rows
            self._held.append(rows[:count])
            self._emit()
            rows = rows[count:]
        if len(rows):
            self._held.append(rows)
            self._held_rows += len(rows)

    def finish(self) -> None:
        if self._held:
            self._emit()
        if self._below:
            self._below.finish()

    def _emit(self) -> None:
        band = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        self._held, self._held_rows = [], 0
        tiles = [band[:, left : left + TILE_SIDE] for left in range(0, band.shape[1], TILE_SIDE)]
        halve = self._below is not None
        self.add_made(_in_runs(self._pool, lambda tile: _finished(tile, halve=halve), tiles))

    def add_made(self, made: Iterable[tuple[bytes, Rgb | None]]) -> None:
        """A row of tiles that are finished (`_finished`)."""
        halves = []
        for jpeg, half in made:
            self._file.add_tile(self._level, jpeg)
            if half is not None:
                halves.append(half)
        if self._below:
            self._below.add(np.concatenate(halves, axis=1))


def _finished(tile: Rgb, *, halve: bool) -> tuple[bytes, Rgb | None]:
    """The tile as JPEG, filled up to its full size by repeating its last column and row, and its half-size picture."""
    height, width = tile.shape[:2]
    full = tile
    if (height, width) != (TILE_SIDE, TILE_SIDE):
        full = np.pad(tile, ((0, TILE_SIDE - height), (0, TILE_SIDE - width), (0, 0)), mode="edge")
    full = np.ascontiguousarray(full)
    jpeg = bytes(simplejpeg.encode_jpeg(full, quality=QUALITY, colorspace="RGB", colorsubsampling="420"))
    return jpeg, _half(full)[: math.ceil(height / 2), : math.ceil(width / 2)] if halve else None


def _half(tile: Rgb) -> Rgb:
    """Means of 2 x 2 pixels of an even-sized picture, off by at most 0.75 grey levels and by none on average.

    Bytes stay bytes: a and b have the mean (a & b) + (a ^ b) / 2. It is rounded up between rows and down between columns.
    Each flat row is taken with itself three samples later (the pixel to the right): long loops over plain memory, which
    the processor does many at a time.
    """
    height, width = tile.shape[0] // 2, tile.shape[1] // 2
    upper, lower = tile[0::2].reshape(height, -1), tile[1::2].reshape(height, -1)
    apart = upper ^ lower
    apart >>= 1
    rows = upper | lower
    rows -= apart
    left, right = rows[:, :-3], rows[:, 3:]
    apart = left ^ right
    apart >>= 1
    means = left & right
    means += apart
    half = np.empty((height, width, 3), np.uint8)
    for colour in range(3):
        half[..., colour] = means[:, colour::6]
    return half


def levels_written(path: Path, plan: PyramidPlan) -> tuple[TiffLevel, ...]:
    levels = []
    for number, directory in enumerate(tiff_walk.walk(path).main):
        downsample = plan.start_downsample * 2.0**number
        level = Level(
            number, directory.width, directory.height, downsample, directory.tile_width, directory.tile_height
        )
        levels.append(TiffLevel(level, directory))
    return tuple(levels)


def _strips(
    source: LevelSource, plan: PyramidPlan, hatched: _Hatched, on_fraction: Callable[[float], None]
) -> Iterator[Rgb]:
    """Strips of the finest level to be made, top to bottom."""
    width, height = plan.size
    rows = _strip_rows(plan)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        yield _strip(source, plan, hatched, top, count, width)
        on_fraction((top + count) / height)


def _strip_rows(plan: PyramidPlan) -> int:
    """Whole rows of source tiles, as many as the memory allows."""
    level, shrink = plan.source_level, plan.shrink
    tile_rows = level.tile_height if level.tile_height <= 2048 else 256
    tile_rows = math.lcm(tile_rows, shrink)
    repeat = max(1, _STRIP_BYTES // (level.width * tile_rows * 3))
    return max(1, tile_rows * repeat // shrink)


def _strip(source: LevelSource, plan: PyramidPlan, hatched: _Hatched, top: int, count: int, width: int) -> Rgb:
    shrink, level = plan.shrink, plan.source_level
    pixels = source.read_level(level.index, 0, top * shrink, width * shrink, count * shrink)
    hatched.note(pixels.failed, top, shrink)
    rgb = _with_edges_repeated(_marked(pixels), level, 0, top * shrink)
    if shrink == 1:
        return rgb
    if shrink == 2:
        return _halved_in_blocks(rgb)
    total = np.zeros((count, width, 3), np.uint32)
    for row in range(shrink):
        for col in range(shrink):
            total += rgb[row::shrink, col::shrink]
    area = shrink * shrink
    return ((total + area // 2) // area).astype(np.uint8)


def _halved_in_blocks(rgb: Rgb) -> Rgb:
    """2 x 2 means in pieces that stay in the processor's cache."""
    half = np.empty((rgb.shape[0] // 2, rgb.shape[1] // 2, 3), np.uint8)
    side = 256
    for top in range(0, half.shape[0], side):
        for left in range(0, half.shape[1], side):
            piece = rgb[2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
            half[top : top + side, left : left + side] = _half(piece)
    return half


def _with_edges_repeated(rgb: Rgb, level: Level, left: int, top: int) -> Rgb:
    """Reads beyond the right and bottom edge are white; the picture's last column and row go on instead."""
    last = level.width - left
    if rgb.shape[1] > last:
        rgb[:, last:] = rgb[:, last - 1 : last]
    last = level.height - top
    if rgb.shape[0] > last:
        rgb[last:] = rgb[last - 1 : last]
    return rgb


def _marked(pixels: Pixels) -> Rgb:
    if pixels.failed.any():
        height, width = pixels.failed.shape
        pattern = hatched(128, 128)
        repeated = np.tile(pattern, (-(-height // 128), -(-width // 128), 1))[:height, :width]
        pixels.rgb[pixels.failed] = repeated[pixels.failed]
    return pixels.rgb
