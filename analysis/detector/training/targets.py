"""What each output of the network should say about a region with known lesions.

Coordinates are input pixels; a cell (row, col) of a level with stride s looks at the point ((col + 0.5) s, (row + 0.5) s).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor

from analysis.detector.configuration import PYRAMID_STRIDES
from analysis.detector.training.regions import Region

LEVEL_RANGES = ((0.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0))
"""Which level owns a box, by the longest of its four sides from the cell; larger lesions live in the mask alone."""
CENTRE_RADIUS = 1.5
"""Cells this many strides from the lesion's centre (moved into the lesion) carry its box."""
DISTANCE_SCALE_PX = 32.0
WEIGHT_ONE_PX2 = 640.0
"""A lesion of this area, about 30 px across, weighs 1 a cell."""


@dataclass
class LevelTarget:
    class_target: Tensor  # (B, h, w) 1 tumour, 0 normal, -1 no loss
    box_cell: Tensor  # (B, h, w) bool: carries a box
    outside_level: Tensor  # (B, h, w) bool: tumour whose box belongs to another level (quality should be 0)
    box: Tensor  # (B, 4, h, w) left, top, right, bottom
    cut: Tensor  # (B, 4, h, w) bool: that side of the lesion lies outside the region, so its distance is unknown


@dataclass
class RegionTarget:
    mask: Tensor  # (B, H/s, W/s) 0..1, s the stride of the dense branch
    mask_weight: Tensor  # (B, H/s, W/s) 0 = no loss; large lesions weigh less per pixel
    distance: Tensor  # (B, H/s, W/s)
    levels: list[LevelTarget]
    box_cells: int  # over all levels: cells that carry a box
    lesion_cells: int  # cells of lesions
    known_cells: int  # cells that carry a class loss


def cell_centres(n: int, stride: int) -> NDArray[np.float32]:
    return (np.arange(n, dtype=np.float32) + 0.5) * stride


def build_targets(regions: list[Region], *, dense_stride: int) -> RegionTarget:
    masks, weights, distances = zip(*(_dense(region, dense_stride) for region in regions), strict=True)
    levels = []
    for stride, owned in zip(PYRAMID_STRIDES, LEVEL_RANGES, strict=True):
        parts = [_level(region, stride, owned) for region in regions]
        stacked = [torch.from_numpy(np.stack(column)) for column in zip(*parts, strict=True)]
        levels.append(LevelTarget(*stacked))
    return RegionTarget(
        mask=torch.from_numpy(np.stack(masks)),
        mask_weight=torch.from_numpy(np.stack(weights)),
        distance=torch.from_numpy(np.stack(distances)),
        levels=levels,
        box_cells=sum(int(level.box_cell.sum()) for level in levels),
        lesion_cells=sum(int((level.class_target == 1).sum()) for level in levels),
        known_cells=sum(int((level.class_target >= 0).sum()) for level in levels),
    )


def _block_mean(array: NDArray[np.generic], stride: int) -> NDArray[np.float32]:
    h, w = array.shape[0] // stride, array.shape[1] // stride
    blocks = array[: h * stride, : w * stride].astype(np.float32).reshape(h, stride, w, stride)
    mean: NDArray[np.float32] = blocks.mean(axis=(1, 3))
    return mean


def _dense(region: Region, stride: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    lesion = region.instance > 0
    mask = _block_mean(lesion, stride)
    weight = np.ones_like(mask)
    small = region.instance[stride // 2 :: stride, stride // 2 :: stride]
    for number in np.unique(small[small > 0]):
        cells = small == number
        # area^-0.5, so that a 0.3 mm focus counts against a large one
        area = cells.sum() * stride**2
        weight[cells] = float(np.clip((WEIGHT_ONE_PX2 / area) ** 0.5, 0.3, 3.0))
    weight[_block_mean(region.ignore, stride) > 0.5] = 0.0
    inside = distance_transform_edt(lesion) if lesion.any() else np.zeros(lesion.shape)
    distance = np.clip(_block_mean(inside, stride) / DISTANCE_SCALE_PX, 0, 1)
    return mask, weight, distance.astype(np.float32)


def _level(region: Region, stride: int, owned: tuple[float, float]) -> tuple[NDArray[np.generic], ...]:
    side_y, side_x = region.instance.shape
    h, w = side_y // stride, side_x // stride
    ys, xs = cell_centres(h, stride), cell_centres(w, stride)
    share = _block_mean(region.instance > 0, stride)
    target = np.where(share > 0.5, 1, np.where(share < 0.05, 0, -1)).astype(np.int8)
    target[(target == 0) & (_block_mean(region.ignore, stride) > 0.5)] = -1
    box_cell = np.zeros((h, w), bool)
    box = np.ones((4, h, w), np.float32)
    cut = np.zeros((4, h, w), bool)
    for number, slices in enumerate(find_objects(region.instance), start=1):
        if slices is None:
            continue
        top, bottom, left, right = slices[0].start, slices[0].stop, slices[1].start, slices[1].stop
        sides = np.stack(
            np.broadcast_arrays(xs[None] - left, ys[:, None] - top, right - xs[None], bottom - ys[:, None])
        )
        longest = sides.max(axis=0)
        cy, cx = _centre_inside(region.instance == number, slices)
        near = np.maximum(np.abs(ys[:, None] - cy), np.abs(xs[None] - cx)) <= CENTRE_RADIUS * stride
        mine = near & (sides.min(axis=0) > 0) & (longest > owned[0]) & (longest <= owned[1])
        box_cell |= mine
        target[mine] = 1
        box[:, mine] = sides[:, mine]
        touches = np.array([left == 0, top == 0, right == side_x, bottom == side_y])
        cut[:, mine] = touches[:, None]
    outside = (target == 1) & ~box_cell
    return target, box_cell, outside, box, cut


def _centre_inside(mask: NDArray[np.bool_], slices: tuple[slice, slice]) -> tuple[float, float]:
    """The lesion pixel nearest to the centre of mass: the centre itself may fall into a hole or a bay."""
    ys, xs = np.nonzero(mask[slices])
    nearest = int(((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2).argmin())
    return float(ys[nearest] + slices[0].start), float(xs[nearest] + slices[1].start)
