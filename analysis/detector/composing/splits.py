"""Which real patches and outlines a set of composed slides may be made of.

`test`: the fold that is never trained on and never used for a choice. `validation`: the part of the other folds that
training keeps aside, by hash of the patch id. `train`: the rest. No patch is in two of them.

A hard negative is a patch that a classifier took for tumour, with a label of its centre alone. As filling of normal
tissue only those serve whose label also stands in the published table, and of these only the middle: the rim of such
a patch may hold tumour. No model has a say in it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.detector.composing.tissue_pool import build_pools, pale_normal_pool
from analysis.detector.patch_file import PatchSet, compressed_alike, load_patches, percent_of
from analysis.detector.scanner_colour import told_by_colour

SPLITS = ("test", "validation", "train")
TEST_FOLD = 4
VALIDATION_PERCENT = 10
OUTLINES_OF = {"test": "valid", "validation": "train", "train": "train"}
"""Split of the lesion outlines: those of the NCRF `valid` slides are for tests alone."""
MIDDLE_PX = 64
TISSUES = ("lymphoid", "tumour", "other_normal", "pale_normal", "fat")


@dataclass(frozen=True)
class SplitPatches:
    patches: PatchSet
    confirmed_negatives: PatchSet
    """Hard negatives, cut to their middle."""


@dataclass(frozen=True)
class StainTissue:
    """All tissues of one scanner: pixels (n, s, s, 3) and patch ids by tissue."""

    stain: str
    patches: dict[str, NDArray[np.uint8]]
    ids: dict[str, tuple[str, ...]]


def in_split(patches: PatchSet, split: str, *, validation_percent: int = VALIDATION_PERCENT) -> NDArray[np.bool_]:
    """Which of the patches belong to `split`; raises ValueError for an unknown one."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    test = patches.fold == TEST_FOLD
    if split == "test":
        return test
    kept = np.array([percent_of(str(i), salt="validation") < validation_percent for i in patches.ids], bool)
    return ~test & (kept if split == "validation" else ~kept)


def load_tissue(data: Path) -> tuple[PatchSet, PatchSet]:
    """Labelled patches and hard negatives, the scanner by their colour, so that a slide has one; compressed alike: in a slide,
    too, tumour must not be what was never compressed.

    Raises PatchFileError.
    """
    patches, hard = (load_patches(data / f"pcam_{name}.npz") for name in ("patches", "hard_negatives"))
    return compressed_alike(told_by_colour(patches)), compressed_alike(told_by_colour(hard))


def load_split(data: Path, split: str, *, validation_percent: int = VALIDATION_PERCENT) -> SplitPatches:
    """Raises PatchFileError."""
    patches, hard = load_tissue(data)
    confirmed = np.load(data / "pcam_hard_negatives.npz", allow_pickle=False)["in_label_table"].astype(bool)
    chosen = in_split(hard, split, validation_percent=validation_percent) & confirmed & (hard.label == 0)
    return SplitPatches(
        patches=patches.where(in_split(patches, split, validation_percent=validation_percent)),
        confirmed_negatives=middle_of(hard.where(chosen)),
    )


def middle_of(patches: PatchSet, *, side: int = MIDDLE_PX) -> PatchSet:
    rim = (patches.rgb.shape[1] - side) // 2
    return replace(patches, rgb=patches.rgb[:, rim : rim + side, rim : rim + side])


def tissue_of(split: SplitPatches, *, stain: str, widen: bool) -> StainTissue:
    """Raises PoolTooSmall."""
    pools = build_pools(split.patches, split.confirmed_negatives, stain=stain, widen=widen)
    pale, pale_ids = pale_normal_pool(middle_of(split.patches), stain=stain, widen=widen)
    patches = {name: pale if name == "pale_normal" else getattr(pools, name) for name in TISSUES}
    return StainTissue(stain, patches, {**pools.ids, "pale_normal": pale_ids})
