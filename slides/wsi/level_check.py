"""Whether the reduced levels of a file show the same slide as its full resolution.

Some scanners write good JPEG of something else into the edge tiles of lower levels, or nothing (imi-bigpicture/opentile#1).
Whoever reads such a level sees tissue that is not there, or misses some: it must not be used.
"""

from collections.abc import Iterator

import numpy as np

from slides.wsi.errors import RefusalCode, SlideRefused
from slides.wsi.geometry import Level
from slides.wsi.pixels import LevelSource, Pixels
from slides.wsi.resample import read_from_level
from slides.wsi.source_jpeg_tiles import JpegTileSource
from slides.wsi.tile_store import MISSING, OK, Records

_MOST_OF_JPEG, _MOST_OF_OTHERS = 32, 8
"""Tiles looked at on each edge, and as many inside: fewer where one takes fifty times as long to read."""
_BLOCK = 16
_DIFFERENT = 36.0
"""Grey levels between the means of 16 x 16 pixels; sharpening, JPEG and half a pixel's shift stay below 20."""
_DIFFERENT_SHARE = 0.1
_PROBES = 8


class KeptLevels:
    """A LevelSource without some of its levels."""

    def __init__(self, source: LevelSource, kept: list[int]) -> None:
        self._source, self._kept = source, kept
        self.levels = tuple(
            Level(number, level.width, level.height, level.downsample, level.tile_width, level.tile_height)
            for number, level in enumerate(source.levels[index] for index in kept)
        )

    def read_level(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        return self._source.read_level(self._kept[level_index], x, y, width, height)

    def close(self) -> None:
        self._source.close()


def levels_of_another_picture(source: LevelSource) -> tuple[int, ...]:
    """Indices of levels that differ from the next finer trusted one, by their edge tiles and a sample of the others."""
    wrong: list[int] = []
    finer = source.levels[0]
    most = _MOST_OF_JPEG if isinstance(source, JpegTileSource) else _MOST_OF_OTHERS
    for level in source.levels[1:]:
        if any(_differs(source, level, finer, col, row) for col, row in _sample(level, most)):
            wrong.append(level.index)
        else:
            finer = level
    return tuple(wrong)


def _sample(level: Level, most: int) -> Iterator[tuple[int, int]]:
    last_col, last_row = level.cols - 1, level.rows - 1
    yield last_col, last_row
    for row in _spread(last_row, most):
        yield last_col, row
    for col in _spread(last_col, most):
        yield col, last_row
    inside = last_col * last_row
    for number in _spread(inside, most):
        yield number % last_col, number // last_col


def _spread(count: int, most: int) -> list[int]:
    return [int(place) for place in np.linspace(0, count - 1, min(count, most))] if count else []


def _differs(source: LevelSource, level: Level, finer: Level, col: int, row: int) -> bool:
    x, y = col * level.tile_width, row * level.tile_height
    width, height = min(level.tile_width, level.width - x), min(level.tile_height, level.height - y)
    width, height = width // _BLOCK * _BLOCK, height // _BLOCK * _BLOCK
    if not width or not height:
        return False
    shown = source.read_level(level.index, x, y, width, height)
    scale = level.downsample
    expected = read_from_level(
        source, finer, x0=x * scale, y0=y * scale, width=width, height=height, pixel0_x=scale, pixel0_y=scale
    )
    apart = np.abs(_means(shown.rgb) - _means(expected.rgb)).max(axis=2)
    readable = ~(_means(shown.failed[..., None]) + _means(expected.failed[..., None]) > 0)[..., 0]
    return bool((apart[readable] > _DIFFERENT).sum() > _DIFFERENT_SHARE * apart.size)


def _means(picture: np.ndarray) -> np.ndarray:
    height, width, colours = picture.shape
    blocks = picture.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK, colours)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def check_some_is_readable(source: LevelSource, full: Records | None = None) -> None:
    """Raises SlideRefused when nothing of the full resolution can be read: `full` are its tiles where they are indexed."""
    flags = np.zeros(0) if full is None else full["flag"]
    if (flags == OK).any() or _some_place_is_readable(source):
        return
    if flags.size and (flags == MISSING).all():
        raise SlideRefused(
            RefusalCode.UNREADABLE,
            "The file holds no picture: all of its tiles are empty. Export it from the scanner again.",
        )
    raise SlideRefused(
        RefusalCode.UNREADABLE,
        "Nothing of the picture can be read: all of its tiles are damaged. Copy or export it from the scanner again.",
    )


def _some_place_is_readable(source: LevelSource) -> bool:
    level = source.levels[0]
    for y in np.linspace(0, level.height - 1, _PROBES).astype(int):
        for x in np.linspace(0, level.width - 1, _PROBES).astype(int):
            if not source.read_level(0, int(x), int(y), 1, 1).failed.any():
                return True
    return False
