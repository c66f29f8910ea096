"""Boxes of the box tower, decoded in numpy."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

MIN_SCORE = 0.05

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
