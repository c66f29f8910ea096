"""Score of a patch: the network's word on the centre, from the dense branch and the class tower together."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.detector.configuration import DetectorConfig
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.training.augmentation import coarser, rescale
from analysis.detector.training.losses import patch_logits
from analysis.detector.turning import WAYS, turn

CENTRE_SHARE = 1 / 3
"""The label speaks of the central third of a patch (32 of 96 px)."""
PAD_PX = 128
"""Patches are mirrored to at least this side: tissue, not a black frame, surrounds the centre."""


def score_turned(
    network: Detector,
    rgb: NDArray[np.uint8],
    *,
    patch_mpp: float,
    mpp: float,
    ways: Sequence[int] = WAYS,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> NDArray[np.float64]:
    """As `score_patches`: the mean (n,) over the ways up."""
    scores = np.zeros(len(rgb))
    for number, way in enumerate(ways):
        turned = np.stack([turn(patch, way) for patch in rgb]) if len(rgb) else rgb
        scores += score_patches(
            network,
            turned,
            patch_mpp=patch_mpp,
            mpp=mpp,
            on_progress=lambda fraction, number=number: on_progress((number + fraction) / len(ways)),  # type: ignore[misc]
        ) / len(ways)
    return scores


def score_coarse_patches(
    network: Detector, rgb: NDArray[np.uint8], *, config: DetectorConfig, mpp: float
) -> NDArray[np.float32]:
    """As `score_patches`, of patches at `train.coarse_mpp` as the training showed them: enlarged to `mpp`, or as they are."""
    train, patch_mpp = config.train, config.data.patch_mpp
    if train.coarse_enlarged:
        return score_patches(network, rgb, patch_mpp=patch_mpp, mpp=mpp, pixels_mpp=train.coarse_mpp)
    return score_patches(network, rgb, patch_mpp=patch_mpp, mpp=train.coarse_mpp)


def score_patches(
    network: Detector,
    rgb: NDArray[np.uint8],
    *,
    patch_mpp: float,
    mpp: float,
    pixels_mpp: float = 0.0,
    batch: int = 64,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> NDArray[np.float32]:
    """rgb (n, s, s, 3) at `patch_mpp`, read at `mpp` -> probability (n,). `pixels_mpp`: they are first made as coarse as this, as of a
    slide that has no finer pixels (0: they stay). `on_progress` may raise, to end it early."""
    if pixels_mpp and len(rgb):
        rgb, patch_mpp = coarser(rgb, patch_mpp=patch_mpp, mpp=pixels_mpp)
    factor = patch_mpp / mpp
    side = PAD_PX if factor > 0.75 else PAD_PX // 2
    side = max(side, -(-round(rgb.shape[1] * factor) // 64) * 64) if len(rgb) else side
    scores = [np.zeros(0, np.float32)]
    with torch.inference_mode():
        for start in range(0, len(rgb), batch):
            on_progress(start / len(rgb))
            part = rescale(rgb[start : start + batch], factor=factor, side=side)
            logits = patch_logits(
                network(to_input(part, device=network.device)), centre_px=rgb.shape[1] * CENTRE_SHARE * factor
            )
            scores.append(torch.sigmoid(torch.stack(list(logits.values())).mean(dim=0)).cpu().numpy())
    return np.concatenate(scores)
