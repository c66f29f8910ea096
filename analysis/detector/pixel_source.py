"""Where the detector gets its pixels from: a slide in the sandbox, or an array in memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slides.wsi.pixels import Pixels

Wanted = tuple[float, float, int, int, float]
"""x0, y0 (level-0 px), width and height in output pixels, um per output pixel."""


class PixelSource(Protocol):
    """`slides.wsi.sandbox.PixelSource` fulfils this, and so does ArraySource."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def mpp_x(self) -> float | None: ...

    @property
    def mpp_y(self) -> float | None: ...

    def read_at_mpp(self, x0: float, y0: float, width_px: int, height_px: int, mpp: float) -> Pixels: ...

    def prefetch(self, reads: Iterable[Wanted]) -> None: ...

    def thumbnail_at_mpp(self, mpp: float) -> Pixels: ...


@dataclass
class ArraySource:
    """A slide held in memory: rgb (H, W, 3) uint8 at mpp_x, mpp_y; `failed` marks what could not be read."""

    rgb: NDArray[np.uint8]
    mpp_x: float | None
    mpp_y: float | None
    failed: NDArray[np.bool_] | None = None
    properties: Any = None

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])

    def read_at_mpp(self, x0: float, y0: float, width_px: int, height_px: int, mpp: float) -> Pixels:
        if self.mpp_x is None or self.mpp_y is None:
            raise ValueError("this array has no scale")
        wide, high = width_px * mpp / self.mpp_x, height_px * mpp / self.mpp_y
        left, top = round(x0), round(y0)
        cut = self._cut(left, top, max(1, round(wide)), max(1, round(high)))
        if (round(wide), round(high)) == (width_px, height_px):
            return cut
        size = (width_px, height_px)
        filter_ = Image.Resampling.BOX if mpp > self.mpp_x else Image.Resampling.BILINEAR
        rgb = np.asarray(Image.fromarray(cut.rgb).resize(size, filter_))
        failed = np.asarray(Image.fromarray(cut.failed).resize(size, Image.Resampling.NEAREST))
        return Pixels(rgb, failed)

    def prefetch(self, reads: Iterable[Wanted]) -> None:
        """Nothing to do: everything is in memory."""

    def thumbnail_at_mpp(self, mpp: float) -> Pixels:
        if self.mpp_x is None or self.mpp_y is None:
            raise ValueError("this array has no scale")
        cols = max(1, -(-int(self.width * self.mpp_x) // int(mpp)))
        rows = max(1, -(-int(self.height * self.mpp_y) // int(mpp)))
        return self.read_at_mpp(0, 0, cols, rows, mpp)

    def _cut(self, left: int, top: int, width: int, height: int) -> Pixels:
        out = Pixels.white(width, height)
        x_from, y_from = max(left, 0), max(top, 0)
        x_to, y_to = min(left + width, self.width), min(top + height, self.height)
        if x_from < x_to and y_from < y_to:
            inside = np.s_[y_from - top : y_to - top, x_from - left : x_to - left]
            out.rgb[inside] = self.rgb[y_from:y_to, x_from:x_to]
            if self.failed is not None:
                out.failed[inside] = self.failed[y_from:y_to, x_from:x_to]
        return out
