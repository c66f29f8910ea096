"""The test fold of the real patches, scored once, when a network is finished."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from analysis.detector.configuration import DetectorConfig
from analysis.detector.network import eight_bit
from analysis.detector.network.detector import Detector
from analysis.detector.training.material import Material
from analysis.detector.training.patch_scores import score_patches
from analysis.metrics.roc import auc


def score_test_fold(
    network: Detector, int8: Mapping[str, Tensor], material: Material, config: DetectorConfig
) -> dict[str, Any]:
    """What the card says of `network` (in evaluation mode) on patches that no choice was made by: AUC at both spacings, by
    stain and in 8 bits (where `int8` holds ranges), and the share of hard negatives called tumour at 90 % sensitivity."""
    test, patch_mpp, mpp = material.test, config.data.patch_mpp, config.read.mpp
    scores = score_patches(network, test.rgb, patch_mpp=patch_mpp, mpp=mpp)
    coarse = score_patches(network, test.rgb, patch_mpp=patch_mpp, mpp=config.read.scan_mpp)
    hard = score_patches(network, material.test_hard_negative.rgb, patch_mpp=patch_mpp, mpp=mpp)
    rounded = eight_bit.quantised(network, int8) if int8 else None
    scores_int8 = score_patches(rounded, test.rgb, patch_mpp=patch_mpp, mpp=mpp) if rounded else None
    positives = scores[test.label == 1]
    at_90 = float(np.quantile(positives, 0.1)) if len(positives) else None
    return {
        "n": len(test),
        "auc": auc(test.label == 1, scores),
        "auc_int8": auc(test.label == 1, scores_int8) if scores_int8 is not None else None,
        "auc_at_scan_mpp": auc(test.label == 1, coarse),
        "auc_by_stain": {
            str(s): auc(test.label[test.stain == s] == 1, scores[test.stain == s]) for s in np.unique(test.stain)
        },
        "threshold_90_sensitivity": at_90,
        "hard_negatives": len(hard),
        "hard_negative_rate_at_90": float((hard >= at_90).mean()) if at_90 is not None and len(hard) else None,
    }
