"""Annotations as mask images (TIFF, usually a pyramid): which value means tumour, and windows of the mask.

CAMELYON16's masks hold 2 on tumour, 1 on other tissue and 0 elsewhere; masks of other makers hold 255 or 1 on tumour.
A file alone cannot tell 1 = tissue from 1 = tumour: `tumour_value` is found over all masks of a folder.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyvips
from numpy.typing import NDArray

from analysis.detector.annotations import AnnotationError

KNOWN_VALUES = {0, 1, 2, 255}
_LOOK_PX = 4096
"""A mask is looked through at the level whose longest side is at most this, to learn its values."""


@dataclass(frozen=True)
class MaskFile:
    """A mask over the whole of its slide; its level-0 size need not be the slide's (CAMELYON16's differ slightly)."""

    path: Path
    slide_width: int
    slide_height: int
    tumour_value: int

    @cached_property
    def levels(self) -> list[tuple[int, int, int]]:
        return _levels(self.path)

    def window(
        self, *, left0: float, top0: float, rows: int, cols: int, cell_x0: float, cell_y0: float
    ) -> NDArray[np.bool_]:
        """Tumour (rows, cols) on cells of cell_x0 by cell_y0 level-0 px of the slide; nearest pixel, false outside."""
        fitting = [level for level in self.levels if self.slide_width / level[1] <= max(cell_x0, 1.0) * 1.01]
        page, width, height = fitting[-1] if fitting else self.levels[0]
        xs = np.floor((left0 + (np.arange(cols) + 0.5) * cell_x0) * width / self.slide_width).astype(int)
        ys = np.floor((top0 + (np.arange(rows) + 0.5) * cell_y0) * height / self.slide_height).astype(int)
        out = np.zeros((rows, cols), bool)
        in_x, in_y = (xs >= 0) & (xs < width), (ys >= 0) & (ys < height)
        if not in_x.any() or not in_y.any():
            return out
        xs, ys = xs[in_x], ys[in_y]
        cut = _read(self.path, page, int(xs[0]), int(ys[0]), int(xs[-1] - xs[0]) + 1, int(ys[-1] - ys[0]) + 1)
        out[np.ix_(in_y, in_x)] = cut[np.ix_(ys - ys[0], xs - xs[0])] == self.tumour_value
        return out


def mask_values(path: Path) -> set[int]:
    """The values of a mask at a coarse level. Raises AnnotationError for an unreadable file or values of no known kind."""
    levels = _levels(path)
    page, width, height = next((lv for lv in levels if max(lv[1:]) <= _LOOK_PX), levels[-1])
    values: set[int] = set()
    for top in range(0, height, _LOOK_PX):
        values |= {int(v) for v in np.unique(_read(path, page, 0, top, width, min(_LOOK_PX, height - top)))}
    if not values <= KNOWN_VALUES:
        odd = sorted(values - KNOWN_VALUES)[:3]
        raise AnnotationError(f"{path.name} is no mask: it holds the values {odd}; 0, 1, 2 and 255 are understood")
    return values


def tumour_value(values: Iterable[set[int]]) -> int:
    """What means tumour in a folder whose masks hold these sets of values: 255, else 2, else 1."""
    seen = set().union(*values)
    return 255 if 255 in seen else 2 if 2 in seen else 1


def _levels(path: Path) -> list[tuple[int, int, int]]:
    """(page, width, height) from the largest down: the pages that are the first one made smaller."""
    try:
        first = pyvips.Image.new_from_file(str(path), access="random")
        pages = first.get("n-pages") if first.get_typeof("n-pages") else 1
        found = [(0, first.width, first.height)]
        for page in range(1, pages):
            image = pyvips.Image.new_from_file(str(path), page=page)
            same_shape = (
                abs(image.width * first.height - image.height * first.width) < 0.02 * image.width * first.height
            )
            if image.width < found[-1][1] and same_shape:
                found.append((page, image.width, image.height))
    except pyvips.Error as problem:
        raise AnnotationError(f"the mask {path.name} cannot be read: {_first_line(problem)}") from problem
    return found


def _read(path: Path, page: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
    try:
        image = pyvips.Image.new_from_file(str(path), page=page, access="random")
        values: NDArray[np.uint8] = image.crop(left, top, width, height)[0].cast("uchar").numpy()
    except pyvips.Error as problem:
        raise AnnotationError(f"the mask {path.name} cannot be read: {_first_line(problem)}") from problem
    return values


def _first_line(problem: Exception) -> str:
    return str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
