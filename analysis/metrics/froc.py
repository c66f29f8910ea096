"""Free-response ROC of CAMELYON16, as both published evaluation scripts compute it.

They differ: the first (20 January 2016) interpolates between operating points and never uses the lowest score; the
newer one takes the sensitivity at the first operating point with at least the allowed false positives. Always say which.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per slide at which the sensitivities are averaged."""


@dataclass(frozen=True)
class SlideHits:
    """One slide judged: scores of false positives, and for each lesion that counts its best hit (0.0 = missed)."""

    false_positives: tuple[float, ...]
    lesions: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """Operating points from the strictest threshold on."""

    false_positives_per_slide: tuple[float, ...]
    sensitivity: tuple[float, ...]


def _curve(slides: Sequence[SlideHits], thresholds: Sequence[float]) -> Curve:
    """`thresholds` ascending."""
    false = np.sort([s for slide in slides for s in slide.false_positives])
    hits = np.sort([s for slide in slides for s in slide.lesions])
    falling = np.asarray(thresholds, np.float64)[::-1]
    # as many as are not below the threshold
    alarms = (len(false) - np.searchsorted(false, falling)) / max(len(slides), 1)
    found = (len(hits) - np.searchsorted(hits, falling)) / max(len(hits), 1)
    return Curve(tuple(alarms.tolist()), tuple(found.tolist()))


def _scores(slides: Sequence[SlideHits]) -> list[float]:
    return sorted({s for slide in slides for s in (*slide.false_positives, *slide.lesions)})


def froc_2016(slides: Sequence[SlideHits]) -> float | None:
    """Mean interpolated sensitivity, first script: the lowest score is skipped even if no lesion was missed.

    None without any lesion that counts.
    """
    at = sensitivities_2016(slides)
    return None if at is None else float(np.mean(at))


def sensitivities_2016(slides: Sequence[SlideHits]) -> tuple[float, ...] | None:
    """At each of RATES, by the first script."""
    if not any(slide.lesions for slide in slides):
        return None
    curve = _curve(slides, _scores(slides)[1:])
    # the script closes the curve at the origin
    rates, sensitivity = [0.0, *curve.false_positives_per_slide], [0.0, *curve.sensitivity]
    return tuple(np.interp(RATES, rates, sensitivity).tolist())


def froc_stepped(slides: Sequence[SlideHits]) -> float | None:
    """Mean sensitivity at the first operating point with at least the allowed false positives, newer script.

    None without any lesion that counts.
    """
    at = sensitivities_stepped(slides)
    return None if at is None else float(np.mean(at))


def sensitivities_stepped(slides: Sequence[SlideHits]) -> tuple[float, ...] | None:
    """At each of RATES, by the newer script."""
    if not any(slide.lesions for slide in slides):
        return None
    curve = froc_curve(slides)
    if not curve.sensitivity:
        return (0.0,) * len(RATES)
    last = len(curve.sensitivity) - 1
    return tuple(curve.sensitivity[min(bisect_left(curve.false_positives_per_slide, r), last)] for r in RATES)


def froc_curve(slides: Sequence[SlideHits]) -> Curve:
    """All operating points (every score but the 0.0 of missed lesions)."""
    return _curve(slides, [s for s in _scores(slides) if s > 0.0])
