"""Frozen types of slide geometry, and the rule that finds the true ratio between two levels.

Frames: `x0, y0` level-0 pixels; `x, y` pixels of a named level; `col, row` tiles of a level.
"""

import math
from dataclasses import dataclass

_LARGEST_DOWNSAMPLE = 1 << 20


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide. `width` and `height` count real picture, without padding to whole tiles."""

    index: int
    width: int
    height: int
    downsample: float
    tile_width: int
    tile_height: int

    @property
    def cols(self) -> int:
        return math.ceil(self.width / self.tile_width)

    @property
    def rows(self) -> int:
        return math.ceil(self.height / self.tile_height)


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in level-0 pixels."""

    x0: int
    y0: int
    width0: int
    height0: int


def true_downsample(
    *,
    full: tuple[int, int],
    level: tuple[int, int],
    tile: tuple[int, int] | None = None,
    finer: float = 0.0,
) -> float:
    """The ratio level 0 : level of the picture itself, from sizes that may be rounded or padded.

    Scanners halve, but write sizes rounded down, rounded up, or padded to whole tiles: CAMELYON16 files
    give width ratios such as 57.375 where the picture is at 64. The nearest power of two (then the nearest whole
    number) is taken when it explains both sizes; else the mean of the two ratios.
    `full`, `level`, `tile` are (width, height). `finer` is the ratio of the level before: a level that fits into
    one padded tile would suit several powers of two, but only one above that.
    """
    ratio = math.sqrt((full[0] / level[0]) * (full[1] / level[1]))
    power = 2.0 ** round(math.log2(max(ratio, 1.0)))
    for candidate in (power, power * 2, power * 4, float(round(ratio))):
        if finer < candidate <= _LARGEST_DOWNSAMPLE and all(
            _explains(candidate, full=full[axis], level=level[axis], tile=tile[axis] if tile else None)
            for axis in (0, 1)
        ):
            return candidate
    return ratio


def _explains(downsample: float, *, full: int, level: int, tile: int | None) -> bool:
    smallest = max(1, math.floor(full / downsample) - 1)
    largest = math.ceil(full / downsample) + 1
    if tile:
        largest = max(largest, math.ceil(full / downsample / tile) * tile)
    return smallest <= level <= largest


def content_size(*, full: tuple[int, int], level: tuple[int, int], downsample: float) -> tuple[int, int]:
    """The part of a stored level (width, height) that shows the slide: the rest is padding."""
    width, height = (max(1, min(level[axis], math.ceil(full[axis] / downsample))) for axis in (0, 1))
    return width, height
