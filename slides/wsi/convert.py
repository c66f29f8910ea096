"""Make the tiles a slide lacks: a pyramid of 512-pixel JPEG tiles in factors of two, streamed strip by strip."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips

from slides.wsi import tiff_walk
from slides.wsi.geometry import Level, content_size
from slides.wsi.pixels import LevelSource, Pixels, Rgb
from slides.wsi.tiff_pyramid import TiffLevel
from slides.wsi.tile_index import hatched

TILE_SIDE = 512
QUALITY = 85
_STRIP_BYTES = 64 << 20


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
        """(width, height) of the finest level made."""
        width, height = (math.ceil(side / self.start_downsample) for side in self.full)
        return width, height

    @property
    def level_count(self) -> int:
        return 1 + max(0, math.ceil(math.log2(max(self.size) / TILE_SIDE)))

    @property
    def padded_size(self) -> tuple[int, int]:
        """Sizes that halve evenly down to the last level, so that no level loses its last row or moves."""
        unit = 1 << (self.level_count - 1)
        width, height = (math.ceil(side / unit) * unit for side in self.size)
        return width, height


def plan_pyramid(levels: tuple[Level, ...], start_downsample: int) -> PyramidPlan:
    """Reads from the coarsest level that is fine enough and divides evenly."""
    fits = [level for level in levels if level.downsample <= start_downsample and start_downsample % level.downsample == 0]
    return PyramidPlan((levels[0].width, levels[0].height), start_downsample, max(fits, key=lambda level: level.downsample))


def write_pyramid(
    source: LevelSource, plan: PyramidPlan, path: Path, *, icc: bytes, on_fraction: Callable[[float], None]
) -> tuple[TiffLevel, ...]:
    """Write a pyramidal JPEG TIFF; places that cannot be read are hatched. Returns its levels in slide coordinates."""
    image = _streamed(_strips(source, plan, on_fraction), plan.padded_size)
    if icc:
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    image.tiffsave(
        str(path),
        compression="jpeg",
        Q=QUALITY,
        tile=True,
        tile_width=TILE_SIDE,
        tile_height=TILE_SIDE,
        pyramid=True,
        bigtiff=True,
        keep="icc" if icc else "none",
    )
    return levels_written(path, plan)


def levels_written(path: Path, plan: PyramidPlan) -> tuple[TiffLevel, ...]:
    levels = []
    for number, directory in enumerate(tiff_walk.walk(path).main):
        downsample = plan.start_downsample * 2.0**number
        width, height = content_size(full=plan.full, level=(directory.width, directory.height), downsample=downsample)
        level = Level(number, width, height, downsample, directory.tile_width, directory.tile_height)
        levels.append(TiffLevel(level, directory))
    return tuple(levels)


def _strips(source: LevelSource, plan: PyramidPlan, on_fraction: Callable[[float], None]) -> Iterator[Rgb]:
    """Strips of the finest level to be made, top to bottom, padded by repeating the last column and row."""
    width, height = plan.size
    padded_width, padded_height = plan.padded_size
    rows = _strip_rows(plan)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        strip = _strip(source, plan, top, count, width)
        bottom = padded_height - height if top + count == height else 0
        yield np.pad(strip, ((0, bottom), (0, padded_width - width), (0, 0)), mode="edge")
        on_fraction((top + count) / height)


def _strip_rows(plan: PyramidPlan) -> int:
    """Whole rows of source tiles, as many as the memory allows."""
    level, shrink = plan.source_level, plan.shrink
    tile_rows = level.tile_height if level.tile_height <= 2048 else 256
    tile_rows = math.lcm(tile_rows, shrink)
    repeat = max(1, _STRIP_BYTES // (level.width * tile_rows * 3))
    return max(1, tile_rows * repeat // shrink)


def _strip(source: LevelSource, plan: PyramidPlan, top: int, count: int, width: int) -> Rgb:
    shrink, level = plan.shrink, plan.source_level
    pixels = source.read_level(level.index, 0, top * shrink, width * shrink, count * shrink)
    rgb = _with_edges_repeated(_marked(pixels), level, top * shrink)
    if shrink == 1:
        return rgb
    total = np.zeros((count, width, 3), np.uint16 if shrink <= 16 else np.uint32)
    for row in range(shrink):
        for col in range(shrink):
            total += rgb[row::shrink, col::shrink]
    area = shrink * shrink
    return ((total + area // 2) // area).astype(np.uint8)


def _with_edges_repeated(rgb: Rgb, level: Level, top: int) -> Rgb:
    """Reads beyond the right and bottom edge are white; the picture's last column and row go on instead."""
    if rgb.shape[1] > level.width:
        rgb[:, level.width :] = rgb[:, level.width - 1 : level.width]
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


def _streamed(strips: Iterator[Rgb], size: tuple[int, int]) -> pyvips.Image:
    """A libvips image fed from strips through a PPM stream: libvips never sees the slide file itself."""
    feed = _Feed(b"P6\n%d %d\n255\n" % size, strips)
    source = pyvips.SourceCustom()
    source.on_read(feed.read)
    return pyvips.Image.new_from_source(source, "", access="sequential")


class _Feed:
    def __init__(self, head: bytes, strips: Iterator[Rgb]) -> None:
        self._held = memoryview(head)
        self._strips = strips

    def read(self, size: int) -> bytes:
        if not self._held:
            strip = next(self._strips, None)
            if strip is None:
                return b""
            self._held = memoryview(np.ascontiguousarray(strip).reshape(-1)).cast("B")
        piece, self._held = self._held[:size], self._held[size:]
        return bytes(piece)
