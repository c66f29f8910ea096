"""Fitting a calibration to a record of validation slides.

Lesion probability: a ridge logistic of few features. Slide probability: 1 - prod(1 - p), or the strongest p, whichever says
more of slides that the fit had not seen, through a second logistic (temperature and bias). What is said of their quality (ECE, reliability) comes from fits that had not seen the slide:
the slides are dealt into five parts, and each part is judged by a fit to the other four. Few slides scatter in their
bins even where every probability is exact: `perfect` says what ECE is to be expected of such probabilities.
All slides with a score are fitted to, the triage band to those that were read whole: no others are ever in a band.
The triage band is a split conformal one on the network's own slide score, which no validation slide has shaped, so
its promise is exact for finite samples as long as new slides are like the validation slides (Vovk; Angelopoulos and
Bates 2021, 1.1): with n tumour slides and the k-th smallest score as the limit, a new one falls below it with a
probability of at most k / (n + 1).
"""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.detector.calibration import (
    COMBINED,
    FEATURES,
    Calibration,
    LesionLogistic,
    SlideLogistic,
    TriageBand,
    lesion_features,
)
from analysis.detector.validation_record import ValidationRecord, ValidationSlide
from analysis.metrics.intervals import bootstrap, wilson

PARTS = 5
LESION_RIDGE = 1.0
SLIDE_RIDGE = 0.25
LOWEST_SLOPE = 0.05
LEAST = (0.0, 0.05)
"""Of `SlideLogistic.least`. Where what is missed is isolated cells, finds weaker than the second part the slides no better than
none do: of 23 validation slides without a find 4 had tumour, and of 67 with such finds alone 6 (`fast`)."""
FEWEST_LESIONS = 10
"""Found lesions of each kind (true, false) without which nothing is fitted."""
FEWEST_SLIDES = 5
BINS = 10
ONLY_OF_FAST = ("scan_score", "scan_grow_probability", "scan_stands_out", "glance_score")
"""Of the reading: what does not touch a `standard` result."""

SUSPICION_RANGE = (0.02, 0.55)
"""Where the scan's limit may lie. A find of the scan is judged by the mean of its strongest cells, which is lower than its peak:
on 60 composed validation slides 0.55 leaves a third of the scan's finds out, of which the reading says 0.75 or more of 2 and
0.85 of none; 0.6 half of them, 6 and 1."""

Floats = NDArray[np.float64]
Judged = tuple[float, bool]
"""A probability and whether it came true."""


class CannotCalibrate(ValueError):
    """The record does not hold enough to fit anything; the message says what is missing."""


@dataclass(frozen=True)
class Rules:
    """What is declared before the record is looked at."""

    alpha: float = 0.05
    sensitivity: float = 0.9
    """The operating threshold is the highest score that still finds this share of the validation lesions."""
    bootstrap_repeats: int = 1000


def calibrate(record: ValidationRecord, rules: Rules) -> Calibration:
    """Raises CannotCalibrate."""
    slides = [slide for slide in record.slides if slide.scored]
    whole = [slide for slide in slides if slide.assessed]
    _check_enough(slides)
    lesion = fit_lesions(slides)
    held_out = _held_out(slides)
    (of, least), judged_slides = _better_combination(held_out)
    slide = fit_slides([chances for _, chances in held_out], [s.tumour for s, _ in held_out], of=of, least=least)
    judged_lesions = [
        [(p, bool(le["hit"])) for p, le in zip(chances, s.lesions, strict=True)] for s, chances in held_out
    ]
    return Calibration(
        weights_sha256=record.weights_sha256,
        profile=record.profile,
        read={k: v for k, v in record.read.items() if record.profile == "fast" or k not in ONLY_OF_FAST},
        fitted_on={
            "record_sha256": record.sha256,
            "composed": record.composed,
            "slides": len(slides),
            "with_tumour": sum(s.tumour for s in slides),
            "read_whole": len(whole),
            "left_out_without_score": len(record.slides) - len(slides),
            "lesions_found": sum(len(s.lesions) for s in slides),
            "of_them_tumour": sum(bool(le["hit"]) for s in slides for le in s.lesions),
            "judged_by": f"fits that had not seen the slide, {PARTS} parts",
        },
        lesion=lesion,
        slide=slide,
        threshold=operating_threshold(slides, sensitivity=rules.sensitivity),
        triage=triage_band(
            [s.slide_score or 0.0 for s in whole if s.tumour],
            [s.slide_score or 0.0 for s in whole if not s.tumour],
            alpha=rules.alpha,
            composed=record.composed,
        ),
        ece={
            "lesion": _ece_facts(judged_lesions, rules.bootstrap_repeats),
            "slide": _ece_facts([[pair] for pair in judged_slides], rules.bootstrap_repeats),
        },
        reliability={
            "lesion": reliability_table([pair for pairs in judged_lesions for pair in pairs]),
            "slide": reliability_table(judged_slides),
        },
    )


