"""Regions from a counted number of composed slides: what a laboratory has that annotated so many slides and no more.

Each slide is quilted from tissue of its own (some patches of one scanner, as one patient's node would be), half of the
slides carry lesions. Composing takes seconds a slide, so that a folder may keep slides and sheets between runs.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label

from analysis.detector.composing.composed_slide import NoRoom, SlidePlan, compose_slide
from analysis.detector.composing.outlines import LesionOutline
from analysis.detector.composing.sheets import QuiltedTissue
from analysis.detector.composing.tissue_pool import TissuePools
from analysis.detector.patch_file import PatchSet
from analysis.detector.training.regions import Region, Sheets, make_sheets, resampled
from analysis.detector.turning import turn

TRAINING_SLIDES = 40
WIDTH, HEIGHT = 1408, 1280
"""px; about 1.7 mm2 with its node, so that 40 slides are composed in some minutes."""
PATCHES_OF_A_SLIDE = 40
LESION_PLANS = (("micro",), ("micro", "itc"), ("itc", "itc"), ("micro", "itc", "itc"))
_RIM_PX = 3
_TISSUE_SHARE = 0.3
_TRIES = 20


@dataclass(frozen=True)
class FixedSlide:
    rgb: NDArray[np.uint8]  # (H, W, 3)
    instance: NDArray[np.int16]  # (H, W) 0 = normal, k = lesion k
    tissue: NDArray[np.bool_]  # (H, W)


class SlideRegions:
    """Half of the regions centre on a lesion, each lesion as often as another; the others lie on tissue of any slide."""

    def __init__(self, slides: list[FixedSlide], *, side: int, output_side: int) -> None:
        self.slides, self.side, self.output_side = slides, side, output_side
        self.lesions = [(i, k) for i, s in enumerate(slides) for k in range(1, int(s.instance.max()) + 1)]

    def make(self, rng: np.random.Generator) -> Region:
        if self.lesions and rng.random() < 0.5:
            index, number = self.lesions[int(rng.integers(len(self.lesions)))]
            slide = self.slides[index]
            place = slide.instance == number
        else:
            slide = self.slides[int(rng.integers(len(self.slides)))]
            place = slide.tissue
        ys, xs = np.nonzero(place)
        chosen = int(rng.integers(len(ys)))
        off = rng.integers(-self.side // 4, self.side // 4 + 1, 2)
        return self._cut(slide, int(ys[chosen] + off[0]), int(xs[chosen] + off[1]), rng)

    def _cut(self, slide: FixedSlide, y: int, x: int, rng: np.random.Generator) -> Region:
        """Mirrored where the slide ends; the rim of a lesion carries no loss."""
        half, which = self.side // 2, int(rng.integers(8))
        rows = _mirror(np.arange(y - half, y - half + self.side), slide.rgb.shape[0])
        cols = _mirror(np.arange(x - half, x - half + self.side), slide.rgb.shape[1])
        grid = np.ix_(rows, cols)
        rgb, instance = (np.ascontiguousarray(turn(a[grid], which)) for a in (slide.rgb, slide.instance))
        # mirroring and cutting part a lesion in pieces that are lesions of their own
        pieces, _ = label(instance > 0, structure=np.ones((3, 3)))
        lesion = pieces > 0
        rim = binary_dilation(lesion, iterations=_RIM_PX) & ~lesion
        region = Region(rgb=rgb.astype(np.uint8), instance=pieces.astype(np.int16), ignore=rim)
        return resampled(region, side=self.output_side)


def _mirror(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    index = np.mod(index, 2 * n)
    return np.where(index < n, index, 2 * n - 1 - index)


def key_of(patches: PatchSet, hard: PatchSet) -> str:
    """Names the tissue that patches can give: by their pixels and stains, for the same patch may have been compressed since, or
    its scanner be told otherwise."""
    digest = hashlib.sha256()
    for some in (patches, hard):
        digest.update("\n".join(sorted(str(i) for i in some.ids)).encode() + b"\0")
        order = np.argsort(some.ids)
        digest.update(np.ascontiguousarray(some.rgb[order]).data)
        digest.update("\n".join(str(stain) for stain in some.stain[order]).encode())
    return digest.hexdigest()[:16]


def slide_order(*, seed: int) -> list[int]:
    """All slide numbers, shuffled, in turns one with lesions and one without."""
    rng = np.random.default_rng(seed)
    pairs = zip(rng.permutation(TRAINING_SLIDES // 2), rng.permutation(TRAINING_SLIDES // 2), strict=True)
    return [number for a, b in pairs for number in (2 * int(a), 2 * int(b) + 1)]


def training_slide(
    number: int,
    *,
    pools: list[TissuePools],
    outlines: list[LesionOutline],
    mpp: float,
    cache: Path | None,
    tissue: str,
) -> FixedSlide:
    """Slide `number` of the tissue that `tissue` names; even numbers carry lesions."""
    path = cache / f"slide-{tissue}-{number:03d}.npz" if cache else None
    if path is not None and path.exists():
        with np.load(path, allow_pickle=False) as stored:
            return FixedSlide(stored["rgb"], stored["instance"], stored["tissue"])
    rng = np.random.default_rng([number, int(tissue[:8], 16)])
    own = pools[(number // 2) % len(pools)]
    patches = {
        name: getattr(own, name)[rng.permutation(len(getattr(own, name)))[:PATCHES_OF_A_SLIDE]]
        for name in Sheets.__dataclass_fields__
    }
    lesions = LESION_PLANS[(number // 2) % len(LESION_PLANS)] if number % 2 == 0 else ()
    slide = _composed(lesions, replace(own, **patches), outlines, mpp, rng)
    if path is not None:
        _keep(path, vars(slide))
    return slide


def _composed(
    lesions: tuple[str, ...],
    pools: TissuePools,
    outlines: list[LesionOutline],
    mpp: float,
    rng: np.random.Generator,
) -> FixedSlide:
    plan = SlidePlan(width=WIDTH, height=HEIGHT, nodes=1, lesions=lesions, mpp=mpp)
    for _ in range(_TRIES):
        try:
            composed = compose_slide(plan, tissue=QuiltedTissue(pools), outlines=outlines, rng=rng)
        except NoRoom:
            continue
        instance, _ = label(composed.tumour, structure=np.ones((3, 3)))
        inside = np.any(composed.nodes, axis=0) if composed.nodes else np.ones(composed.tumour.shape, bool)
        return FixedSlide(composed.rgb, instance.astype(np.int16), inside)
    raise NoRoom(f"lesions {', '.join(lesions)} do not fit on a training slide")


def cached_sheets(
    pools: TissuePools, *, side: int, rng: np.random.Generator, cache: Path | None, tissue: str
) -> Sheets:
    if cache is None:
        return make_sheets(pools, side=side, rng=rng)
    path = cache / f"sheets-{tissue}-{pools.stain}-{side}.npz"
    if not path.exists():
        _keep(path, vars(make_sheets(pools, side=side, rng=np.random.default_rng(int(tissue[:8], 16)))))
    with np.load(path, allow_pickle=False) as stored:
        return Sheets(**{name: stored[name] for name in Sheets.__dataclass_fields__})


def _keep(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(unfinished, path)
