"""Losses of the detector. Each is finite and differentiable when a batch holds no lesion at all."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from analysis.detector.network.detector import LevelOutput, NetworkOutput
from analysis.detector.training.targets import LevelTarget, RegionTarget

WEIGHTS = {"class": 1.0, "box": 1.0, "quality": 0.5, "mask": 1.0, "attention": 0.2, "distance": 0.2}
FALSE_NEGATIVE_SHARE = 0.7
LABEL_SMOOTHING = 0.02
LEAST_LESION_SHARE = 1 / 32
"""The class loss is one per cell of a lesion, but of no fewer cells than this share: in a batch of normal tissue alone, a
few false cells would otherwise weigh a hundred times what they do beside a lesion."""


def region_losses(out: NetworkOutput, target: RegionTarget) -> dict[str, Tensor]:
    """One scalar for each name in WEIGHTS, without those of the heads that the configuration leaves out."""
    parts: dict[str, Tensor] = {}
    if out.heads != "box":
        parts["mask"] = mask_loss(out.tumour_logit[:, 0], target.mask, target.mask_weight)
        known = (target.mask_weight > 0).float()
        gap = (torch.sigmoid(out.edge_distance[:, 0]) - target.distance).abs()
        parts["distance"] = (gap * known).sum() / known.sum().clamp_min(1)
    if out.heads == "mask":
        return parts
    pairs = list(zip(out.levels, target.levels, strict=True))
    weighed_cells = max(target.lesion_cells, LEAST_LESION_SHARE * target.known_cells, 1)
    parts["class"] = sum_of(focal_loss(o, t) for o, t in pairs) / weighed_cells
    parts["box"] = sum_of(box_loss(o, t) for o, t in pairs) / max(target.box_cells, 1)
    parts["quality"] = sum_of(quality_loss(o, t) for o, t in pairs) / max(target.lesion_cells, 16)
    parts["attention"] = attention_loss(out.levels[:2], target.levels[:2])
    return parts


def total(parts: dict[str, Tensor]) -> Tensor:
    return sum_of(WEIGHTS[name] * value for name, value in parts.items())


def sum_of(terms: "object") -> Tensor:
    return torch.stack(list(terms)).sum()  # type: ignore[call-overload]


def mask_loss(logit: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Weighted BCE plus Tversky over the batch, which counts a missed pixel more than a false one."""
    bce = functional.binary_cross_entropy_with_logits(logit, mask, weight=weight, reduction="sum")
    bce = bce / weight.sum().clamp_min(1)
    p = torch.sigmoid(logit) * weight
    t = mask * weight
    hit, missed, false = (p * mask).sum(), (t * (1 - torch.sigmoid(logit))).sum(), (p * (1 - mask)).sum()
    share = FALSE_NEGATIVE_SHARE
    tversky = 1 - (hit + 1) / (hit + share * missed + (1 - share) * false + 1)
    return bce + 0.5 * tversky