def _check_enough(slides: Sequence[ValidationSlide]) -> None:
    hits = [bool(le["hit"]) for s in slides for le in s.lesions]
    tumour = sum(s.tumour for s in slides)
    counts = {
        "true lesions found": (sum(hits), FEWEST_LESIONS),
        "false lesions found": (len(hits) - sum(hits), FEWEST_LESIONS),
        "slides with tumour": (tumour, FEWEST_SLIDES),
        "slides without tumour": (len(slides) - tumour, FEWEST_SLIDES),
    }
    short = [f"{n} {name} ({least} needed)" for name, (n, least) in counts.items() if n < least]
    if short:
        raise CannotCalibrate(f"too few to calibrate, in slides that have a score: {', '.join(short)}")


# -- the two fits --------------------------------------------------------------------------------------------------------


def fit_logistic(x: Floats, y: Floats, *, ridge: float, prior: Floats) -> Floats:
    """Newton's method on the penalised log likelihood. x (n, k), y (n,) of 0 and 1; returns k weights, then the intercept.

    `ridge` times half the squared distance to `prior` (k,) is the penalty; the intercept is free.
    """
    design = np.column_stack([x, np.ones(len(x))])
    target = np.append(prior, 0.0)
    pull = np.append(np.full(x.shape[1], ridge), 1e-6)
    w = target.copy()

    def loss(w: Floats) -> float:
        z = design @ w
        return float((np.logaddexp(0, z) - y * z).sum() + (pull * (w - target) ** 2).sum() / 2)

    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ w, -500, 500)))
        gradient = design.T @ (p - y) + pull * (w - target)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(curvature, gradient)
        size, now = 1.0, loss(w)
        while loss(w - size * step) > now and size > 1e-8:
            size /= 2
        w = w - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    return w


def fit_lesions(slides: Sequence[ValidationSlide]) -> LesionLogistic:
    x = np.array([lesion_features(le) for s in slides for le in s.lesions], np.float64).reshape(-1, len(FEATURES))
    y = np.array([bool(le["hit"]) for s in slides for le in s.lesions], np.float64)
    centre = x.mean(axis=0)
    scale = np.maximum(x.std(axis=0), 1e-3)
    w = fit_logistic((x - centre) / scale, y, ridge=LESION_RIDGE, prior=np.zeros(len(FEATURES)))
    return LesionLogistic(_rounded(centre), _rounded(scale), _rounded(w[:-1]), round(float(w[-1]), 6))


def fit_slides(
    chances: Sequence[Sequence[float]], tumour: Sequence[bool], *, of: str, least: float = 0.0
) -> SlideLogistic:
    """`chances`: the lesion probabilities of each slide. `of`, `least`: as in SlideLogistic."""
    unfitted = SlideLogistic(slope=1.0, bias=0.0, of=of, least=least)
    x = np.array([[unfitted.logit_of(of_slide)] for of_slide in chances], np.float64)
    w = fit_logistic(x, np.array(tumour, np.float64), ridge=SLIDE_RIDGE, prior=np.ones(1))
    slope, bias = round(max(float(w[0]), LOWEST_SLOPE), 6), round(float(w[1]), 6)
    return dataclasses.replace(unfitted, slope=slope, bias=bias)


def _held_out(slides: Sequence[ValidationSlide]) -> list[tuple[ValidationSlide, list[float]]]:
    """Each slide with the probabilities that a fit to the other parts gives its lesions."""
    part = parts_of(slides)
    chances: dict[int, list[float]] = {}
    for k in range(PARTS):
        others = [s for s, p in zip(slides, part, strict=True) if p != k]
        hits = {bool(le["hit"]) for s in others for le in s.lesions}
        fit = fit_lesions(others if len(hits) == 2 else slides)
        for i, slide in enumerate(slides):
            if part[i] == k:
                chances[i] = [fit.probability(lesion_features(le)) for le in slide.lesions]
    return [(slide, chances[i]) for i, slide in enumerate(slides)]


