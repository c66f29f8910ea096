"""Pools of alike real patches from which tissue is quilted: lymphoid, tumour, other normal, fat."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis.detector.patch_file import PatchSet
from analysis.detector.scanner_colour import hue_of

MIN_POOL = 4
_SHARP_SHARE = 0.68
"""The blurred third of a pool stands out as grey squares in a quilt."""
_SMALL_POOL = 60
_DARKER_SHARE = 0.55
"""The darker label-0 patches are lymphoid tissue; the paler ones are germinal centres, sinuses, capsule."""
WIDENED_BELOW = 40
"""A pool with fewer patches than this may be widened: see `build_pools`."""
_WIDE_SHARP_SHARE, _WIDE_DARKER_SHARE = 0.85, 0.75
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
    ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the patches in each pool, so that a slide can say what it is made of."""


def build_pools(patches: PatchSet, hard_negatives: PatchSet, *, stain: str, widen: bool = False) -> TissuePools:
    """Selection after a look at the patches: tumour needs little white, fat much, lymphoid is the darker half.

    `widen` takes more of the blurred and the paler patches where a pool is thin: variety before beauty.
    Raises PoolTooSmall.
    """
    own = patches.stain == stain
    # both scanners serve, the other's in this one's colour: one alone has hardly any
    fat = (patches.label == 0) & (patches.white > 0.55) & (patches.white < 0.97)
    chosen = {
        "lymphoid": np.flatnonzero(darker_half(patches, stain=stain, widen=widen)),
        "tumour": np.flatnonzero(own & (patches.label == 1) & (patches.white < 0.08)),
        "other_normal": np.flatnonzero((hard_negatives.stain == stain) & (hard_negatives.white < 0.25)),
        "fat": np.flatnonzero(fat),
    }
    pools, ids = {}, {}
    for name, indices in chosen.items():
        source = hard_negatives if name == "other_normal" else patches
        rgb = source.rgb[indices]
        kept = _sharp(rgb, widen=widen)
        if name == "fat":
            pools[name] = _fat_of_one_scanner(rgb[kept], own=own[indices[kept]])
        else:
            pools[name], near = _prepare(rgb[kept], near_median=0.6 if name == "lymphoid" else 0.8, widen=widen)
            kept = kept[near]
        ids[name] = tuple(str(i) for i in source.ids[indices[kept]])
        if len(kept) < MIN_POOL:
            raise PoolTooSmall(f"only {len(kept)} usable {name} patches of stain {stain!r}; {MIN_POOL} are needed")
    return TissuePools(stain=stain, ids=ids, **pools)


def darker_half(patches: PatchSet, *, stain: str, widen: bool = False) -> NDArray[np.bool_]:
    """Which patches are lymphoid tissue by their darkness."""
    lymph = (patches.stain == stain) & (patches.label == 0) & (patches.white < 0.12)
    if lymph.sum() >= MIN_POOL:
        darkness = patches.rgb.mean(axis=(1, 2, 3))
        share = _WIDE_DARKER_SHARE if widen and lymph.sum() < 2 * WIDENED_BELOW else _DARKER_SHARE
        lymph &= darkness <= np.quantile(darkness[lymph], share)
    return lymph


def pale_normal_pool(
    patches: PatchSet, *, stain: str, widen: bool = False
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """(n, side, side, 3) of the paler label-0 patches, and their ids. Raises PoolTooSmall."""
    lymph = (patches.stain == stain) & (patches.label == 0) & (patches.white < 0.12)
    indices = np.flatnonzero(lymph & ~darker_half(patches, stain=stain, widen=widen))
    kept = _sharp(patches.rgb[indices], widen=widen)
    rgb, near = _prepare(patches.rgb[indices[kept]], near_median=0.8, widen=widen)
    if len(rgb) < MIN_POOL:
        raise PoolTooSmall(f"only {len(rgb)} usable paler normal patches of stain {stain!r}; {MIN_POOL} are needed")
    return rgb, tuple(str(i) for i in patches.ids[indices[kept[near]]])


def _sharp(rgb: NDArray[np.uint8], *, widen: bool) -> NDArray[np.intp]:
    """Which of (n, side, side, 3) are sharp enough."""
    if len(rgb) < MIN_POOL:
        return np.arange(len(rgb))
    share = _WIDE_SHARP_SHARE if widen and len(rgb) < WIDENED_BELOW else _SHARP_SHARE
    sharp = _sharpness(rgb)
    return np.flatnonzero(sharp >= np.quantile(sharp, 1 - share))


def _fat_of_one_scanner(rgb: NDArray[np.uint8], *, own: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """All on one glass, and with as much blue for their green as the `own` (n,) have in the middle."""
    hue = np.array([hue_of(one) for one in rgb])
    out = _on_one_glass(rgb)
    known = ~np.isnan(hue)
    if not (known & own).any():
        return out
    glass = optical_density(np.array(GLASS_RGB, np.uint8))
    density = optical_density(out[known]) - glass
    density[..., 2] *= (np.median(hue[known & own]) / hue[known])[:, None, None]
    out[known] = from_optical_density(density + glass)
    return out


def _on_one_glass(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brings the empty glass of each patch to one colour; otherwise grey squares show between the fat cells."""
    if not len(rgb):
        return rgb
    glass = np.percentile(rgb, 90, axis=(1, 2), keepdims=True)
    return np.clip(rgb * (np.array(GLASS_RGB) / np.maximum(glass, 1)) + 0.5, 0, 255).astype(np.uint8)


def _prepare(rgb: NDArray[np.uint8], *, near_median: float, widen: bool) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """The patches of median colour, drawn towards it, and which they are; of a small pool all colours stay, for variety."""
    if len(rgb) < (2 * WIDENED_BELOW if widen else _SMALL_POOL):
        near_median = 1.0
    if not len(rgb):
        return rgb, np.arange(0)
    density = optical_density(rgb)
    mean, spread = density.mean(axis=(1, 2)), density.std(axis=(1, 2))
    centre = np.median(mean, axis=0)
    distance = np.linalg.norm(mean - centre, axis=1)
    near = np.flatnonzero(distance <= np.quantile(distance, near_median))
    mean, spread, density = mean[near], spread[near], density[near]
    new_mean = mean + _MEAN_PULL * (np.median(mean, axis=0) - mean)
    new_spread = spread + _SPREAD_PULL * (np.median(spread, axis=0) - spread)
    scale = new_spread / np.maximum(spread, 1e-3)
    out = (density - mean[:, None, None]) * scale[:, None, None] + new_mean[:, None, None]
    return from_optical_density(out), near


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