def focal_loss(out: LevelOutput, target: LevelTarget, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum over the cells with a known class (Lin et al. 2017, arXiv 1708.02002)."""
    logit = out.class_logit[:, 0]
    known = target.class_target >= 0
    truth = (target.class_target == 1).float()
    bce = functional.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    p = torch.sigmoid(logit)
    wrong = torch.where(truth > 0, 1 - p, p)
    balance = torch.where(truth > 0, alpha, 1 - alpha)
    return (balance * wrong**gamma * bce * known).sum()


def _chosen(map4: Tensor, cells: Tensor) -> Tensor:
    """(B, 4, h, w) at the cells (B, h, w) -> (n, 4)."""
    return map4.permute(0, 2, 3, 1)[cells]


def _box_pairs(out: LevelOutput, target: LevelTarget) -> tuple[Tensor, Tensor]:
    """Predicted and wanted sides (n, 4); a side cut by the region's edge is taken as predicted, so it carries no loss."""
    predicted = _chosen(out.box, target.box_cell)
    wanted = torch.where(_chosen(target.cut, target.box_cell), predicted.detach(), _chosen(target.box, target.box_cell))
    return predicted, wanted


def giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(IoU, GIoU) of boxes given as left, top, right, bottom distances from one common point (n, 4)."""
    inter_w = torch.minimum(a[:, 0], b[:, 0]) + torch.minimum(a[:, 2], b[:, 2])
    inter_h = torch.minimum(a[:, 1], b[:, 1]) + torch.minimum(a[:, 3], b[:, 3])
    hull_w = torch.maximum(a[:, 0], b[:, 0]) + torch.maximum(a[:, 2], b[:, 2])
    hull_h = torch.maximum(a[:, 1], b[:, 1]) + torch.maximum(a[:, 3], b[:, 3])
    inter = inter_w * inter_h
    union = (a[:, 0] + a[:, 2]) * (a[:, 1] + a[:, 3]) + (b[:, 0] + b[:, 2]) * (b[:, 1] + b[:, 3]) - inter
    iou = inter / union.clamp_min(1e-6)
    hull = (hull_w * hull_h).clamp_min(1e-6)
    return iou, iou - (hull - union) / hull


def box_loss(out: LevelOutput, target: LevelTarget) -> Tensor:
    predicted, wanted = _box_pairs(out, target)
    return (1 - giou(predicted, wanted)[1]).sum() + 0.0 * out.box.sum()


def quality_loss(out: LevelOutput, target: LevelTarget) -> Tensor:
    """Quality = IoU where a box is carried, 0 where the lesion belongs to another level."""
    predicted, wanted = _box_pairs(out, target)
    logit = out.quality_logit[:, 0]
    truth = torch.zeros_like(logit)
    truth[target.box_cell] = giou(predicted, wanted)[0].detach()
    cells = target.box_cell | target.outside_level
    loss = functional.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    return (loss * cells).sum()


def attention_loss(outs: list[LevelOutput], targets: list[LevelTarget]) -> Tensor:
    """Dice + BCE of the spatial gates on P3 and P4 against the lesion mask: attention that can be shown and tested."""
    terms = [torch.zeros((), device=targets[0].class_target.device)]
    for out, target in zip(outs, targets, strict=True):
        known = (target.class_target >= 0).float()
        truth = (target.class_target == 1).float()
        for gate in out.gate_logits:
            logit = gate[:, 0]
            p = torch.sigmoid(logit) * known
            bce = functional.binary_cross_entropy_with_logits(logit, truth, weight=known, reduction="sum")
            dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
            terms.append(bce / known.sum().clamp_min(1) + dice)
    return sum_of(terms) / max(len(terms) - 1, 1)


def pool_centre(logit: Tensor, *, centre_px: float, stride: int) -> Tensor:
    """Soft maximum (log mean exp) of a map (B, h, w) over the centre square of `centre_px` input pixels -> (B,)."""
    h, w = logit.shape[-2:]
    half = max(1, round(centre_px / stride / 2))
    top, left = h // 2 - half, w // 2 - half
    square = logit[:, max(top, 0) : h // 2 + half, max(left, 0) : w // 2 + half].flatten(1)
    return torch.logsumexp(square, dim=1) - torch.log(torch.tensor(float(square.shape[1])))


def patch_logits(out: NetworkOutput, *, centre_px: float) -> dict[str, Tensor]:
    """The centre's logit by the dense branch and by the class tower on P3 (B,) each, of the heads that learn."""
    logits = {}
    if out.heads != "box":
        logits["dense"] = pool_centre(out.tumour_logit[:, 0], centre_px=centre_px, stride=out.dense_stride)
    if out.heads != "mask":
        finest = out.levels[0]
        logits["class"] = pool_centre(finest.class_logit[:, 0], centre_px=centre_px, stride=finest.stride)
    return logits


def patch_loss(
    out: NetworkOutput,
    label: Tensor,
    *,
    centre_px: float,
    taught: "Taught | None" = None,
    teacher_share: float = 0.0,
) -> Tensor:
    """The label speaks of the centre alone, so the loss does too. label (B,) 0 to 1; below 0: unknown, then the teachers
    alone are believed. They speak of the rest of the field as well."""
    truth = label.float() * (1 - 2 * LABEL_SMOOTHING) + LABEL_SMOOTHING
    known = (label >= 0).float()
    weight = known if taught is None else torch.ones_like(known)
    if taught is not None:
        share = 1 - known * (1 - teacher_share)
        truth = share * taught.centre + (1 - share) * truth
    logits = patch_logits(out, centre_px=centre_px)
    terms = [functional.binary_cross_entropy_with_logits(z, truth, weight=weight) for z in logits.values()]
    loss = terms[0] + 0.5 * terms[1] if len(terms) > 1 else terms[0]
    if taught is None or out.heads == "box":
        return loss
    height, width = out.tumour_logit.shape[-2:]
    cells = functional.adaptive_avg_pool2d(taught.field, (height, width))
    return loss + functional.binary_cross_entropy_with_logits(out.tumour_logit, cells)


@dataclass(frozen=True)
class Taught:
    """What teachers say of patches, in the mean of their probabilities (Hinton et al. 2015, arXiv 1503.02531)."""

    centre: Tensor  # (B,)
    field: Tensor  # (B, 1, h, w)


def mean_of(outs: list[tuple[NetworkOutput, float]]) -> Taught:
    """Of each network's output, and of the side of the centre in its pixels; the field as the coarsest of them maps it."""
    centres = [torch.stack(list(patch_logits(out, centre_px=side).values())).mean(dim=0) for out, side in outs]
    fields = [torch.sigmoid(out.tumour_logit) for out, _ in outs]
    size = min((field.shape[-2], field.shape[-1]) for field in fields)
    return Taught(
        centre=torch.sigmoid(torch.stack(centres)).mean(dim=0),
        field=torch.stack([functional.adaptive_avg_pool2d(field, size) for field in fields]).mean(dim=0),
    )