def _better_combination(
    held_out: Sequence[tuple[ValidationSlide, list[float]]],
) -> tuple[tuple[str, float], list[Judged]]:
    """Which of COMBINED and of LEAST have the smallest Brier score on slides that the fit had not seen, and what they say of
    them."""
    ways = list(itertools.product(COMBINED, LEAST))
    judged = {way: _held_out_slide_chances(held_out, of=way[0], least=way[1]) for way in ways}
    best = min(judged, key=lambda way: sum((p - came_true) ** 2 for p, came_true in judged[way]))
    return best, judged[best]


def _held_out_slide_chances(
    held_out: Sequence[tuple[ValidationSlide, list[float]]], *, of: str, least: float
) -> list[Judged]:
    part = parts_of([slide for slide, _ in held_out])
    judged: list[Judged] = []
    for (slide, chances), k in zip(held_out, part, strict=True):
        others = [one for one, p in zip(held_out, part, strict=True) if p != k]
        fit = fit_slides([c for _, c in others], [s.tumour for s, _ in others], of=of, least=least)
        judged.append((fit.probability(chances), slide.tumour))
    return judged


def parts_of(slides: Sequence[ValidationSlide]) -> list[int]:
    """The part of each slide: dealt round by the hash of the name, tumour slides and others apart."""
    order = sorted(
        range(len(slides)),
        key=lambda i: (slides[i].tumour, hashlib.sha256(slides[i].name.encode()).hexdigest()),
    )
    part = [0] * len(slides)
    for place, i in enumerate(order):
        part[i] = place % PARTS
    return part


# -- limits --------------------------------------------------------------------------------------------------------------


def operating_threshold(slides: Sequence[ValidationSlide], *, sensitivity: float) -> dict[str, Any]:
    """The highest lesion score at which at least `sensitivity` of the true lesions (ITC left out) are found."""
    best = sorted((score for s in slides for score in _best_scores(s)), reverse=True)
    if not best:
        raise CannotCalibrate("no validation slide holds a lesion larger than isolated tumour cells")
    if not best[0]:
        raise CannotCalibrate(
            "no lesion of the validation slides larger than isolated tumour cells is found at any score"
        )
    needed = math.ceil(sensitivity * len(best) - 1e-9)
    reached = best[needed - 1] > 0
    score = best[needed - 1] if reached else min(score for score in best if score > 0)
    found = sum(one >= score for one in best)
    false = sum(le["score"] >= score for s in slides for le in s.lesions if not le["hit"])
    rule = (
        f"highest score that finds at least {sensitivity:.0%} of the validation lesions, isolated tumour cells left out"
    )
    if not reached:
        rule += f"; not reached at any score ({found} of {len(best)} lesions are found at all), so the lowest score"
    return {
        "score": score,
        "rule": rule,
        "lesions": len(best),
        "found": found,
        "sensitivity": [round(v, 4) for v in wilson(found, len(best))],
        "false_per_slide": round(false / len(slides), 4),
    }


def _best_scores(slide: ValidationSlide) -> list[float]:
    return [
        max((float(le["score"]) for le in slide.lesions if le["hit"] == true["label"]), default=0.0)
        for true in slide.truth
        if not true["itc"]
    ]


def triage_band(positive: Sequence[float], negative: Sequence[float], *, alpha: float, composed: bool) -> TriageBand:
    """From slide scores of validation slides with and without tumour (isolated tumour cells are tumour here)."""
    low = math.floor(alpha * (len(positive) + 1) + 1e-9)
    high = math.floor(alpha * (len(negative) + 1) + 1e-9)
    limit = sorted(negative, reverse=True)[high - 1] if high else None
    return TriageBand(
        alpha=alpha,
        positives=len(positive),
        needed=slides_needed(alpha),
        negative_below=sorted(positive)[low - 1] if low else None,
        negatives=len(negative),
        # strictly above: a new slide that ties with the limit counts for it
        positive_from=None if limit is None else float(np.nextafter(limit, 2.0)) if limit < 1 else None,
        composed=composed,
    )


def slides_needed(alpha: float) -> int:
    """The fewest slides with which split conformal can promise `alpha`: 19 for 5 %, 99 for 1 %."""
    return math.ceil(1 / alpha - 1e-9) - 1


