"""Composed training regions: real tissue under real lesion outlines, with exact masks.

Large sheets of each tissue are quilted once; a region is then two or three crops blended along an outline, which
costs milliseconds. Some regions carry decoys: an outline filled with other normal tissue, blended in the same way,
so that the blend itself says nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from analysis.detector.composing.edges import soft_edge
from analysis.detector.composing.outlines import LesionOutline, lesion_mask, smooth_blob
from analysis.detector.composing.quilting import quilt
from analysis.detector.composing.tissue_pool import GLASS_RGB, TissuePools
from analysis.detector.training.augmentation import rescale
from analysis.detector.turning import turn

MIN_LESION_UM, MAX_LESION_UM = 40.0, 2500.0
BASE_SHARES = {"lymphoid": 0.55, "other_normal": 0.2, "fat": 0.25}
"""A quarter fat: cells and vessels between fat cells were half of all false finds when it was a tenth."""
EDGE_SHARE, FAT_BESIDE_NODE = 0.35, 0.6
BLUR_SHARE = 0.12
BLUR_SIGMA_PX = (1.5, 5.0)


@dataclass(frozen=True)
class Region:
    rgb: NDArray[np.uint8]  # (s, s, 3)
    instance: NDArray[np.int16]  # (s, s) 0 = normal, k = lesion k
    ignore: NDArray[np.bool_]  # (s, s) the blended rim: neither


@dataclass(frozen=True)
class Sheets:
    lymphoid: NDArray[np.uint8]
    tumour: NDArray[np.uint8]
    other_normal: NDArray[np.uint8]
    fat: NDArray[np.uint8]


def make_sheets(pools: TissuePools, *, side: int, rng: np.random.Generator) -> Sheets:
    """Sheets of (side, side, 3)."""
    make = {name: quilt(getattr(pools, name), height=side, width=side, rng=rng) for name in Sheets.__dataclass_fields__}
    return Sheets(**make)


def resampled(region: Region, *, side: int) -> Region:
    """The same field in (side, side) px."""
    have = len(region.rgb)
    if side == have:
        return region
    rgb = rescale(region.rgb[None], factor=side / have, side=side)[0]
    nearest = ((np.arange(side) + 0.5) * have / side).astype(int)
    grid = np.ix_(nearest, nearest)
    return Region(rgb=rgb, instance=region.instance[grid], ignore=region.ignore[grid])


class RegionMaker:
    def __init__(
        self,
        sheets: list[Sheets],
        outlines: list[LesionOutline],
        *,
        side: int,
        mpp: float,
        output_side: int | None = None,
    ) -> None:
        """Regions of `side` px at `mpp`, resampled to `output_side` px."""
        self.sheets, self.outlines, self.side, self.mpp = sheets, outlines, side, mpp
        self.output_side = output_side or side

    def make(self, rng: np.random.Generator) -> Region:
        sheets = self.sheets[int(rng.integers(len(self.sheets)))]
        rgb = self._base(sheets, rng)
        instance = np.zeros(rgb.shape[:2], np.int16)
        rim = np.zeros(rgb.shape[:2], bool)
        if rng.random() < 0.45:
            filling = sheets.other_normal if rng.random() < 0.7 else sheets.lymphoid
            self._lay(rgb, self._place(rng), self._crop(filling, rng), rng)
        lesions = int(rng.choice([0, 1, 2, 3], p=[0.25, 0.5, 0.15, 0.1]))
        for number in range(1, lesions + 1):
            mask = self._place(rng)
            if lesions > 1 and (mask & (gaussian_filter((instance > 0).astype(np.float32), 6) > 0.01)).any():
                continue
            weight = self._lay(rgb, mask, self._crop(sheets.tumour, rng), rng)
            instance[weight > 0.5] = number
            rim |= (weight > 0.1) & (weight < 0.9)
        if rng.random() < BLUR_SHARE:
            rim |= self._defocus(rgb, rng) & (instance > 0)  # nobody is asked to see a lesion there
        return resampled(Region(rgb=rgb, instance=instance, ignore=rim), side=self.output_side)

    def _base(self, sheets: Sheets, rng: np.random.Generator) -> NDArray[np.uint8]:
        kind = str(rng.choice(list(BASE_SHARES), p=list(BASE_SHARES.values())))
        rgb = self._crop(getattr(sheets, kind), rng).copy()
        if rng.random() < EDGE_SHARE:  # the edge of a node: fat or bare glass beside it
            blob = smooth_blob(height=2 * self.side, width=2 * self.side, roughness=0.2, rng=rng)
            y, x = rng.integers(0, self.side, 2)
            outside = ~blob[y : y + self.side, x : x + self.side]
            glass = np.broadcast_to(np.array(GLASS_RGB, np.uint8), rgb.shape)
            self._lay(rgb, outside, self._crop(sheets.fat, rng) if rng.random() < FAT_BESIDE_NODE else glass, rng)
        return rgb

    def _defocus(self, rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.bool_]:
        """Blur some part of the region, in place; returns where."""
        blob = smooth_blob(height=2 * self.side, width=2 * self.side, roughness=0.3, rng=rng)
        y, x = rng.integers(0, self.side, 2)
        sigma = float(rng.uniform(*BLUR_SIGMA_PX))
        soft = gaussian_filter(rgb.astype(np.float32), (sigma, sigma, 0))
        blurred = np.clip(soft + 0.5, 0, 255).astype(np.uint8)
        return self._lay(rgb, blob[y : y + self.side, x : x + self.side], blurred, rng) > 0.1

    def _crop(self, sheet: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        y, x = rng.integers(0, len(sheet) - self.side + 1, 2)
        return turn(sheet[y : y + self.side, x : x + self.side], int(rng.integers(8)))  # type: ignore[return-value]

    def _place(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """One outline of a random size (log-uniform) somewhere over the region."""
        outline = self.outlines[int(rng.integers(len(self.outlines)))]
        longest = float(np.exp(rng.uniform(np.log(MIN_LESION_UM), np.log(MAX_LESION_UM))))
        mask = lesion_mask(outline, longest_um=longest, mpp=self.mpp, rng=rng)
        ys, xs = np.nonzero(mask)
        out = np.zeros((self.side, self.side), bool)
        if not len(ys):
            return out
        anchor = int(rng.integers(len(ys)))  # this pixel of the lesion falls inside the region
        y0, x0 = (rng.integers(self.side // 8, self.side * 7 // 8, 2) - np.array([ys[anchor], xs[anchor]])).tolist()
        ty, tx = max(y0, 0), max(x0, 0)
        by, bx = min(y0 + mask.shape[0], self.side), min(x0 + mask.shape[1], self.side)
        out[ty:by, tx:bx] = mask[ty - y0 : by - y0, tx - x0 : bx - x0]
        return out

    @staticmethod
    def _lay(
        rgb: NDArray[np.uint8], mask: NDArray[np.bool_], filling: NDArray[np.uint8], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        weight = soft_edge(mask, rng=rng)
        mixed = rgb + weight[..., None] * (filling.astype(np.float32) - rgb)
        rgb[:] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
        return weight
