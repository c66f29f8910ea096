"""Pools of alike real patches from which tissue is quilted: lymphoid, tumour, other normal, fat."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.detector.patch_file import PatchSet

MIN_POOL = 4
_SHARP_SHARE = 0.68
"""The blurred third of a pool stands out as grey squares in a quilt."""
_SMALL_POOL = 60
GLASS_RGB = (244, 243, 244)
_MEAN_PULL, _SPREAD_PULL = 0.85, 0.70
"""How far a patch's colour is drawn to the median of its pool; without it the patchwork is visible."""


class PoolTooSmall(ValueError):
    """Too few patches of one kind to compose tissue; the message says which."""


@dataclass(frozen=True)
class TissuePools:
    """(n, side, side, 3) uint8 each, one scanner (`stain`)."""

    stain: str
    lymphoid: NDArray[np.uint8]
    tumour: NDArray[np.uint8]
    other_normal: NDArray[np.uint8]
    fat: NDArray[np.uint8]


def build_pools(patches: PatchSet, hard_negatives: PatchSet, *, stain: str) -> TissuePools:
    """Selection after a look at the patches: tumour needs little white, fat much, lymphoid is the darker half."""
    own = patches.stain == stain
    darkness = patches.rgb.mean(axis=(1, 2, 3))
    lymph = own & (patches.label == 0) & (patches.white < 0.12)
    if lymph.sum() >= MIN_POOL:
        lymph &= darkness <= np.quantile(darkness[lymph], 0.55)
    tumour = own & (patches.label == 1) & (patches.white < 0.08)
    # fat is nearly colourless: both scanners serve, and one alone has hardly any
    fat = (patches.label == 0) & (patches.white > 0.55) & (patches.white < 0.97)
    other = (hard_negatives.stain == stain) & (hard_negatives.white < 0.25)
    pools = {
        "lymphoid": _prepare(patches.rgb[lymph], near_median=0.6),
        "tumour": _prepare(patches.rgb[tumour], near_median=0.8),
        "other_normal": _prepare(hard_negatives.rgb[other], near_median=0.8),
        "fat": _on_one_glass(_sharp(patches.rgb[fat])),
    }
    for name, pool in pools.items():
        if len(pool) < MIN_POOL:
            raise PoolTooSmall(f"only {len(pool)} usable {name} patches of stain {stain!r}; {MIN_POOL} are needed")
    return TissuePools(stain=stain, **pools)


def _sharp(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if len(rgb) < MIN_POOL:
        return rgb
    sharp = _sharpness(rgb)
    return rgb[sharp >= np.quantile(sharp, 1 - _SHARP_SHARE)]


def _on_one_glass(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brings the empty glass of each patch to one colour; otherwise grey squares show between the fat cells."""
    if not len(rgb):
        return rgb
    glass = np.percentile(rgb, 90, axis=(1, 2), keepdims=True)
    return np.clip(rgb * (np.array(GLASS_RGB) / np.maximum(glass, 1)) + 0.5, 0, 255).astype(np.uint8)


def _prepare(rgb: NDArray[np.uint8], *, near_median: float) -> NDArray[np.uint8]:
    """The sharp patches of median colour, drawn towards it; of a small pool all colours stay, for variety."""
    rgb = _sharp(rgb)
    if len(rgb) < _SMALL_POOL:
        near_median = 1.0
    if not len(rgb):
        return rgb
    density = optical_density(rgb)
    mean, spread = density.mean(axis=(1, 2)), density.std(axis=(1, 2))
    centre = np.median(mean, axis=0)
    distance = np.linalg.norm(mean - centre, axis=1)
    near = distance <= np.quantile(distance, near_median)
    mean, spread, density = mean[near], spread[near], density[near]
    new_mean = mean + _MEAN_PULL * (np.median(mean, axis=0) - mean)
    new_spread = spread + _SPREAD_PULL * (np.median(spread, axis=0) - spread)
    scale = new_spread / np.maximum(spread, 1e-3)
    out = (density - mean[:, None, None]) * scale[:, None, None] + new_mean[:, None, None]
    return from_optical_density(out)


def _sharpness(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Standard deviation of the Laplacian of the grey image."""
    grey = rgb.astype(np.float32).mean(axis=-1)
    lap = 4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    spread: NDArray[np.float32] = lap.std(axis=(1, 2)).astype(np.float32)
    return spread


def optical_density(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    density: NDArray[np.float32] = -np.log((rgb.astype(np.float32) + 1.0) / 256.0)
    return density


def from_optical_density(density: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(256.0 * np.exp(-density) - 1.0 + 0.5, 0, 255).astype(np.uint8)
