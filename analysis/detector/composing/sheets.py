"""Tissue for many slides: large sheets are quilted once, and areas of slides are joined from turned crops of them."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.detector.composing.quilting import least_different, quilt, seam_mask
from analysis.detector.composing.tissue_pool import TissuePools

SHEET_PX = 2048
CROP_PX, CROP_OVERLAP_PX = 448, 48
_CROP_CANDIDATES = 4


class TissueSource(Protocol):
    """Whatever can fill an area with one kind of tissue."""

    def fill(
        self, kind: str, *, height: int, width: int, rng: np.random.Generator, where: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """(height, width, 3); outside of `where` (height, width) the content does not matter."""
        ...


class QuiltedTissue:
    """Every area quilted anew from the patches: the finest variety, seconds for each mm2."""

    def __init__(self, pools: TissuePools) -> None:
        self._pools = pools

    def fill(
        self, kind: str, *, height: int, width: int, rng: np.random.Generator, where: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        return quilt(getattr(self._pools, kind), height=height, width=width, rng=rng, where=where)


class SheetTissue:
    """Areas joined from crops of sheets. A sheet is made when it is first asked for, and does not depend on the order."""

    def __init__(self, patches: dict[str, NDArray[np.uint8]], *, seed: tuple[int, ...], side: int = SHEET_PX) -> None:
        """`patches`: for each kind (n, s, s, 3)."""
        self._patches, self._seed, self._side = patches, seed, side
        self._sheets: dict[str, NDArray[np.uint8]] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self._patches)

    def sheet(self, kind: str) -> NDArray[np.uint8]:
        if kind not in self._sheets:
            rng = np.random.default_rng([*self._seed, *kind.encode()])
            self._sheets[kind] = quilt(self._patches[kind], height=self._side, width=self._side, rng=rng)
        return self._sheets[kind]

    def fill(
        self, kind: str, *, height: int, width: int, rng: np.random.Generator, where: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        side = min(CROP_PX, self._side)
        return join_crops(
            lambda: random_crop(self.sheet(kind), side=side, rng=rng), height=height, width=width, where=where
        )


def random_crop(sheet: NDArray[np.uint8], *, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    y, x = (int(v) for v in rng.integers(0, len(sheet) - side + 1, 2))
    crop = np.rot90(sheet[y : y + side, x : x + side], int(rng.integers(4)))
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def join_crops(
    crop: Callable[[], NDArray[np.uint8]], *, height: int, width: int, where: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Quilting with large pieces: `crop()` gives (s, s, 3); the best of some is joined along the least difference."""
    first = crop()
    side = len(first)
    overlap = min(CROP_OVERLAP_PX, side // 3)
    step = side - overlap
    rows, cols = max(-(-(height - overlap) // step), 1), max(-(-(width - overlap) // step), 1)
    out = np.full((rows * step + overlap, cols * step + overlap, 3), 255, np.uint8)
    laid = np.zeros((rows, cols), bool)
    for row in range(rows):
        for col in range(cols):
            y, x = row * step, col * step
            if not where[y : y + side, x : x + side].any():
                continue
            above, left = row > 0 and bool(laid[row - 1, col]), col > 0 and bool(laid[row, col - 1])
            target = out[y : y + side, x : x + side]
            candidates = np.stack([crop() for _ in range(_CROP_CANDIDATES if above or left else 1)])
            best = candidates[least_different(candidates, target, overlap, above=above, left=left)]
            keep = seam_mask(best, target, overlap, above=above, left=left)
            np.copyto(target, best, where=keep[..., None])
            laid[row, col] = True
    return out[:height, :width]
