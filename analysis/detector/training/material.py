"""What one training run learns from: which patches go where, and the maker of composed regions."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.detector.composing.outlines import load_outlines
from analysis.detector.composing.tissue_pool import PoolTooSmall, build_pools
from analysis.detector.configuration import ConfigurationError, DataConfig, DetectorConfig
from analysis.detector.patch_file import PatchFileError, PatchSet, compressed_alike, load_patches, percent_of
from analysis.detector.reference_data import reference_data_folder
from analysis.detector.scanner_colour import told_by_colour
from analysis.detector.training.annotated_slides import AnnotatedRegions, Field, MixedRegions
from analysis.detector.training.fixed_slides import (
    TRAINING_SLIDES,
    SlideRegions,
    cached_sheets,
    key_of,
    slide_order,
    training_slide,
)
from analysis.detector.training.regions import RegionMaker


@dataclass(frozen=True)
class Material:
    positive: PatchSet
    negative: PatchSet
    hard_negative: PatchSet
    validation: PatchSet
    validation_hard_negative: PatchSet
    test: PatchSet
    """Only ever scored, once, after the last choice was made. As they come, unlike those of the other folds
    (`compressed_alike`)."""
    test_hard_negative: PatchSet
    regions: RegionMaker | SlideRegions | MixedRegions | None

    unlabelled: PatchSet | None = None
    """Of the training folds, without a label."""
    slides: AnnotatedRegions | None = None
    """Regions of annotated slides; they are drawn from through `regions`."""
    slide_validation: tuple[Field, ...] = ()
    slide_counts: dict[str, int] = field(default_factory=dict)

    @property
    def patch_kinds(self) -> list[PatchSet]:
        """Those of the training folds: tumour, normal, hard negatives, without a label; none that is empty."""
        kinds = (self.positive, self.negative, self.hard_negative, self.unlabelled)
        return [one for one in kinds if one is not None and len(one)]

    def counts(self) -> dict[str, int]:
        return {
            "train_tumour": len(self.positive),
            "train_normal": len(self.negative),
            "train_hard_negatives": len(self.hard_negative),
            "validation": len(self.validation),
            "test": len(self.test),
            **self.slide_counts,
        }

    def close(self) -> None:
        """Ends the child processes that read slides."""
        if self.slides is not None:
            self.slides.reader.close()


def no_patches() -> Material:
    """For training on slides alone."""
    none = PatchSet(
        rgb=np.zeros((0, 96, 96, 3), np.uint8),
        ids=np.zeros(0, np.str_),
        label=np.zeros(0, np.int8),
        stain=np.zeros(0, np.str_),
        fold=np.zeros(0, np.int8),
        white=np.zeros(0, np.float32),
    )
    return Material(none, none, none, none, none, none, none, None)


def join(sets: list[PatchSet]) -> PatchSet:
    return PatchSet(*(np.concatenate([getattr(s, name) for s in sets]) for name in PatchSet.__dataclass_fields__))


def load_material(config: DetectorConfig, *, rng: np.random.Generator, cache: Path | None = None) -> Material:
    """`cache`: folder that keeps composed tissue between runs on the same patches (then the same for every seed)."""
    data = config.data
    if not data.patches:
        return no_patches()
    folder = reference_data_folder(data.folder)
    patches = join([load_patches(folder / name) for name in data.patches])
    hard = join([load_patches(folder / name) for name in data.hard_negatives]) if data.hard_negatives else None
    hard = hard if hard is not None else patches.where(np.zeros(len(patches), bool))
    patches, hard = with_scanners(patches, data), with_scanners(hard, data)  # before they are compressed
    own, hard_own = scanned_by(patches, data), scanned_by(hard, data)
    held_back, hard_held_back = _held_back(patches, own, data), _held_back(hard, hard_own, data)
    test, test_hard = patches.where(held_back & (patches.label >= 0)), hard.where(hard_held_back)
    if len(hard):  # else a network learns that what was compressed is no tumour
        patches, hard = compressed_alike(patches), compressed_alike(hard)
    known, kept = patches.label >= 0, _kept_aside(patches.ids, percent=data.validation_percent)
    train = patches.where(_limit(~held_back & known & ~kept & own, data.max_patches, rng))
    hard_kept = _kept_aside(hard.ids, percent=data.validation_percent)
    hard_train = hard.where(~hard_held_back & ~hard_kept & hard_own)
    train = train.where(share_of(train, fraction=data.fraction, seed=config.train.seed))
    hard_train = hard_train.where(share_of(hard_train, fraction=data.fraction, seed=config.train.seed))
    regions = None
    if config.train.regions_every:
        regions = _region_maker(config, train, hard_train, rng=rng, cache=cache)
    return Material(
        positive=train.where(train.label == 1),
        negative=train.where(train.label == 0),
        hard_negative=hard_train,
        validation=patches.where(~held_back & known & kept & own),
        validation_hard_negative=hard.where(~hard_held_back & hard_kept & hard_own),
        test=test,
        test_hard_negative=test_hard,
        regions=regions,
        unlabelled=patches.where(~held_back & ~known & ~kept & own),
    )


def _kept_aside(ids: NDArray[np.str_], *, percent: int) -> NDArray[np.bool_]:
    return np.array([percent_of(str(i), salt="validation") < percent for i in ids], dtype=bool)


def share_of(patches: PatchSet, *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """A share of every label and stain (at least one patch of each), by hash of the patch id: nested in `fraction`."""
    chosen = np.ones(len(patches), bool)
    if fraction >= 1:
        return chosen
    order = np.array([hashlib.sha256(f"share:{seed}:{i}".encode()).hexdigest() for i in patches.ids], dtype=np.str_)
    strata = np.array([f"{label} {stain}" for label, stain in zip(patches.label, patches.stain, strict=True)], np.str_)
    for stratum in np.unique(strata):
        indices = np.flatnonzero(strata == stratum)
        ranked = indices[np.argsort(order[indices], kind="stable")]
        chosen[ranked[max(1, round(fraction * len(indices))) :]] = False
    return chosen


def with_scanners(patches: PatchSet, data: DataConfig) -> PatchSet:
    """The same patches, `stain` as `data.scanner_by` tells it."""
    return told_by_colour(patches) if data.scanner_by == "colour" else patches


def scanned_by(patches: PatchSet, data: DataConfig) -> NDArray[np.bool_]:
    """(n,) which have the stain `data.train_stain`; all of them where it names none. Raises PatchFileError where none has."""
    stain = data.train_stain
    if not stain:
        return np.ones(len(patches), bool)
    if len(patches) and not (patches.stain == stain).any():
        raise PatchFileError(f"no patch is of stain {stain!r}; there are {', '.join(np.unique(patches.stain))}")
    chosen: NDArray[np.bool_] = patches.stain == stain
    return chosen


def _held_back(patches: PatchSet, own: NDArray[np.bool_], data: DataConfig) -> NDArray[np.bool_]:
    """(n,) which are for the test alone."""
    in_test_fold: NDArray[np.bool_] = patches.fold == data.test_fold
    return in_test_fold & ~own if data.every_fold else in_test_fold


def _limit(chosen: NDArray[np.bool_], most: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    indices = np.flatnonzero(chosen)
    if not most or most >= len(indices):
        return chosen
    out = np.zeros_like(chosen)
    out[rng.choice(indices, most, replace=False)] = True
    return out


def _region_maker(
    config: DetectorConfig, patches: PatchSet, hard: PatchSet, *, rng: np.random.Generator, cache: Path | None
) -> RegionMaker | SlideRegions:
    folder = reference_data_folder(config.data.folder)
    pools, problem = [], None
    for stain in np.unique(patches.stain):
        try:
            pools.append(build_pools(patches, hard, stain=str(stain)))
        except PoolTooSmall as too_small:  # one scanner of several may be thin; none at all is an error below
            problem = too_small
    if not pools:
        raise problem or PoolTooSmall("there are no patches to compose regions from")
    outlines = load_outlines(folder / config.data.lesion_outlines, split="train")
    train, patch_mpp = config.train, config.data.patch_mpp
    # composed at the spacing of the patches, then resampled to the spacing of the training
    side = train.region_px if train.mpp == 1.0 else round(train.region_px * train.mpp / patch_mpp)
    if config.data.composed_slides:
        if config.data.composed_slides > TRAINING_SLIDES:
            raise ConfigurationError(f"data.composed_slides: at most {TRAINING_SLIDES}")
        order = slide_order(seed=train.seed)
        tissue = key_of(patches, hard)
        slides = [
            training_slide(i, pools=pools, outlines=outlines, mpp=patch_mpp, cache=cache, tissue=tissue)
            for i in order[: config.data.composed_slides]
        ]
        return SlideRegions(slides, side=side, output_side=train.region_px)
    if side > train.canvas_px:
        raise ConfigurationError(f"train.canvas_px must be at least {side} at {train.mpp} um/px")
    sheets = [cached_sheets(p, side=train.canvas_px, rng=rng, cache=cache, tissue=key_of(patches, hard)) for p in pools]
    return RegionMaker(sheets, outlines, side=side, mpp=patch_mpp, output_side=train.region_px)
