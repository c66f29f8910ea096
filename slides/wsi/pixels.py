"""Pixels as they travel: colour, and where reading failed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from slides.wsi.geometry import Level

Rgb = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pixels:
    """`rgb` uint8 (H, W, 3), white outside the slide; `failed` bool (H, W), true where nothing could be read."""

    rgb: Rgb
    failed: Mask

    @classmethod
    def white(cls, width: int, height: int) -> "Pixels":
        return cls(np.full((height, width, 3), 255, np.uint8), np.zeros((height, width), np.bool_))


class LevelSource(Protocol):
    """Something that gives pixels of its levels. Coordinates are pixels of the level, not level-0 pixels."""

    @property
    def levels(self) -> tuple[Level, ...]: ...

    def read_level(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Any rectangle, also beyond the level (white). A tile that cannot be decoded is `failed`; never raises for it."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class ApartSource(Protocol):
    """A LevelSource that several threads may ask at once."""

    def read_apart(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels: ...


def paste(target: Pixels, patch: Rgb | None, *, x: int, y: int, width: int, height: int) -> None:
    """Put `patch` (None: unreadable) of width x height at x, y of `target`, clipped to it."""
    total_height, total_width = target.failed.shape
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, total_width), min(y + height, total_height)
    if left >= right or top >= bottom:
        return
    if patch is None:
        target.failed[top:bottom, left:right] = True
    else:
        target.rgb[top:bottom, left:right] = patch[top - y : bottom - y, left - x : right - x]


def tiles_under(*, x: int, y: int, width: int, height: int, level: Level) -> Iterable[tuple[int, int]]:
    """(col, row) of the tiles of `level` that the rectangle touches, row by row."""
    first_col, first_row = max(0, x // level.tile_width), max(0, y // level.tile_height)
    last_col = min(level.cols, -(-(x + width) // level.tile_width))
    last_row = min(level.rows, -(-(y + height) // level.tile_height))
    for row in range(first_row, last_row):
        for col in range(first_col, last_col):
            yield col, row