def suspicion_threshold(
    scanned: ValidationRecord, reading: ValidationRecord, *, sensitivity: float = Rules.sensitivity, share: float = 0.99
) -> dict[str, Any]:
    """The highest probability of the scan that at least `share` of what the reading finds reaches somewhere.

    `scanned` and `reading`: the same slides as the scan and as `standard` see them. What counts is found by the reading at
    the threshold for `sensitivity`, isolated tumour cells left out: what the reading does not find, no scan can lose.
    Raises CannotCalibrate.
    """
    threshold = operating_threshold([s for s in reading.slides if s.scored], sensitivity=sensitivity)["score"]
    found = {(s.name, le["hit"]) for s in reading.slides for le in s.lesions if le["hit"] and le["score"] >= threshold}
    lesions = [(s.name, t) for s in scanned.slides for t in s.truth if not t["itc"]]
    peaks = sorted(float(t["peak"]) for name, t in lesions if (name, t["label"]) in found)
    if not peaks:
        raise CannotCalibrate(
            "of lesions larger than isolated tumour cells the reading finds none on the slides that were scanned"
        )
    may_miss = math.floor((1 - share) * len(peaks) + 1e-9)
    low, high = SUSPICION_RANGE
    value = round(min(max(peaks[may_miss] - 0.005, low), high), 3)
    return {
        "value": value,
        "rule": f"highest probability of the scan ({low:g} to {high:g}) that at least {share:.0%} of the validation lesions reach "
        f"that the reading finds at {threshold:g}",
        "lesions": len(peaks),
        "reached": sum(p >= value for p in peaks),
        "record_sha256": scanned.sha256,
    }


# -- how well it fits ----------------------------------------------------------------------------------------------------


def equal_mass_bins(judged: Sequence[Judged], bins: int = BINS) -> list[list[Judged]]:
    """At most `bins` groups of about as many pairs each, by rising probability; equal probabilities are never parted."""
    ordered = sorted(judged, key=lambda pair: pair[0])
    n = len(ordered)
    cuts = [0]
    for k in range(1, bins + 1):
        cut = round(k * n / bins)
        while 0 < cut < n and ordered[cut][0] == ordered[cut - 1][0]:
            cut += 1
        if cut > cuts[-1]:
            cuts.append(cut)
    return [ordered[a:b] for a, b in itertools.pairwise(cuts)]


def expected_calibration_error(judged: Sequence[Judged], bins: int = BINS) -> float | None:
    """Mean over pairs of |mean probability - share that came true| of their bin; None without pairs."""
    if not judged:
        return None
    gaps = [abs(sum(p for p, _ in group) - sum(y for _, y in group)) for group in equal_mass_bins(judged, bins)]
    return sum(gaps) / len(judged)


def reliability_table(judged: Sequence[Judged], bins: int = BINS) -> list[dict[str, Any]]:
    rows = []
    for group in equal_mass_bins(judged, bins):
        came_true = sum(y for _, y in group)
        share = wilson(came_true, len(group))
        rows.append(
            {
                "n": len(group),
                "from": round(group[0][0], 4),
                "to": round(group[-1][0], 4),
                "mean": round(sum(p for p, _ in group) / len(group), 4),
                "share": round(share.value, 4),
                "low": round(share.low, 4),
                "high": round(share.high, 4),
            }
        )
    return rows


def _ece_facts(by_slide: Sequence[Sequence[Judged]], repeats: int) -> dict[str, Any]:
    """The interval draws whole slides. Drawing adds scatter and so lifts ECE: the lower end may have to be the value itself."""
    statistic: Callable[[Sequence[Sequence[Judged]]], float | None] = lambda drawn: expected_calibration_error(  # noqa: E731
        [pair for pairs in drawn for pair in pairs]
    )
    value, low, high = bootstrap(list(by_slide), statistic, repeats=repeats)
    chances = [p for pairs in by_slide for p, _ in pairs]
    return {
        "value": round(value, 4),
        "low": round(min(low, value), 4),
        "high": round(high, 4),
        "perfect": round(ece_of_perfect(chances), 4),
        "n": len(chances),
        "bins": BINS,
    }


def ece_of_perfect(chances: Sequence[float], *, repeats: int = 200) -> float:
    """Mean ECE of outcomes drawn with exactly these probabilities."""
    rng = np.random.default_rng(0)
    drawn = [
        expected_calibration_error(
            [(p, bool(hit)) for p, hit in zip(chances, rng.random(len(chances)) < chances, strict=True)]
        )
        for _ in range(repeats)
    ]
    return float(np.mean([value for value in drawn if value is not None])) if chances else 0.0


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(v), 6) for v in values)
