"""What weights are judged by while they are trained: material that they do not learn from and that is not the test fold."""

import numpy as np

from analysis.detector.configuration import DetectorConfig
from analysis.detector.network.detector import Detector
from analysis.detector.training.field_scores import judge_fields
from analysis.detector.training.material import Material
from analysis.detector.training.patch_scores import score_coarse_patches, score_patches
from analysis.metrics.roc import auc


def validation_figures(network: Detector, material: Material, config: DetectorConfig) -> dict[str, float | None]:
    """`auc` and `auc_coarse` of the validation patches at both spacings, `auc_with_hard` with the hard negatives among
    them (coarse ones if the training shows mostly such), `field_auc` and `dice` of validation slides: as far as there are such."""
    held, hard = material.validation, material.validation_hard_negative
    patch_mpp, mpp = config.data.patch_mpp, config.read.mpp
    found: dict[str, float | None] = {}
    if len(held):
        scores = score_patches(network, held.rgb, patch_mpp=patch_mpp, mpp=mpp)
        coarse = score_coarse_patches(network, held.rgb, config=config, mpp=mpp)
        found = {"auc": auc(held.label == 1, scores), "auc_coarse": auc(held.label == 1, coarse)}
        if len(hard):
            if config.train.mostly_coarse:
                scores, hard_scores = coarse, score_coarse_patches(network, hard.rgb, config=config, mpp=mpp)
            else:
                hard_scores = score_patches(network, hard.rgb, patch_mpp=patch_mpp, mpp=mpp)
            truth = np.concatenate([held.label == 1, np.zeros(len(hard), bool)])
            found["auc_with_hard"] = auc(truth, np.concatenate([scores, hard_scores]))
    if material.slide_validation:
        found |= judge_fields(network, material.slide_validation)
    return found


def worth(figures: dict[str, float | None]) -> float | None:
    """The one figure that weights are chosen by; None where there is nothing to judge by."""
    # hard negatives count where there are some: the plain AUC peaks long before they are learnt
    patches = "auc_with_hard" if figures.get("auc_with_hard") is not None else "auc"
    known = [value for name in (patches, "field_auc") if (value := figures.get(name)) is not None]
    return sum(known) / len(known) if known else None
