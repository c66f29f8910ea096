"""Area under the ROC curve."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata


def auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Probability that a positive scores above a negative, ties counted half. None when one class is absent."""
    truth = np.asarray(labels).astype(bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(np.asarray(scores, dtype=np.float64))
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))
