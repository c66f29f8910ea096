"""Which places of a slide lie under a damaged tile of full resolution, as the check of every tile found them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slides.wsi.pixels import Mask
from slides.wsi.tile_store import CORRUPT, HATCHED, load_index


@dataclass(frozen=True)
class DamagedTiles:
    """`boxes` float (n, 4): left, top, right, bottom in level-0 pixels."""

    boxes: npt.NDArray[np.float64]
    levels_left_out: tuple[int, ...] = ()
    """Levels of the file that show something else than its full resolution."""

    @classmethod
    def of_store(cls, folder: Path) -> "DamagedTiles":
        """Raises TileStoreDamaged."""
        document, index, _ = load_index(folder)
        level = index.levels[0]
        numbers = np.flatnonzero(np.isin(index.of_level(0)["flag"], (CORRUPT, HATCHED)))
        left, top = numbers % level.cols * level.tile_width, numbers // level.cols * level.tile_height
        boxes = np.stack([left, top, left + level.tile_width, top + level.tile_height], axis=1).astype(np.float64)
        return cls(boxes, tuple(int(number) for number in document.get("levels_left_out", ())))

    def mark(self, failed: Mask, *, x0: float, y0: float, pixel0_x: float, pixel0_y: float) -> None:
        """Sets `failed` (of a read from (x0, y0), a pixel being pixel0_x by pixel0_y) wherever a pixel touches a box."""
        height, width = failed.shape
        shift, size = np.array([x0, y0, x0, y0]), np.array([pixel0_x, pixel0_y, pixel0_x, pixel0_y])
        boxes = (self.boxes - shift) / size
        near = (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < width) & (boxes[:, 1] < height)
        for left, top, right, bottom in boxes[near]:
            failed[max(0, math.floor(top)) : math.ceil(bottom), max(0, math.floor(left)) : math.ceil(right)] = True
