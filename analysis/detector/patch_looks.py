"""What a model says of the centre of a patch by all the looks that a candidate on a slide gets.

On a slide the network that reads speaks first, and of what it makes a candidate the networks that look again speak, eight ways
up, and one that looks closer if there is one (`second_look.py`). A patch is given the same looks, whatever the first one says.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.detector.calibration import logit, sigmoid
from analysis.detector.network.detector import Detector
from analysis.detector.second_look import all_looks
from analysis.detector.training.augmentation import coarser
from analysis.detector.training.patch_scores import score_patches, score_turned
from analysis.detector.turning import WAYS
from analysis.detector.weights import LoadedModel


@dataclass(frozen=True)
class Looker:
    version: str
    """That the network comes from."""
    network: Detector
    mpp: float
    ways: tuple[int, ...] = WAYS
    """Up, in which it sees a candidate."""


def lookers_of(model: LoadedModel) -> tuple[Looker, ...]:
    """As an engine's `lookers`; none where the model does not look again."""
    if not model.config.read.second_look:
        return ()
    mpp = model.config.read.mpp
    lookers = []
    if model.looker is None or not model.config.look.alone:
        lookers.append(Looker(model.version, model.network, mpp))
    if model.looker is not None:
        lookers.append(Looker(model.config.look.version, model.looker.network, mpp))
    if model.closer is not None:
        closer = model.config.closer
        lookers.append(Looker(closer.version, model.closer.network, closer.mpp, WAYS[: closer.ways]))
    return tuple(lookers)


def scores_of_all_looks(
    model: LoadedModel,
    rgb: NDArray[np.uint8],
    *,
    patch_mpp: float,
    pixels_mpp: float = 0.0,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """rgb (n, s, s, 3) at `patch_mpp`, read at the model's spacing -> probabilities (n,) of the first look alone, and of all.

    `pixels_mpp`: as of a slide that has no finer pixels than these (0: the patches as they are).
    `on_progress` may raise, to end it early.
    """
    again = lookers_of(model)
    mpp = model.config.read.mpp
    work = [1.0, *(len(one.ways) * (mpp / one.mpp) ** 2 for one in again)]

    def told(which: int) -> Callable[[float], None]:
        before = sum(work[:which])
        return lambda fraction: on_progress(min(1.0, (before + work[which] * fraction) / sum(work)))

    if pixels_mpp and len(rgb):
        rgb, patch_mpp = coarser(rgb, patch_mpp=patch_mpp, mpp=pixels_mpp)
    first = score_patches(model.network, rgb, patch_mpp=patch_mpp, mpp=mpp, on_progress=told(0))
    if not again or not len(rgb):
        return first, first.astype(np.float64)
    seconds = [
        score_turned(one.network, rgb, patch_mpp=patch_mpp, mpp=one.mpp, ways=one.ways, on_progress=told(which))
        for which, one in enumerate(again, start=1)
    ]
    second = [sigmoid(sum(map(logit, each)) / len(each)) for each in zip(*seconds, strict=True)]
    together = [all_looks(a, b, networks=len(again)) for a, b in zip(first.tolist(), second, strict=True)]
    return first, np.array(together, np.float64)
