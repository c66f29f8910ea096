"""Figures of a set of judged slides, with intervals by slide, and two readings of the same slides compared in pairs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from analysis.detector.slide_judging import BAND_SHARE, JudgedLesion, JudgedSlide
from analysis.detector.weights import LoadedModel
from analysis.metrics.agreement import confusion
from analysis.metrics.calibration import expected_calibration_error
from analysis.metrics.froc import (
    RATES,
    froc_2016,
    froc_stepped,
    sensitivities_2016,
    sensitivities_stepped,
)
from analysis.metrics.intervals import Interval, bootstrap, bootstrap_difference, wilson
from analysis.metrics.roc import auc
from analysis.metrics.staging import CLASSES

DEFAULT_THRESHOLD = 0.5
REPEATS = 2000
Slides = Sequence[JudgedSlide]


def threshold_of(model: LoadedModel, *, profile: str) -> float:
    """Of the profile's own calibration, else the model's."""
    own = model.card.get("calibration", {}).get(profile, {}).get("threshold", {}).get("score")
    return float(own if own is not None else model.card.get("threshold", DEFAULT_THRESHOLD))


def summarise(
    judged: Slides, *, model: LoadedModel, profile: str, threshold: float, composed: bool, repeats: int = REPEATS
) -> dict[str, Any]:
    """All figures of one reading; shares come with [low, high] of 95 %."""
    hits = [j.hits for j in judged]
    lesions = [score for h in hits for score in h.lesions]
    found = sum(score >= threshold for score in lesions)
    false = sum(score >= threshold for h in hits for score in h.false_positives)
    every = [le for j in judged for le in j.lesions]
    return {
        "composed": composed,
        "model": {"version": model.version, "sha256": model.sha256, "profile": profile},
        "slides": len(judged),
        "tumour_slides": sum(j.reference.tumour for j in judged),
        "itc_only_slides": sum(j.itc_only for j in judged),
        "not_assessed": sum(j.detection.slide_score is None for j in judged),
        "not_complete": sum(j.detection.status != "complete" for j in judged),
        "slide_auc": slide_auc(judged),
        "slide_auc_interval": _pair(bootstrap(judged, slide_auc, repeats=repeats)),
        "slide_auc_without_itc_only": slide_auc(_without_itc_only(judged)),
        "slide_auc_without_itc_only_interval": _pair(bootstrap(_without_itc_only(judged), slide_auc, repeats=repeats)),
        "froc_2016": froc_2016(hits),
        "froc_2016_interval": _pair(bootstrap(hits, froc_2016, repeats=repeats)),
        "froc_2016_at": _by_rate(sensitivities_2016(hits)),
        "froc_stepped": froc_stepped(hits),
        "froc_stepped_interval": _pair(bootstrap(hits, froc_stepped, repeats=repeats)),
        "froc_stepped_at": _by_rate(sensitivities_stepped(hits)),
        "lesions": len(lesions),
        "threshold": threshold,
        "lesions_found": int(found),
        "lesion_sensitivity": list(wilson(int(found), len(lesions))) if lesions else None,
        "sensitivity_by_class": {c: _sensitivity(every, c) for c in ("itc", "micro", "macro")},
        "itc": sum(j.itc for j in judged),
        "itc_found": sum(le.itc and le.score > 0 for le in every),
        "itc_found_at_threshold": sum(le.itc and le.found for le in every),
        "false_positives_per_slide": false / max(len(judged), 1),
        "false_positives_per_normal_slide": _false_on_normal(judged, threshold),
        "false_positives_by_tag": _false_by_tag(judged, threshold),
        "slide_calls": _slide_calls(judged),
        **_slide_classes(judged),
        "lesion_classes": _lesion_classes(every),
        "one_lesion_each": _pieces(judged),
        "dice": dice(judged),
        "dice_interval": _pair(bootstrap(judged, dice, repeats=repeats)),
        "dice_median_of_tumour_slides": _median([d for j in judged if (d := dice([j])) is not None]),
        "calibration": _calibration(judged),
        "tissue_mm2": round(sum(j.detection.tissue.mm2 for j in judged), 2),
        **_seconds(judged),
        "slides_detail": [_detail(j) for j in judged],
    }


# -- statistics of some slides -------------------------------------------------------------------------------------------


def slide_auc(judged: Slides) -> float | None:
    """Slides that were given no score are left out (and counted under not_assessed)."""
    known = [j for j in judged if j.detection.slide_score is not None]
    return auc([j.reference.tumour for j in known], [j.detection.slide_score or 0.0 for j in known]) if known else None


def _without_itc_only(judged: Slides) -> list[JudgedSlide]:
    """By CAMELYON17 a node with isolated tumour cells alone is not positive; nor is it negative."""
    return [j for j in judged if not j.itc_only]


def dice(judged: Slides) -> float | None:
    """Of all masks together; None where neither holds anything."""
    both, found, true = (sum(j.overlap[i] for j in judged) for i in range(3))
    return 2 * both / (found + true) if found + true and true else None


def sensitivity(judged: Slides) -> float | None:
    """Of metastases that count (no ITC), at the threshold."""
    counted = [le.found for j in judged for le in j.lesions if not le.itc]
    return sum(counted) / len(counted) if counted else None


def false_per_slide(judged: Slides, *, threshold: float) -> float | None:
    false = sum(score >= threshold for j in judged for score in j.hits.false_positives)
    return false / len(judged) if judged else None


def _by_rate(values: Sequence[float] | None) -> dict[str, float] | None:
    return None if values is None else {f"{rate:g}": round(v, 4) for rate, v in zip(RATES, values, strict=True)}


def _sensitivity(every: Sequence[JudgedLesion], kind: str) -> dict[str, Any]:
    own = [le.found for le in every if le.size_class == kind]
    found = wilson(sum(own), len(own))
    return {"lesions": len(own), "found": sum(own), "share": _share(found.value), "interval": _pair(found)}


def _false_on_normal(judged: Slides, threshold: float) -> float | None:
    return false_per_slide([j for j in judged if not j.reference.tumour], threshold=threshold)


def _false_by_tag(judged: Slides, threshold: float) -> dict[str, dict[str, float]]:
    """A false find near two tags counts for both. `per_mm2`: of the tag's own area."""
    tags = sorted({tag for j in judged for _, near in j.false_tags for tag in near} | set().union(*_tag_names(judged)))
    table = {}
    for tag in tags:
        n = sum(score >= threshold and tag in near for j in judged for score, near in j.false_tags)
        area = sum(j.tag_mm2.get(tag, 0.0) for j in judged)
        table[tag] = {"false": n, "per_slide": round(n / max(len(judged), 1), 4)}
        if area:
            table[tag] |= {"mm2": round(area, 3), "per_mm2": round(n / area, 4)}
    return table


