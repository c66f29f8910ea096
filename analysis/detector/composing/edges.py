"""The edge along which one tissue passes into another: some pixels wide and wandering, so that no clean line betrays it."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_BLOCK_PX = 512
_REACH_PX = 18
"""The widest filter below looks this far; a block that is all inside or all outside up to here has no edge."""


def soft_edge(mask: NDArray[np.bool_], *, rng: np.random.Generator, width_px: float = 2.5) -> NDArray[np.float32]:
    """0..1 weight (H, W) of the mask. Costs by the length of the edge, not by the area."""
    grain = rng.normal(size=mask.shape).astype(np.float32)
    weight = mask.astype(np.float32)
    height, width = mask.shape
    for top in range(0, height, _BLOCK_PX):
        for left in range(0, width, _BLOCK_PX):
            y0, x0 = max(top - _REACH_PX, 0), max(left - _REACH_PX, 0)
            around = np.s_[y0 : top + _BLOCK_PX + _REACH_PX, x0 : left + _BLOCK_PX + _REACH_PX]
            flat = mask[around]
            if flat.all() or not flat.any():
                continue
            soft = _soft(flat.astype(np.float32), grain[around], width_px)
            own = soft[top - y0 : top - y0 + _BLOCK_PX, left - x0 : left - x0 + _BLOCK_PX]
            weight[top : top + _BLOCK_PX, left : left + _BLOCK_PX] = own
    return weight


def _soft(flat: NDArray[np.float32], grain: NDArray[np.float32], width_px: float) -> NDArray[np.float32]:
    noise = gaussian_filter(grain, 3.0)
    far = gaussian_filter(flat, 4.0)
    soft = gaussian_filter(flat, width_px) + noise * ((far > 0.02) & (far < 0.98))
    weight: NDArray[np.float32] = np.clip((soft - 0.5) * 2.2 + 0.5, 0, 1)
    return weight


def lay(target: NDArray[np.uint8], filling: NDArray[np.uint8], weight: NDArray[np.float32]) -> None:
    """Blend `filling` into `target` (both (H, W, 3)) by `weight` (H, W), in place."""
    np.copyto(target, filling, where=(weight >= 1)[..., None])
    ys, xs = np.nonzero((weight > 0) & (weight < 1))
    old = target[ys, xs].astype(np.float32)
    mixed = old + weight[ys, xs, None] * (filling[ys, xs].astype(np.float32) - old)
    target[ys, xs] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
