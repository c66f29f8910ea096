"""A picture stored turned or mirrored (TIFF Orientation tag), read as it should be seen."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from slides.wsi.geometry import Level
from slides.wsi.pixels import LevelSource, Pixels

Pixel = TypeVar("Pixel", bound=np.generic)

# Orientation: (rows and columns change places, then mirrored left-right, then top-bottom); TIFF 6.0 section 8
_STORED_TO_UPRIGHT = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def upright(array: npt.NDArray[Pixel], orientation: int) -> npt.NDArray[Pixel]:
    """(H, W, ...) as stored to as seen."""
    if orientation == 1:
        return array
    swap, mirror_x, mirror_y = _STORED_TO_UPRIGHT[orientation]
    if swap:
        array = np.swapaxes(array, 0, 1)
    if mirror_x:
        array = array[:, ::-1]
    if mirror_y:
        array = array[::-1]
    return np.ascontiguousarray(array)


class UprightSource:
    """A LevelSource around another one, in the coordinates of the upright picture."""

    def __init__(self, stored: LevelSource, orientation: int) -> None:
        self._stored = stored
        self._orientation = orientation
        self._swap, self._mirror_x, self._mirror_y = _STORED_TO_UPRIGHT[orientation]
        self.levels = tuple(self._turned(level) for level in stored.levels)

    def _turned(self, level: Level) -> Level:
        if not self._swap:
            return level
        return Level(level.index, level.height, level.width, level.downsample, level.tile_height, level.tile_width)

    def read_level(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        level = self.levels[level_index]
        if self._mirror_x:
            x = level.width - x - width
        if self._mirror_y:
            y = level.height - y - height
        if self._swap:
            x, y, width, height = y, x, height, width
        pixels = self._stored.read_level(level_index, x, y, width, height)
        return Pixels(upright(pixels.rgb, self._orientation), upright(pixels.failed, self._orientation))

    def close(self) -> None:
        self._stored.close()