def _tag_names(judged: Slides) -> list[set[str]]:
    return [set(), *({*j.tag_mm2} - {"tissue"} for j in judged)]


def _slide_calls(judged: Slides) -> dict[str, Any]:
    """A slide is called positive when a lesion is at or above the threshold."""
    positive = [j.called != "negative" for j in judged if j.reference.tumour]
    negative = [j.called == "negative" for j in judged if not j.reference.tumour]
    hit, clear = wilson(sum(positive), len(positive)), wilson(sum(negative), len(negative))
    return {
        "sensitivity": _share(hit.value),
        "sensitivity_interval": _pair(hit),
        "specificity": _share(clear.value),
        "specificity_interval": _pair(clear),
    }


def _slide_classes(judged: Slides) -> dict[str, Any]:
    """Largest class on the slide, by the reference table where it has one, else as measured."""
    true = [j.reference.size_class or j.true_class for j in judged]
    counts = confusion(true, [j.called for j in judged], labels=CLASSES)
    clear = [(t, j.called) for t, j in zip(true, judged, strict=True) if not j.in_band and j.reference.tumour]
    right = wilson(sum(t == c for t, c in clear), len(clear))
    return {
        "size_class_labels": list(CLASSES),
        "size_class_confusion": counts.tolist(),
        "size_class_right_outside_band": {
            "tumour_slides": len(clear),
            "right": sum(t == c for t, c in clear),
            "share": _share(right.value),
            "interval": _pair(right),
        },
    }


def _lesion_classes(every: Sequence[JudgedLesion]) -> dict[str, Any]:
    """Of the metastases that were found; columns are the class of the largest piece."""
    found = [le for le in every if le.pieces]
    counts = confusion([le.size_class for le in found], [le.found_class for le in found], labels=CLASSES)

    def right(chosen: Sequence[JudgedLesion]) -> dict[str, Any]:
        n = sum(le.size_class == le.found_class for le in chosen)
        share = wilson(n, len(chosen))
        return {"lesions": len(chosen), "right": n, "share": _share(share.value), "interval": _pair(share)}

    return {
        "labels": list(CLASSES),
        "confusion": counts.tolist(),
        "band": f"within {BAND_SHARE:.0%} of 0.2 or 2.0 mm",
        "in_band": sum(le.in_band for le in found),
        "outside_band": right([le for le in found if not le.in_band]),
        "flagged_borderline": sum(le.flagged for le in found),
        "outside_band_and_not_flagged": right([le for le in found if not le.in_band and not le.flagged]),
        "diameter_error_median_mm": _median([abs((le.found_mm or 0) - le.longest_mm) for le in found]),
    }


