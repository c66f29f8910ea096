"""Mask and boxes judged on composed regions with known lesions, made of tissue and outlines that training never sees."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from analysis.detector.boxes import Level, decode_boxes
from analysis.detector.composing.outlines import load_outlines
from analysis.detector.composing.tissue_pool import PoolTooSmall, build_pools
from analysis.detector.configuration import DetectorConfig
from analysis.detector.network.detector import Detector, NetworkOutput, to_input
from analysis.detector.patch_file import PatchSet
from analysis.detector.reference_data import reference_data_folder
from analysis.detector.training.regions import Region, RegionMaker, make_sheets

REGIONS = 48
SHEET_PX = 1024
SEED = 20_16


def test_regions(config: DetectorConfig, patches: PatchSet, hard: PatchSet) -> list[Region]:
    """The same regions for every network that reads at this spacing; of each scanner that has tissue enough."""
    rng = np.random.default_rng(SEED)
    sheets = []
    for stain in np.unique(patches.stain):
        try:
            sheets.append(make_sheets(build_pools(patches, hard, stain=str(stain)), side=SHEET_PX, rng=rng))
        except PoolTooSmall:
            continue
    if not sheets:
        raise PoolTooSmall("the test fold has too few patches to compose regions from")
    folder = reference_data_folder(config.data.folder)
    outlines = load_outlines(folder / config.data.lesion_outlines, split="valid")
    train, patch_mpp = config.train, config.data.patch_mpp
    side = train.region_px if train.mpp == 1.0 else min(SHEET_PX, round(train.region_px * train.mpp / patch_mpp))
    maker = RegionMaker(sheets, outlines, side=side, mpp=patch_mpp, output_side=train.region_px)
    return [maker.make(rng) for _ in range(REGIONS)]


def judge_regions(network: Detector, regions: list[Region]) -> dict[str, Any]:
    """`dice` of the mask at 0.5 over all known cells, and `box_iou`: mean over lesions of the best box's IoU.

    Lesions that touch the edge have no whole box and are left out of `box_iou`; a lesion without any box counts 0.
    A network that draws none has no `box_iou`.
    """
    both = found = there = 0
    overlaps: list[float] = []
    for region in regions:
        with torch.inference_mode():
            out = network(to_input(region.rgb[None], device=network.device))
            p = torch.sigmoid(out.tumour_logit[0, 0]).cpu().numpy()
            boxes = decode_boxes(_levels(out))
        stride = out.dense_stride
        tumour, ignore = (a[stride // 2 :: stride, stride // 2 :: stride] for a in (region.instance > 0, region.ignore))
        yes = (p >= 0.5) & ~ignore
        tumour = tumour & ~ignore
        both, found, there = both + int((yes & tumour).sum()), found + int(yes.sum()), there + int(tumour.sum())
        overlaps += [_best_iou(boxes, box) for box in _whole_boxes(region)]
    return {
        "regions": len(regions),
        "dice": round(2 * both / (found + there), 4) if found + there else None,
        "lesions": len(overlaps),
        "box_iou": round(float(np.mean(overlaps)), 4) if overlaps and network.config.heads != "mask" else None,
    }


def _levels(out: NetworkOutput) -> list[Level]:
    return [
        (
            level.stride,
            torch.sqrt(torch.sigmoid(level.class_logit[0, 0]) * torch.sigmoid(level.quality_logit[0, 0])).cpu().numpy(),
            level.box[0].cpu().numpy(),
        )
        for level in out.levels
    ]


def _whole_boxes(region: Region) -> list[tuple[int, int, int, int]]:
    """left, top, right, bottom in px of each lesion that does not touch the edge."""
    height, width = region.instance.shape
    boxes = []
    for found in find_objects(region.instance):
        if found is None:
            continue
        rows, cols = found
        if rows.start > 0 and cols.start > 0 and rows.stop < height and cols.stop < width:
            boxes.append((cols.start, rows.start, cols.stop, rows.stop))
    return boxes


def _best_iou(boxes: NDArray[np.float32], wanted: tuple[int, int, int, int]) -> float:
    """boxes (n, 5): left, top, right, bottom, score."""
    if not len(boxes):
        return 0.0
    left, top, right, bottom = wanted
    width = np.minimum(boxes[:, 2], right) - np.maximum(boxes[:, 0], left)
    height = np.minimum(boxes[:, 3], bottom) - np.maximum(boxes[:, 1], top)
    inner = np.clip(width, 0, None) * np.clip(height, 0, None)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    union = area + (right - left) * (bottom - top) - inner
    return float((inner / np.maximum(union, 1e-6)).max())
