"""A network gets used to another scanner by its tissue alone, without a label.

What normalises between the layers (BatchNorm) holds means and variances of the tissue that the network learnt from; those of another
scanner's are others. They are measured anew on its tissue, as Li et al. 2016 do (arXiv 1603.04779), and the network is left half of the
way to them, for what was measured on some hundred patches is itself uncertain (You et al. 2021, arXiv 2110.04065). No weight changes.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from analysis.detector.network.detector import Detector, to_input
from analysis.detector.training.augmentation import degrade, rescale, shown_side
from analysis.detector.turning import turn

SHARE = 0.5
"""Of the way. On folds 0 to 3 of the other scanner a half was better than the whole way for each of five networks (ADR 23)."""
BATCH = 96
FEWEST = 2 * BATCH
MOST = 1024


def adapted(
    network: Detector, rgb: NDArray[np.uint8], *, patch_mpp: float, mpp: float, rng: np.random.Generator
) -> Detector:
    """A copy of `network`, in evaluation mode, that reads at `mpp` and is used to `rgb` (n, s, s, 3) at `patch_mpp`: at most MOST of
    these, drawn anew, turned and compressed as in training. Raises ValueError for fewer than FEWEST."""
    if len(rgb) < FEWEST:
        raise ValueError(f"{len(rgb)} patches are too few to get used to; there must be {FEWEST}")
    chosen = rng.permutation(len(rgb))[:MOST]
    own = copy.deepcopy(network)
    norms = [part for part in own.modules() if isinstance(part, nn.BatchNorm2d)]
    before = [(_copied(norm.running_mean), _copied(norm.running_var)) for norm in norms]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    factor = patch_mpp / mpp
    side = shown_side(rgb.shape[1], mpp)
    with torch.no_grad():
        for start in range(0, len(chosen) - BATCH + 1, BATCH):
            turned = [turn(rgb[i], int(rng.integers(8))) for i in chosen[start : start + BATCH]]
            shown = degrade(np.stack(turned).astype(np.uint8), rng=rng)
            own(to_input(rescale(shown, factor=factor, side=side), device=own.device))
    for norm, momentum, (mean, var) in zip(norms, momenta, before, strict=True):
        norm.momentum = momentum
        norm.running_mean = mean.lerp(_copied(norm.running_mean), SHARE)
        norm.running_var = var.lerp(_copied(norm.running_var), SHARE)
    return own.eval()


def _copied(values: torch.Tensor | None) -> torch.Tensor:
    assert values is not None
    return values.detach().clone()
