"""What lies where on a composed slide, as bits of a coarse map: by these tags false positives are told apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.detector.reading_plan import MAP_MPP

TAG_BITS = {
    "hard_negative": 1,
    "pale_normal": 2,
    "blend_only": 4,
    "fat": 8,
    "ink": 16,
    "fold": 32,
    "blur": 64,
    "tissue": 128,
}
"""`blend_only`: lymphoid tissue laid under a lesion's outline in lymphoid tissue. `tissue` holds for all but glass."""
_STEP_PX = 2


@dataclass
class TagMap:
    """bits (rows, cols) uint8 in cells of MAP_MPP um; the slide's pixels are `mpp` um."""

    bits: NDArray[np.uint8]
    mpp: float

    @classmethod
    def of(cls, *, width: int, height: int, mpp: float) -> "TagMap":
        rows, cols = (int(np.ceil(v * mpp / MAP_MPP)) for v in (height, width))
        return cls(np.zeros((max(rows, 1), max(cols, 1)), np.uint8), mpp)

    def add(self, tags: tuple[str, ...], mask: NDArray[np.bool_], *, top: int, left: int) -> None:
        """`mask` in px of the slide, with its upper left corner at `top`, `left`."""
        rows, cols = self._cells(mask, top, left)
        self.bits[rows, cols] |= np.uint8(sum(TAG_BITS[tag] for tag in tags))

    def remove(self, tags: tuple[str, ...], mask: NDArray[np.bool_], *, top: int, left: int) -> None:
        rows, cols = self._cells(mask, top, left)
        self.bits[rows, cols] &= np.uint8(255 - sum(TAG_BITS[tag] for tag in tags))

    def share(self, tag: str, mask: NDArray[np.bool_], *, top: int, left: int) -> float:
        """Of the cells under `mask`, those that carry `tag`; 0 for an empty mask."""
        rows, cols = self._cells(mask, top, left)
        return float(((self.bits[rows, cols] & TAG_BITS[tag]) > 0).mean()) if len(rows) else 0.0

    def area_mm2(self, tag: str) -> float:
        return float(((self.bits & TAG_BITS[tag]) > 0).sum()) * (MAP_MPP / 1000) ** 2

    def _cells(self, mask: NDArray[np.bool_], top: int, left: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        ys, xs = np.nonzero(mask[::_STEP_PX, ::_STEP_PX])
        rows = ((ys * _STEP_PX + top + 0.5) * self.mpp / MAP_MPP).astype(np.intp)
        cols = ((xs * _STEP_PX + left + 0.5) * self.mpp / MAP_MPP).astype(np.intp)
        return rows, cols
