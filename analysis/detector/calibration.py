"""What a calibration of a model version is, and what it makes of a detection. Without torch: the web process shows it.

It belongs to one set of weights, one profile and one way of reading; for any other the result says "not calibrated".
It is fitted by `calibrating.py` on validation slides and kept in the card under `calibration`, one for each profile.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.detector.detection import NOT_CALIBRATED, Detection, LesionFinding

FORMAT = 1
FEATURES = ("logit_score", "logit_mean", "log_area", "logit_box")
SURE = 1e-4
"""Probabilities are kept this far from 0 and 1 before their logit is taken."""
NO_BOX = 0.01
"""Stands for the box score of a lesion that no box supports."""
AREA_UNIT_MM2 = 0.01

NOT_FOR_THIS_READING = "Not calibrated for this way of reading: the scores are the network's own and no probabilities."
BANDS = ("ai_negative", "must_review", "ai_positive", "none", "cannot_assess")


class CalibrationDamaged(ValueError):
    """The calibration in the card cannot be trusted; the message says why in words."""


@dataclass(frozen=True)
class LesionLogistic:
    """P(tumour) = sigmoid(intercept + sum of weight * (feature - centre) / scale), features in the order of FEATURES."""

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def probability(self, features: Sequence[float]) -> float:
        standard = ((f - c) / s for f, c, s in zip(features, self.centre, self.scale, strict=True))
        return sigmoid(self.intercept + sum(w * f for w, f in zip(self.weights, standard, strict=True)))


@dataclass(frozen=True)
class SlideLogistic:
    """P(tumour on the slide) = sigmoid(slope * logit(q) + bias); 1 / slope is the temperature. q is 1 - prod(1 - p_lesion), as
    if finds were independent, or that of the strongest lesion alone; at least `least`."""

    slope: float
    bias: float
    of: str = "any"
    """One of COMBINED."""
    least: float = 0.0
    """How weak finds may be to say something of a slide: without any it is no surer to be normal than with these."""

    def probability(self, lesion_probabilities: Iterable[float]) -> float:
        return sigmoid(self.slope * self.logit_of(lesion_probabilities) + self.bias)

    def logit_of(self, lesion_probabilities: Iterable[float]) -> float:
        """Of q."""
        return logit(max(COMBINED[self.of](lesion_probabilities), self.least))


@dataclass(frozen=True)
class TriageBand:
    """Limits on the slide score. They promise shares only while slides are like those of the validation."""

    alpha: float
    """Of slides with tumour at most this share falls below `negative_below`."""
    positives: int
    needed: int
    """Tumour slides that a promise of alpha needs at least."""
    negative_below: float | None
    """None: too few tumour slides to promise."""
    negatives: int
    positive_from: float | None
    """Of slides without tumour at most alpha reach this. None: too few of them to promise."""
    composed: bool

    @property
    def _made(self) -> str:
        return " composed" if self.composed else ""

    @property
    def promise(self) -> str:
        if self.negative_below is None:
            return (
                f"No AI-negative band: too few tumour slides to promise that at most {self.alpha:.0%} of them are missed "
                f"({self.positives} of the {self.needed} needed)."
            )
        return (
            f"Of slides with tumour at most {self.alpha:.0%} fall in the AI-negative band "
            f"(split conformal, {self.positives}{self._made} tumour slides), as long as slides are like these."
        )

    def of(self, score: float) -> tuple[str, str]:
        """Band and words of a slide that was read whole."""
        low, high = self.negative_below, self.positive_from
        if low is not None and score < low and (high is None or score < high):
            return "ai_negative", f"AI-negative band. {self.promise}"
        if high is not None and score >= high and (low is None or score >= low):
            return "ai_positive", (
                f"AI-positive band. Of slides without tumour at most {self.alpha:.0%} fall here "
                f"(split conformal, {self.negatives}{self._made} slides), as long as slides are like these."
            )
        if low is None:
            return "none", self.promise
        return "must_review", f"Must be reviewed: between the bands. {self.promise}"


@dataclass(frozen=True)
class Calibration:
    weights_sha256: str
    profile: str
    read: Mapping[str, Any]
    """The reading (`ReadConfig`) that it was fitted for."""
    fitted_on: Mapping[str, Any]
    lesion: LesionLogistic
    slide: SlideLogistic
    threshold: Mapping[str, Any]
    triage: TriageBand
    ece: Mapping[str, Any]
    reliability: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        if not self.slide.least:  # as it was before there was such a limit: the digest stays
            del content["slide"]["least"]
        return content

    @property
    def reliability_rows(self) -> list[dict[str, Any]]:
        """Slides, then lesions; `from` is no name that a template can say."""
        return [
            {**row, "kind": kind, "low_p": row["from"], "high_p": row["to"]}
            for kind, name in (("slides", "slide"), ("lesions", "lesion"))
            for row in self.reliability[name]
        ]

    @property
    def digest(self) -> str:
        """Of its content: results that carry another digest were calibrated otherwise."""
        return _digest(self.to_json())

    def fits(self, *, profile: str, read: Mapping[str, Any]) -> bool:
        return self.profile == profile and all(read.get(key) == value for key, value in self.read.items())


def calibrations_of(card: Mapping[str, Any], *, weights_sha256: str) -> dict[str, Calibration]:
    """By profile; empty for a card without. Raises CalibrationDamaged."""
    stored = card.get("calibration")
    if stored is None:
        return {}
    if not isinstance(stored, dict):
        raise CalibrationDamaged("the calibration is not a table")
    return {profile: _calibration(profile, one, weights_sha256) for profile, one in stored.items()}


def calibrated(detection: Detection, *, card: Mapping[str, Any], read: Mapping[str, Any]) -> Detection:
    """The detection with probabilities and triage band, or with the words why it has none. `read`: how it was read."""
    sha256, profile = detection.model.get("sha256", ""), detection.model.get("profile", "")
    known = calibrations_of(card, weights_sha256=sha256).get(profile)
    found = known if known is not None and known.fits(profile=profile, read=read) else None
    if found is None:
        words = NOT_CALIBRATED if known is None else NOT_FOR_THIS_READING
        band, words = _band_by_status(detection) or ("none", words)
        return dataclasses.replace(detection, triage=band, triage_words=words)
    lesions = tuple(
        dataclasses.replace(le, probability=round(found.lesion.probability(lesion_features(le)), 4))
        for le in detection.lesions
    )
    assessed = detection.slide_score is not None and detection.status != "cannot_assess"
    chances = [found.lesion.probability(lesion_features(le)) for le in detection.lesions]
    band, words = _band_by_status(detection) or found.triage.of(detection.slide_score or 0.0)
    return dataclasses.replace(
        detection,
        lesions=lesions,
        slide_probability=round(found.slide.probability(chances), 4) if assessed else None,
        triage=band,
        triage_words=words,
        calibration=found.digest,
    )


def _band_by_status(detection: Detection) -> tuple[str, str] | None:
    """A slide that was not read whole is in no band, whatever its score: what was not seen is not negative."""
    if detection.status == "cannot_assess" or detection.slide_score is None:
        return "cannot_assess", f"The AI cannot assess this slide. {detection.status_reason}".strip()
    if detection.status != "complete":
        return "must_review", f"Must be reviewed: not all of the tissue was judged. {detection.status_reason}".strip()
    return None


def lesion_features(lesion: LesionFinding | Mapping[str, Any]) -> tuple[float, ...]:
    """In the order of FEATURES, from a finding or its JSON."""
    facts = lesion if isinstance(lesion, Mapping) else vars(lesion)
    box = facts.get("box_score")
    return (
        logit(facts["score"]),
        logit(facts["mean_p"]),
        math.log(max(facts["area_mm2"], 1e-6) / AREA_UNIT_MM2),
        logit(NO_BOX if box is None else max(box, NO_BOX)),
    )


def any_of(probabilities: Iterable[float]) -> float:
    """That at least one is true, were they independent: 1 - prod(1 - p)."""
    none = 1.0
    for p in probabilities:
        none *= 1 - p
    return 1 - none


def strongest_of(probabilities: Iterable[float]) -> float:
    return max(probabilities, default=0.0)


COMBINED: dict[str, Callable[[Iterable[float]], float]] = {"any": any_of, "strongest": strongest_of}
"""How the probabilities of a slide's lesions become one. Weak finds of one slide err together: whichever says more of slides
that a fit had not seen is taken."""


def logit(p: float) -> float:
    p = min(max(p, SURE), 1 - SURE)
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


# -- reading what a card says --------------------------------------------------------------------------------------------


def _calibration(profile: str, stored: Any, weights_sha256: str) -> Calibration:
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise CalibrationDamaged(f"the calibration of profile {profile} is not of format {FORMAT}")
    if stored.get("weights_sha256") != weights_sha256:
        raise CalibrationDamaged(f"the calibration of profile {profile} was fitted on other weights; calibrate again")
    if stored.get("profile") != profile:
        raise CalibrationDamaged(f"the calibration of profile {profile} was fitted for profile {stored.get('profile')}")
    try:
        lesion, slide, triage = stored["lesion"], stored["slide"], stored["triage"]
        found = Calibration(
            weights_sha256=weights_sha256,
            profile=profile,
            read=dict(stored["read"]),
            fitted_on=dict(stored["fitted_on"]),
            lesion=LesionLogistic(
                **{key: _numbers(lesion[key]) for key in ("centre", "scale", "weights")},
                intercept=_number(lesion["intercept"]),
            ),
            slide=SlideLogistic(
                _number(slide["slope"]),
                _number(slide["bias"]),
                of=str(slide.get("of", "any")),
                least=_number(slide.get("least", 0.0)),
            ),
            threshold=dict(stored["threshold"]),
            triage=TriageBand(**triage),
            ece=dict(stored["ece"]),
            reliability=dict(stored["reliability"]),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise CalibrationDamaged(f"the calibration of profile {profile} is damaged ({problem!r})") from problem
    _check(found)
    return found


def _check(found: Calibration) -> None:
    fit = found.lesion
    if {len(fit.centre), len(fit.scale), len(fit.weights)} != {len(FEATURES)} or min(fit.scale) <= 0:
        raise CalibrationDamaged(f"the lesion fit of profile {found.profile} does not have {len(FEATURES)} features")
    if found.slide.of not in COMBINED:
        raise CalibrationDamaged(f"the slide fit of profile {found.profile} takes {found.slide.of!r} of its lesions")
    if not 0 <= found.slide.least < 1:
        raise CalibrationDamaged(f"the slide fit of profile {found.profile} takes weak finds for {found.slide.least:g}")
    if found.slide.slope <= 0:
        raise CalibrationDamaged(f"the slide fit of profile {found.profile} falls with rising scores")
    band = found.triage
    limits = [limit for limit in (band.negative_below, band.positive_from) if limit is not None]
    if not 0 < band.alpha < 1 or any(not 0 <= _number(limit) <= 1 for limit in limits):
        raise CalibrationDamaged(f"the triage band of profile {found.profile} lies outside of 0 to 1")
    if band.negative_below is not None and band.positives < band.needed:
        raise CalibrationDamaged(f"the triage band of profile {found.profile} promises more than its slides allow")


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(_number(value) for value in values)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
