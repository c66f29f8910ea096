"""Where on a slide there is tissue. Leans to keeping: what is left out here is never looked at by the detector."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage as ndi

from slides.wsi.morphology import diamond, disc, grown
from slides.wsi.pixels import Mask, Rgb

_FAINTEST_OD = 0.028  # optical density of the green channel above the background: pale fat and stroma reach it
_CLOSING_UM = 60.0  # bridges fat cells (50-100 um across), whose insides are as white as glass
_SPECK_MM2 = 0.004
_INK_OD = 0.25
_BAND_ROWS = 512
_REACH_PX = 4  # of the smoothing (1 px) and of the ink's rim (2 px)


def tissue_mask(rgb: Rgb, um_per_px: float) -> Mask:
    """bool (H, W), true on tissue. `rgb` uint8 (H, W, 3) at about 4 to 32 um per pixel.

    Stain absorbs green most (haematoxylin and eosin both); pen ink absorbs red most (blue, green), or all alike (black).
    """
    return tissue_and_ink_masks(rgb, um_per_px)[0]


def tissue_and_ink_masks(rgb: Rgb, um_per_px: float) -> tuple[Mask, Mask]:
    """(tissue, pen ink), as tissue_mask; what is ink is not tissue, except in gaps that are closed."""
    white = _background(rgb)
    both = _in_bands(rgb, _REACH_PX, lambda band: np.stack(_stained_and_ink(band, white), axis=2))
    return _joined(both[..., 0], um_per_px), both[..., 1]


def _in_bands(image: npt.NDArray[Any], reach: int, act: Callable[[npt.NDArray[Any]], Mask]) -> Mask:
    """`act` on some rows at a time, with `reach` more on both sides, further than it looks: the same in little memory."""
    parts = []
    for top in range(0, image.shape[0], _BAND_ROWS):
        first = max(0, top - reach)
        parts.append(act(image[first : top + _BAND_ROWS + reach])[top - first :][:_BAND_ROWS])
    return np.concatenate(parts) if parts else np.zeros(image.shape[:2], np.bool_)


def _stained_and_ink(rgb: Rgb, white: npt.NDArray[np.float32]) -> tuple[Mask, Mask]:
    smooth = _smooth_density(rgb, white)
    ink = _ink(smooth)
    stained = (smooth[..., 1] > _FAINTEST_OD) & (smooth[..., 1] >= 0.8 * smooth[..., 0])
    stained |= _most(smooth) > 2 * _FAINTEST_OD
    return stained & ~ink, ink


def _smooth_density(rgb: Rgb, white: npt.NDArray[np.float32]) -> np.ndarray:
    smooth: np.ndarray = ndi.uniform_filter(_optical_density(rgb, white), size=(3, 3, 1))
    return smooth


def _background(rgb: Rgb) -> npt.NDArray[np.float32]:
    """Colour of the slide's own glass, which is not always white."""
    bright = _least(rgb) >= 200
    counts = [np.bincount(rgb[..., colour][bright], minlength=256) for colour in range(3)]
    enough = counts[0].sum() > rgb[..., 0].size // 50
    white = [_median(count) for count in counts] if enough else [245.0] * 3
    return np.array(white, np.float32)


def _median(counts: npt.NDArray[np.intp]) -> float:
    """Of values that occur so often: value n `counts[n]` times."""
    upto, last = np.cumsum(counts), int(counts.sum()) - 1
    return float(np.searchsorted(upto, [last // 2 + 1, (last + 1) // 2 + 1]).mean())


def _optical_density(rgb: Rgb, white: npt.NDArray[np.float32]) -> np.ndarray:
    """float32 (H, W, 3), 0 on the background."""
    values = np.arange(256, dtype=np.float32)[:, None]
    of_value = np.maximum(-np.log10((values + 1) / (white + 1)), 0)  # (256, 3): each value is worked out once
    density = np.empty(rgb.shape, np.float32)
    for colour in range(3):
        density[..., colour] = of_value[rgb[..., colour], colour]
    return density


def _most(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(H, W, 3) -> (H, W), as image.max(axis=2), ten times as fast."""
    most: npt.NDArray[Any] = np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])
    return most


def _least(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    least: npt.NDArray[Any] = np.minimum(np.minimum(image[..., 0], image[..., 1]), image[..., 2])
    return least


def _ink(density: np.ndarray) -> Mask:
    """Dense and of no stain's colour: blue and green ink (red absorbed most), black ink (all alike)."""
    red, green = density[..., 0], density[..., 1]
    most, least = _most(density), _least(density)
    strong = most > _INK_OD
    cold = red > 1.25 * green
    black = (least > 0.6) & (most < 1.25 * least)
    mask: Mask = strong & (cold | black)
    return mask | (grown(mask, diamond(2)) & (red > green))


def _joined(mask: Mask, um_per_px: float) -> Mask:
    """Close gaps of fat, drop specks of dust."""
    radius = max(1, round(_CLOSING_UM / um_per_px))
    padded = np.pad(mask, radius)
    widened = _in_bands(padded, radius + 1, lambda band: grown(band, disc(radius)))
    # seen from outside: what is not near to anything that stayed bare
    bare = _in_bands(~widened, radius + 1, lambda band: grown(band, disc(radius)))
    closed = ~bare[radius:-radius, radius:-radius] | mask
    labels, count = ndi.label(closed)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * (um_per_px / 1000) ** 2
    kept = areas >= _SPECK_MM2
    kept[0] = False
    result: Mask = kept[labels]
    return result
