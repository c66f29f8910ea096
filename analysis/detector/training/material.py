"""What one training run learns from: which patches go where, and the maker of composed regions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.detector.composing.outlines import load_outlines
from analysis.detector.composing.tissue_pool import PoolTooSmall, build_pools
from analysis.detector.configuration import DetectorConfig
from analysis.detector.patch_file import PatchSet, load_patches, percent_of
from analysis.detector.reference_data import reference_data_folder
from analysis.detector.training.regions import RegionMaker, make_sheets


@dataclass(frozen=True)
class Material:
    positive: PatchSet
    negative: PatchSet
    hard_negative: PatchSet
    validation: PatchSet
    test: PatchSet
    """Only ever scored, once, after the last choice was made."""
    test_hard_negative: PatchSet
    regions: RegionMaker | None

    def counts(self) -> dict[str, int]:
        return {
            "train_tumour": len(self.positive),
            "train_normal": len(self.negative),
            "train_hard_negatives": len(self.hard_negative),
            "validation": len(self.validation),
            "test": len(self.test),
        }


def join(sets: list[PatchSet]) -> PatchSet:
    return PatchSet(*(np.concatenate([getattr(s, name) for s in sets]) for name in PatchSet.__dataclass_fields__))


def load_material(config: DetectorConfig, *, rng: np.random.Generator) -> Material:
    data = config.data
    folder = reference_data_folder(data.folder)
    patches = join([load_patches(folder / name) for name in data.patches])
    hard = join([load_patches(folder / name) for name in data.hard_negatives]) if data.hard_negatives else None
    hard = hard if hard is not None else patches.where(np.zeros(len(patches), bool))
    test_fold, known = patches.fold == data.test_fold, patches.label >= 0
    kept = _kept_aside(patches.ids, percent=data.validation_percent)
    train = patches.where(_limit(~test_fold & known & ~kept, data.max_patches, rng))
    hard_train = hard.where((hard.fold != data.test_fold) & ~_kept_aside(hard.ids, percent=data.validation_percent))
    regions = None
    if config.train.regions_every:
        regions = _region_maker(config, train, hard_train, rng=rng)
    return Material(
        positive=train.where(train.label == 1),
        negative=train.where(train.label == 0),
        hard_negative=hard_train,
        validation=patches.where(~test_fold & known & kept),
        test=patches.where(test_fold & known),
        test_hard_negative=hard.where(hard.fold == data.test_fold),
        regions=regions,
    )


def _kept_aside(ids: NDArray[np.str_], *, percent: int) -> NDArray[np.bool_]:
    return np.array([percent_of(str(i), salt="validation") < percent for i in ids], dtype=bool)


def _limit(chosen: NDArray[np.bool_], most: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    indices = np.flatnonzero(chosen)
    if not most or most >= len(indices):
        return chosen
    out = np.zeros_like(chosen)
    out[rng.choice(indices, most, replace=False)] = True
    return out


def _region_maker(
    config: DetectorConfig, patches: PatchSet, hard: PatchSet, *, rng: np.random.Generator
) -> RegionMaker:
    folder = reference_data_folder(config.data.folder)
    sheets, problem = [], None
    for stain in np.unique(patches.stain):
        try:
            pools = build_pools(patches, hard, stain=str(stain))
        except PoolTooSmall as too_small:  # one scanner of several may be thin; none at all is an error below
            problem = too_small
            continue
        sheets.append(make_sheets(pools, side=config.train.canvas_px, rng=rng))
    if not sheets:
        raise problem or PoolTooSmall("there are no patches to compose regions from")
    outlines = load_outlines(folder / config.data.lesion_outlines, split="train")
    return RegionMaker(sheets, outlines, side=config.train.region_px, mpp=config.data.patch_mpp)
