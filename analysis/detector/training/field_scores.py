"""What the network says of fields of slides: for the choice of the checkpoint, and for finding false finds."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.detector.configuration import DENSE_STRIDE
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.training.annotated_slides import Field
from analysis.metrics.roc import auc

STRONGEST_CELLS = 16
"""A field's score is the mean of so many of its strongest cells: about 250 um2, a group of cells, not one pixel."""
WINDOW_ALIGN_PX = 64


def tumour_probability(network: Detector, field: Field) -> NDArray[np.float32]:
    """(n/4, n/4) over the field's inner square, whose side is a multiple of the coarsest stride."""
    side = field.rgb.shape[0] // WINDOW_ALIGN_PX * WINDOW_ALIGN_PX
    with torch.inference_mode():
        out = network(to_input(np.ascontiguousarray(field.rgb[:side, :side])[None]))
        p: NDArray[np.float32] = torch.sigmoid(out.tumour_logit[0, 0]).numpy()
    return p


def _cells(mask: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask (px) at the middle of each cell of the network's map."""
    half = DENSE_STRIDE // 2
    at: NDArray[np.bool_] = mask[half::DENSE_STRIDE, half::DENSE_STRIDE][: shape[0], : shape[1]] > 0
    return at


def strongest(p: NDArray[np.float32], where: NDArray[np.bool_]) -> float | None:
    """Mean of the strongest cells; None where too few cells are known."""
    known = p[where]
    if len(known) < STRONGEST_CELLS:
        return None
    return float(np.partition(known, len(known) - STRONGEST_CELLS)[-STRONGEST_CELLS:].mean())


def false_find(network: Detector, field: Field) -> tuple[float, int, int] | None:
    """(score, x, y) of the strongest place that is known to be normal; x, y in px of the field. None without such tissue."""
    p = tumour_probability(network, field)
    known = ~_cells(field.ignore, p.shape) & ~_cells(field.instance, p.shape)
    score = strongest(p, known)
    if score is None:
        return None
    row, col = np.unravel_index(int(np.where(known, p, -1).argmax()), p.shape)
    return score, int(col) * DENSE_STRIDE, int(row) * DENSE_STRIDE


def judge_fields(network: Detector, fields: Iterable[Field]) -> dict[str, float | None]:
    """`field_auc`: fields with tumour against fields without, by their strongest cells; `dice` over all known cells at 0.5."""
    truth, scores = [], []
    both = found = there = 0
    for field in fields:
        p = tumour_probability(network, field)
        tumour = _cells(field.instance, p.shape)
        known = ~_cells(field.ignore, p.shape) | tumour
        # a field with tumour is judged by its tumour: what else it holds is judged by the normal ones
        score = strongest(p, tumour if tumour.sum() >= STRONGEST_CELLS else known)
        if score is not None:
            truth.append(bool(tumour.any()))
            scores.append(score)
        yes = (p >= 0.5) & known
        both, found, there = both + int((yes & tumour).sum()), found + int(yes.sum()), there + int(tumour.sum())
    dice = 2 * both / (found + there) if there else None
    return {"field_auc": auc(truth, scores) if truth else None, "dice": dice}
