"""Where on a slide there is tissue. Leans to keeping: what is left out here is never looked at by the detector."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage as ndi
from PIL import Image

from slides.wsi.morphology import diamond, disc, grown
from slides.wsi.pixels import Mask, Rgb

Whole = npt.NDArray[np.int32]

_FAINTEST_OD = 0.028  # optical density of the green channel above the background: pale fat and stroma reach it
_CLOSING_UM = 60.0  # bridges fat cells (50-100 um across), whose insides are as white as glass
_SPECK_MM2 = 0.004
_INK_OD = 0.25
_BLACK_OD = 0.6
_BRIGHT = 200
_STEPS = 1 << 16
"""Of an optical density of 1."""
_BAND_ROWS = 96
"""Few enough that a band's numbers stay in the processor's own memory."""
_MASK_BAND_ROWS = 512
_REACH_PX = 4  # of the smoothing (1 px) and of the ink's rim (2 px)


def tissue_mask(rgb: Rgb, um_per_px: float) -> Mask:
    """bool (H, W), true on tissue. `rgb` uint8 (H, W, 3) at about 4 to 32 um per pixel.

    Stain absorbs green most (haematoxylin and eosin both); pen ink absorbs red most (blue, green), or all alike (black).
    """
    return tissue_and_ink_masks(rgb, um_per_px)[0]


def tissue_and_ink_masks(rgb: Rgb, um_per_px: float) -> tuple[Mask, Mask]:
    """(tissue, pen ink), as tissue_mask; what is ink is not tissue, except in gaps that are closed."""
    tables = _density_tables(_background(rgb))
    both = _in_bands(rgb, _BAND_ROWS, _REACH_PX, lambda band: np.stack(_stained_and_ink(band, tables)))
    return _joined(both[0], um_per_px), both[1]


def _in_bands(image: npt.NDArray[Any], rows: int, reach: int, act: Callable[[npt.NDArray[Any]], Mask]) -> Mask:
    """`act` on `rows` at a time, with `reach` more on both sides, further than it looks: the same in little memory. It
    answers with (..., rows, columns)."""
    parts = []
    for top in range(0, image.shape[0], rows):
        first = max(0, top - reach)
        done = act(image[first : top + rows + reach])
        parts.append(done[..., top - first : top - first + rows, :])
    return np.concatenate(parts, axis=-2) if parts else np.zeros(image.shape[:2], np.bool_)


def _stained_and_ink(rgb: Rgb, tables: Whole) -> tuple[Mask, Mask]:
    """In whole numbers, so that a picture is masked alike whichever way up it lies."""
    red, green, blue = (_sum_of_nine(np.take(table, rgb[..., n])) for n, table in enumerate(tables))
    most = np.maximum(np.maximum(red, green), blue)
    ink = _ink(red, green, blue, most)
    stained = (green > _in_steps(_FAINTEST_OD)) & (10 * green >= 8 * red)
    stained |= most > _in_steps(2 * _FAINTEST_OD)
    return stained & ~ink, ink


def _in_steps(density: float) -> int:
    """Of a sum of nine."""
    return round(density * 9 * _STEPS)


def _density_tables(white: npt.NDArray[np.float32]) -> Whole:
    """(3, 256): optical density of each value of each colour in steps, 0 on the background."""
    values = np.arange(256, dtype=np.float64)[None, :]
    density = np.maximum(-np.log10((values + 1) / (white[:, None] + 1)), 0)
    return np.rint(density * _STEPS).astype(np.int32)


def _sum_of_nine(values: Whole) -> Whole:
    """Of each pixel and its neighbours; beyond the edges the outermost are repeated."""
    down = values.copy()
    down[1:] += values[:-1]
    down[:-1] += values[1:]
    down[0] += values[0]
    down[-1] += values[-1]
    out = down.copy()
    out[:, 1:] += down[:, :-1]
    out[:, :-1] += down[:, 1:]
    out[:, 0] += down[:, 0]
    out[:, -1] += down[:, -1]
    return out


def _background(rgb: Rgb) -> npt.NDArray[np.float32]:
    """Colour of the slide's own glass, which is not always white."""
    bright = (rgb[..., 0] >= _BRIGHT) & (rgb[..., 1] >= _BRIGHT) & (rgb[..., 2] >= _BRIGHT)
    counts = np.array(Image.fromarray(rgb).histogram(Image.fromarray(bright)), np.intp).reshape(3, 256)
    enough = counts[0].sum() > rgb[..., 0].size // 50
    white = [_median(count) for count in counts] if enough else [245.0] * 3
    return np.array(white, np.float32)


def _median(counts: npt.NDArray[np.intp]) -> float:
    """Of values that occur so often: value n `counts[n]` times."""
    upto, last = np.cumsum(counts), int(counts.sum()) - 1
    return float(np.searchsorted(upto, [last // 2 + 1, (last + 1) // 2 + 1]).mean())


def _ink(red: Whole, green: Whole, blue: Whole, most: Whole) -> Mask:
    """Dense and of no stain's colour: blue and green ink (red absorbed most), black ink (all alike)."""
    strong = most > _in_steps(_INK_OD)
    if not strong.any():
        return strong
    least = np.minimum(np.minimum(red, green), blue)
    cold = 4 * red > 5 * green
    black = (least > _in_steps(_BLACK_OD)) & (4 * most < 5 * least)
    mask: Mask = strong & (cold | black)
    return mask | (grown(mask, diamond(2)) & (red > green)) if mask.any() else mask


def _joined(mask: Mask, um_per_px: float) -> Mask:
    """Close gaps of fat, drop specks of dust."""
    radius = max(1, round(_CLOSING_UM / um_per_px))
    padded = np.pad(mask, radius)
    widened = _in_bands(padded, _MASK_BAND_ROWS, radius + 1, lambda band: grown(band, disc(radius)))
    # seen from outside: what is not near to anything that stayed bare
    bare = _in_bands(~widened, _MASK_BAND_ROWS, radius + 1, lambda band: grown(band, disc(radius)))
    closed = ~bare[radius:-radius, radius:-radius] | mask
    labels, count = ndi.label(closed)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * (um_per_px / 1000) ** 2
    kept = areas >= _SPECK_MM2
    kept[0] = False
    result: Mask = kept[labels]
    return result
