"""What the network says of fields of slides: for the choice of the checkpoint, and for finding false finds."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.detector.network.detector import Detector, to_input
from analysis.detector.training.annotated_slides import Field
from analysis.metrics.roc import auc

STRONGEST_PX2 = 256
"""A field's score is the mean over its strongest place of this size: about 250 um2, a group of cells, not one pixel."""
WINDOW_ALIGN_PX = 64


def tumour_probability(network: Detector, field: Field) -> NDArray[np.float32]:
    """(n/s, n/s), s the stride of the dense branch, over the field's inner square, whose side is a multiple of the coarsest
    stride."""
    side = field.rgb.shape[0] // WINDOW_ALIGN_PX * WINDOW_ALIGN_PX
    with torch.inference_mode():
        out = network(to_input(field.rgb[None, :side, :side], device=network.device))
        p: NDArray[np.float32] = torch.sigmoid(out.tumour_logit[0, 0]).cpu().numpy()
    return p


def _cells(mask: NDArray[Any], shape: tuple[int, ...], stride: int) -> NDArray[np.bool_]:
    """The mask (px) at the middle of each cell of the network's map."""
    half = stride // 2
    at: NDArray[np.bool_] = mask[half::stride, half::stride][: shape[0], : shape[1]] > 0
    return at


def strongest(p: NDArray[np.float32], where: NDArray[np.bool_], *, cells: int) -> float | None:
    """Mean of the strongest `cells`; None where fewer are known."""
    known = p[where]
    if len(known) < cells:
        return None
    return float(np.partition(known, len(known) - cells)[-cells:].mean())


def false_find(network: Detector, field: Field) -> tuple[float, int, int] | None:
    """(score, x, y) of the strongest place that is known to be normal; x, y in px of the field. None without such tissue."""
    p, stride = tumour_probability(network, field), network.config.dense_stride
    known = ~_cells(field.ignore, p.shape, stride) & ~_cells(field.instance, p.shape, stride)
    score = strongest(p, known, cells=STRONGEST_PX2 // stride**2)
    if score is None:
        return None
    row, col = np.unravel_index(int(np.where(known, p, -1).argmax()), p.shape)
    return score, int(col) * stride, int(row) * stride


def judge_fields(network: Detector, fields: Iterable[Field]) -> dict[str, float | None]:
    """`field_auc`: fields with tumour against fields without, by their strongest cells; `dice` over all known cells at 0.5."""
    truth, scores = [], []
    both = found = there = 0
    stride = network.config.dense_stride
    cells = STRONGEST_PX2 // stride**2
    for field in fields:
        p = tumour_probability(network, field)
        tumour = _cells(field.instance, p.shape, stride)
        known = ~_cells(field.ignore, p.shape, stride) | tumour
        # a field with tumour is judged by its tumour: what else it holds is judged by the normal ones
        score = strongest(p, tumour if tumour.sum() >= cells else known, cells=cells)
        if score is not None:
            truth.append(bool(tumour.any()))
            scores.append(score)
        yes = (p >= 0.5) & known
        both, found, there = both + int((yes & tumour).sum()), found + int(yes.sum()), there + int(tumour.sum())
    dice = 2 * both / (found + there) if there else None
    return {"field_auc": auc(truth, scores) if truth else None, "dice": dice}
