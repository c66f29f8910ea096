"""What a model says of the centre of a patch by all the looks that a candidate on a slide gets.

On a slide the network that reads speaks first, and of what it makes a candidate the networks that look again speak, eight ways
up (`second_look.py`). A patch is given the same looks, whatever the first one says.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.detector.calibration import logit, sigmoid
from analysis.detector.network.detector import Detector
from analysis.detector.second_look import all_looks
from analysis.detector.training.patch_scores import WAYS_UP, score_patches, score_turned
from analysis.detector.weights import LoadedModel


def networks_that_look_again(model: LoadedModel) -> tuple[Detector, ...]:
    """As an engine's `lookers`; none where the model does not look again."""
    if not model.config.read.second_look:
        return ()
    if model.looker is None:
        return (model.network,)
    return (model.looker.network,) if model.config.look.alone else (model.network, model.looker.network)


def scores_of_all_looks(
    model: LoadedModel,
    rgb: NDArray[np.uint8],
    *,
    patch_mpp: float,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """rgb (n, s, s, 3) at `patch_mpp`, read at the model's spacing -> probabilities (n,) of the first look alone, and of all.

    `on_progress` may raise, to end it early.
    """
    again = networks_that_look_again(model)
    looks = 1 + len(again) * WAYS_UP

    def told(before: int, of: int) -> Callable[[float], None]:
        return lambda fraction: on_progress((before + of * fraction) / looks)

    mpp = model.config.read.mpp
    first = score_patches(model.network, rgb, patch_mpp=patch_mpp, mpp=mpp, on_progress=told(0, 1))
    if not again or not len(rgb):
        return first, first.astype(np.float64)
    seconds = [
        score_turned(network, rgb, patch_mpp=patch_mpp, mpp=mpp, on_progress=told(1 + k * WAYS_UP, WAYS_UP))
        for k, network in enumerate(again)
    ]
    second = [sigmoid(sum(map(logit, each)) / len(each)) for each in zip(*seconds, strict=True)]
    together = [all_looks(a, b, networks=len(again)) for a, b in zip(first.tolist(), second, strict=True)]
    return first, np.array(together, np.float64)
