"""Image quilting: a large texture out of small real patches (Efros and Freeman 2001).

Patches lie on a grid with an overlap; of some random candidates the one that fits its neighbours best is taken and
joined to them along the path of least difference, so that no straight seam is left.
"""

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 40
NEIGHBOUR_CELLS = 2
"""A patch is not used again within this many cells: it fits its own mirror image best, which shows as wallpaper."""
OVERLAP_SHARE = 3  # the overlap is a third of the patch side


def quilt(
    pool: NDArray[np.uint8],
    *,
    height: int,
    width: int,
    rng: np.random.Generator,
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """pool (n, s, s, 3) -> (height, width, 3). Cells that do not touch `where` (height, width) stay white."""
    side = pool.shape[1]
    overlap = side // OVERLAP_SHARE
    step = side - overlap
    rows, cols = -(-(height - overlap) // step), -(-(width - overlap) // step)
    rows, cols = max(rows, 1), max(cols, 1)
    out = np.full((rows * step + overlap, cols * step + overlap, 3), 255, np.uint8)
    used = np.full((rows, cols), -1, np.intp)
    for row in range(rows):
        for col in range(cols):
            y, x = row * step, col * step
            if where is not None and not where[y : y + side, x : x + side].any():
                continue
            above = row > 0 and used[row - 1, col] >= 0
            left = col > 0 and used[row, col - 1] >= 0
            target = out[y : y + side, x : x + side]
            reach = NEIGHBOUR_CELLS
            near = used[max(row - reach, 0) : row + 1, max(col - reach, 0) : col + reach + 1]
            index, patch = _best_candidate(pool, target, overlap, above=above, left=left, taken=near, rng=rng)
            keep = seam_mask(patch, target, overlap, above=above, left=left)
            target[keep] = patch[keep]
            used[row, col] = index
    return out[:height, :width]


def _best_candidate(
    pool: NDArray[np.uint8],
    target: NDArray[np.uint8],
    overlap: int,
    *,
    above: bool,
    left: bool,
    taken: NDArray[np.intp],
    rng: np.random.Generator,
) -> tuple[int, NDArray[np.uint8]]:
    free = np.setdiff1d(np.arange(len(pool)), taken)
    free = free if len(free) else np.arange(len(pool))
    # from a small pool not all may be asked, or the same few best ones come back everywhere
    chosen = rng.choice(free, min(CANDIDATES, max(1, len(free) // 3)), replace=False)
    candidates = np.rot90(pool[chosen], int(rng.integers(0, 4)), axes=(1, 2))
    if rng.random() < 0.5:
        candidates = candidates[:, :, ::-1]
    best = least_different(candidates, target, overlap, above=above, left=left)
    return int(chosen[best]), candidates[best]


def least_different(
    candidates: NDArray[np.uint8], target: NDArray[np.uint8], overlap: int, *, above: bool, left: bool
) -> int:
    """Which of (n, side, side, 3) fits best to what lies above and to the left in `target`."""
    error = np.zeros(len(candidates), np.float32)
    if above:
        error += _difference(candidates[:, :overlap], target[:overlap])
    if left:
        error += _difference(candidates[:, :, :overlap], target[:, :overlap])
    return int(error.argmin())


def _difference(candidates: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float32]:
    # every second pixel tells as much and costs a quarter
    delta = candidates[:, ::2, ::2].astype(np.float32) - target[::2, ::2].astype(np.float32)
    error: NDArray[np.float32] = np.einsum("nijk,nijk->n", delta, delta)
    return error


def seam_mask(
    patch: NDArray[np.uint8], target: NDArray[np.uint8], overlap: int, *, above: bool, left: bool
) -> NDArray[np.bool_]:
    """(side, side), True where the new patch is laid over what is there."""
    side = len(patch)
    keep = np.ones((side, side), bool)
    if left:
        path = _least_path(_squared_gap(patch[:, :overlap], target[:, :overlap]))
        keep &= np.arange(side)[None, :] >= path[:, None]
    if above:
        path = _least_path(_squared_gap(patch[:overlap], target[:overlap]).T)
        keep &= np.arange(side)[:, None] >= path[None, :]
    return keep


def _squared_gap(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    gap: NDArray[np.float32] = ((one.astype(np.float32) - other.astype(np.float32)) ** 2).sum(axis=-1)
    return gap


def _least_path(error: NDArray[np.float32]) -> NDArray[np.intp]:
    """(n, w) -> for each row the column of the cheapest 8-connected path from top to bottom."""
    n, w = error.shape
    cost = np.full((n, w + 2), np.inf, error.dtype)  # a wall on both sides saves a test in every row
    cost[:, 1:-1] = error
    least = np.empty(w, error.dtype)
    for i in range(1, n):
        previous = cost[i - 1]
        np.minimum(previous[:-2], previous[1:-1], out=least)
        np.minimum(least, previous[2:], out=least)
        cost[i, 1:-1] += least
    cost = cost[:, 1:-1]
    path = np.empty(n, np.intp)
    path[-1] = int(cost[-1].argmin())
    for i in range(n - 2, -1, -1):
        low = max(path[i + 1] - 1, 0)
        path[i] = low + int(cost[i, low : min(path[i + 1] + 2, w)].argmin())
    return path
