"""Boxes of the box tower: decoding and non-maximum suppression, in numpy."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

MIN_SCORE = 0.05
MOST_PER_WINDOW = 4000
"""Before suppression; only a network that sees boxes everywhere reaches it."""

Level = tuple[int, NDArray[np.float32], NDArray[np.float32]]
"""stride, score (h, w), box (4, h, w): distances left, top, right, bottom from the cell's centre in input px."""


def decode_boxes(levels: Iterable[Level]) -> NDArray[np.float32]:
    """The boxes of one window: (n, 5) left, top, right, bottom in input px, score; strongest first."""
    found = [np.zeros((0, 5), np.float32)]
    for stride, score, box in levels:
        rows, cols = np.nonzero(score > MIN_SCORE)
        x, y = (cols + 0.5) * stride, (rows + 0.5) * stride
        left, top, right, bottom = box[:, rows, cols]
        found.append(np.stack([x - left, y - top, x + right, y + bottom, score[rows, cols]], axis=1).astype(np.float32))
    boxes = np.concatenate(found)
    return boxes[np.argsort(-boxes[:, 4], kind="stable")]


def suppress(boxes: NDArray[np.float32], *, iou: float = 0.5) -> NDArray[np.float32]:
    """Greedy: of boxes (n, 5) that overlap by more than `iou` the best stays. Sorted by score, ties by place."""
    order = np.lexsort((boxes[:, 1], boxes[:, 0], -boxes[:, 4]))
    boxes = boxes[order]
    alive = np.ones(len(boxes), bool)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        rest = boxes[i + 1 :]
        wide = np.minimum(boxes[i, 2], rest[:, 2]) - np.maximum(boxes[i, 0], rest[:, 0])
        high = np.minimum(boxes[i, 3], rest[:, 3]) - np.maximum(boxes[i, 1], rest[:, 1])
        inter = np.clip(wide, 0, None) * np.clip(high, 0, None)
        union = area[i] + area[i + 1 :] - inter
        alive[i + 1 :] &= inter <= iou * np.maximum(union, 1e-6)
    return boxes[alive]