def _pieces(judged: Slides) -> dict[str, int]:
    every = [le for j in judged for le in j.lesions]
    return {
        "metastases": len(every),
        "in_no_piece": sum(le.pieces == 0 for le in every),
        "in_one_piece": sum(le.pieces == 1 for le in every),
        "in_several_pieces": sum(le.pieces > 1 for le in every),
        "most_pieces": max((le.pieces for le in every), default=0),
        "found_lesions_over_several": sum(j.merged for j in judged),
    }


def _calibration(judged: Slides) -> dict[str, Any] | None:
    """None for a model that is not calibrated."""
    known = [j for j in judged if j.detection.slide_probability is not None]
    if not known:
        return None
    truth = [j.reference.tumour for j in known]
    bands: dict[str, list[int]] = {}
    for j in judged:
        bands.setdefault(j.detection.triage, [0, 0])[int(j.reference.tumour)] += 1
    return {
        "slide_ece": expected_calibration_error(truth, [j.detection.slide_probability or 0.0 for j in known]),
        "triage_normal_tumour": bands,
    }


TIMES = ("seconds_total", "seconds_per_slide_median", "seconds_per_slide_most", "mm2_per_second")
"""Of the machine and what else it did: no part of a model's card."""


def _seconds(judged: Slides) -> dict[str, Any]:
    spent = [j.detection.seconds["total"] for j in judged]
    mm2 = sum(j.detection.tissue.mm2 for j in judged)
    return {
        "seconds_total": round(sum(spent), 2),
        "seconds_per_slide_median": _median(spent),
        "seconds_per_slide_most": round(max(spent, default=0.0), 2),
        "mm2_per_second": round(mm2 / sum(spent), 3) if sum(spent) else None,
    }


def _pair(interval: Interval) -> list[float | None]:
    return [_share(v) for v in interval[1:]]


def _share(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _median(values: Sequence[float]) -> float | None:
    return round(float(np.median(values)), 4) if values else None


def _detail(j: JudgedSlide) -> dict[str, Any]:
    return {
        "slide": j.reference.path.name,
        "tumour": j.reference.tumour,
        "class": j.reference.size_class,
        "called": j.called,
        "status": j.detection.status,
        "slide_score": j.detection.slide_score,
        "dice": dice([j]),
        "lesion_scores": list(j.hits.lesions),
        "false_positive_scores": list(j.hits.false_positives),
        "metastases": [{**vars(le), "in_band": le.in_band} for le in j.lesions],
        "seconds": j.detection.seconds,
    }


# -- two readings of the same slides -------------------------------------------------------------------------------------


def compare(
    first: Slides, second: Slides, *, thresholds: tuple[float, float], repeats: int = REPEATS
) -> dict[str, dict[str, Any]]:
    """Each statistic of both readings, and second minus first with its interval, drawn in pairs. Raises ValueError
    when the readings are not of the same slides in the same order."""
    if [j.reference.path.name for j in first] != [j.reference.path.name for j in second]:
        raise ValueError("the two readings are not of the same slides")
    statistics: dict[str, tuple[Callable[[Slides], float | None], Callable[[Slides], float | None]]] = {
        "slide_auc": (slide_auc, slide_auc),
        "froc_2016": (_froc(froc_2016), _froc(froc_2016)),
        "froc_stepped": (_froc(froc_stepped), _froc(froc_stepped)),
        "lesion_sensitivity": (sensitivity, sensitivity),
        "false_positives_per_slide": (
            lambda s: false_per_slide(s, threshold=thresholds[0]),
            lambda s: false_per_slide(s, threshold=thresholds[1]),
        ),
        "dice": (dice, dice),
    }
    pairs = list(zip(first, second, strict=True))
    table = {}
    for name, (of_first, of_second) in statistics.items():
        gap = bootstrap_difference(pairs, _on(1, of_second), _on(0, of_first), repeats=repeats)
        table[name] = {
            "first": of_first(first),
            "second": of_second(second),
            "difference": _share(gap.value),
            "interval": _pair(gap),
        }
    return table


def _froc(statistic: Callable[..., float | None]) -> Callable[[Slides], float | None]:
    return lambda slides: statistic([j.hits for j in slides])


def _on(
    which: int, statistic: Callable[[Slides], float | None]
) -> Callable[[Sequence[tuple[JudgedSlide, JudgedSlide]]], float | None]:
    return lambda pairs: statistic([pair[which] for pair in pairs])
