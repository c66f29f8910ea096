"""The plan of a set of composed slides: how many with which lesions, decoys and artefacts. Fixed by its seed."""

from dataclasses import dataclass

import numpy as np

from analysis.detector.composing.artefacts import PlacedArtefact, lay_blur, lay_fold, lay_ink
from analysis.detector.composing.composed_slide import WHOLE_RANGE_UM, ComposedSlide, Decoy, SlidePlan

ITC_ONLY_SHARE, MICRO_SHARE = 0.2, 0.4
"""Of the slides with lesions, where nothing else is asked for; the rest have one macrometastasis."""
STAINS = ("brown", "purple")
CANVAS_PX = (6144, 4096)
"""Width and height at the spacing of the patches: 6.0 x 4.0 mm, half of it tissue."""
_DECOY_TISSUES = {"other_normal": 0.55, "pale_normal": 0.25, "lymphoid": 0.20}


@dataclass(frozen=True)
class PlannedSlide:
    name: str
    stain: str
    group: str
    """negative, itc, micro or macro: the class of its largest lesion."""
    plan: SlidePlan
    folds: int
    blurs: int
    strokes: int


def plan_set(
    *,
    prefix: str,
    slides: int,
    seed: int,
    mpp: float,
    canvas_px: tuple[int, int] = CANVAS_PX,
    stains: tuple[str, ...] = STAINS,
    itc_only_share: float = ITC_ONLY_SHARE,
    micro_share: float = MICRO_SHARE,
) -> list[PlannedSlide]:
    """Half of the slides without lesions; both stains alike in every group; the order is shuffled."""
    rng = np.random.default_rng([seed, 0])
    with_lesions = slides // 2
    itc_only, micro = round(with_lesions * itc_only_share), round(with_lesions * micro_share)
    groups = ["itc"] * itc_only + ["micro"] * micro + ["macro"] * (with_lesions - itc_only - micro)
    groups += ["negative"] * (slides - with_lesions)
    pairs = [(group, stains[i % len(stains)]) for i, group in enumerate(groups)]
    order = rng.permutation(len(pairs))
    return [
        _planned(f"{prefix}_{number:03d}", *pairs[i], mpp=mpp, canvas_px=canvas_px, rng=rng)
        for number, i in enumerate(order, start=1)
    ]


def _planned(
    name: str, group: str, stain: str, *, mpp: float, canvas_px: tuple[int, int], rng: np.random.Generator
) -> PlannedSlide:
    plan = SlidePlan(
        width=canvas_px[0],
        height=canvas_px[1],
        nodes=int(rng.integers(1, 3 if group == "macro" else 5)),
        lesions=_lesions(group, rng),
        mpp=mpp,
        longest_um=WHOLE_RANGE_UM,
        decoys=_decoys(int(rng.integers(5, 10)) if group == "negative" else int(rng.integers(2, 5)), rng),
        fat_lobules=int(rng.integers(0, 3)),
    )
    folds, blurs, strokes = (int(v) for v in rng.choice(3, 3, p=[0.5, 0.35, 0.15]))
    return PlannedSlide(name, stain, group, plan, folds=folds, blurs=blurs, strokes=strokes)


def _lesions(group: str, rng: np.random.Generator) -> tuple[str, ...]:
    if group == "negative":
        return ()
    if group == "itc":
        return ("itc",) * int(rng.integers(1, 4))
    itc = ("itc",) * int(rng.choice(3, p=[0.5, 0.3, 0.2]))
    if group == "micro":
        return ("micro",) * int(rng.integers(1, 4)) + itc
    return ("macro", *("micro",) * int(rng.integers(0, 3)), *itc)


def _decoys(n: int, rng: np.random.Generator) -> tuple[Decoy, ...]:
    tissues = rng.choice(list(_DECOY_TISSUES), n, p=list(_DECOY_TISSUES.values()))
    classes = rng.choice(["itc", "micro", "macro"], n, p=[0.3, 0.55, 0.15])
    return tuple(Decoy(str(t), str(c)) for t, c in zip(tissues, classes, strict=True))


def lay_artefacts(slide: ComposedSlide, planned: PlannedSlide, rng: np.random.Generator) -> list[PlacedArtefact]:
    acts = [lay_fold] * planned.folds + [lay_blur] * planned.blurs + [lay_ink] * planned.strokes
    return [placed for placed in (act(slide, rng) for act in acts) if placed is not None]
