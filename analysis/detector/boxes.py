"""Boxes of the box tower: decoding and non-maximum suppression, in numpy."""

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.detector.network.detector import NetworkOutput

MIN_SCORE = 0.05
MOST_PER_WINDOW = 200


def decode_boxes(out: NetworkOutput) -> NDArray[np.float32]:
    """The boxes of the first image of a batch: (n, 5) left, top, right, bottom in input px, score = sqrt(p quality)."""
    found = [np.zeros((0, 5), np.float32)]
    for level in out.levels:
        score = torch.sqrt(torch.sigmoid(level.class_logit[0, 0]) * torch.sigmoid(level.quality_logit[0, 0])).numpy()
        rows, cols = np.nonzero(score > MIN_SCORE)
        x, y = (cols + 0.5) * level.stride, (rows + 0.5) * level.stride
        left, top, right, bottom = level.box[0].numpy()[:, rows, cols]
        found.append(np.stack([x - left, y - top, x + right, y + bottom, score[rows, cols]], axis=1).astype(np.float32))
    boxes = np.concatenate(found)
    return boxes[np.argsort(-boxes[:, 4], kind="stable")[:MOST_PER_WINDOW]]


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
