"""Where on a slide there is tissue. Leans to keeping: what is left out here is never looked at by the detector."""

import numpy as np
import scipy.ndimage as ndi

from slides.wsi.pixels import Mask, Rgb

_FAINTEST_OD = 0.028  # optical density of the green channel above the background: pale fat and stroma reach it
_CLOSING_UM = 60.0  # bridges fat cells (50-100 um across), whose insides are as white as glass
_SPECK_MM2 = 0.004
_INK_OD = 0.25


def tissue_mask(rgb: Rgb, um_per_px: float) -> Mask:
    """bool (H, W), true on tissue. `rgb` uint8 (H, W, 3) at about 4 to 32 um per pixel.

    Stain absorbs green most (haematoxylin and eosin both); pen ink absorbs red most (blue, green), or all alike (black).
    """
    density = _optical_density(rgb)
    smooth = ndi.uniform_filter(density, size=(3, 3, 1))
    stained = (smooth[..., 1] > _FAINTEST_OD) & (smooth[..., 1] >= 0.8 * smooth[..., 0])
    stained |= smooth.max(axis=2) > 2 * _FAINTEST_OD
    return _joined(stained & ~_ink(smooth), um_per_px)


def _optical_density(rgb: Rgb) -> np.ndarray:
    """float32 (H, W, 3), 0 on the slide's own background (glass is not always white)."""
    bright = rgb[rgb.min(axis=2) >= 200]
    white = np.median(bright, axis=0) if len(bright) > rgb[..., 0].size // 50 else np.full(3, 245.0)
    ratio = (rgb.astype(np.float32) + 1) / (white.astype(np.float32) + 1)
    density: np.ndarray = np.maximum(-np.log10(ratio), 0)
    return density


def _ink(density: np.ndarray) -> Mask:
    """Dense and of no stain's colour: blue and green ink (red absorbed most), black ink (all alike)."""
    red, green = density[..., 0], density[..., 1]
    strong = density.max(axis=2) > _INK_OD
    cold = red > 1.25 * green
    black = (density.min(axis=2) > 0.6) & (density.max(axis=2) < 1.25 * density.min(axis=2))
    mask: Mask = strong & (cold | black)
    return mask | (ndi.binary_dilation(mask, iterations=2) & (red > green))


def _joined(mask: Mask, um_per_px: float) -> Mask:
    """Close gaps of fat, drop specks of dust."""
    radius = max(1, round(_CLOSING_UM / um_per_px))
    padded = np.pad(mask, radius)
    grown = ndi.distance_transform_edt(~padded) <= radius
    closed = (ndi.distance_transform_edt(grown) > radius)[radius:-radius, radius:-radius] | mask
    labels, count = ndi.label(closed)
    areas = np.bincount(labels.ravel(), minlength=count + 1) * (um_per_px / 1000) ** 2
    kept = areas >= _SPECK_MM2
    kept[0] = False
    result: Mask = kept[labels]
    return result
