"""Rounds that collect what the network takes for tumour in normal tissue, so that it sees it again.

The pool stands in hard_negatives.csv of the run's folder; a round replaces it whole.
"""

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.detector.configuration import DetectorConfig
from analysis.detector.network.detector import Detector
from analysis.detector.patch_file import PatchSet
from analysis.detector.training.annotated_slides import AnnotatedRegions
from analysis.detector.training.field_scores import false_find
from analysis.detector.training.material import Material, join
from analysis.detector.training.patch_scores import score_patches

LEAST_SCORE = 0.3
"""Below this nothing is a false find."""
FILE_NAME = "hard_negatives.csv"
COLUMNS = ["round", "kind", "name", "x0", "y0", "score"]


@dataclass(frozen=True)
class FalseFind:
    round: int
    kind: str
    """slide or patch."""
    name: str
    """Of the slide, or the id of the patch."""
    x0: int
    y0: int
    """Centre of the field, level-0 px; 0 for patches."""
    score: float


def look_for_false_finds(
    network: Detector, material: Material, config: DetectorConfig, *, number: int, before: list[FalseFind]
) -> list[FalseFind]:
    """The pool after round `number`: finds of now and before, the strongest up to the cap of each kind.

    The same for the same weights and number, so that a round repeated after a kill finds the same.
    """
    rng = np.random.default_rng([config.train.seed, number])
    cap = config.train.hard_negative_cap
    slides: list[FalseFind] = []
    if material.slides is not None:
        slides = _in_slides(network, material.slides, config.train.hard_negative_fields, rng, number)
    patches = _in_patches(network, material.negative, config, number)
    known = {(f.kind, f.name, f.x0, f.y0) for f in slides + patches}
    kept = [f for f in before if (f.kind, f.name, f.x0, f.y0) not in known]
    pool = []
    for kind, found in (("slide", slides), ("patch", patches)):
        # a find of an earlier round was learnt from since: it stays, but gives way to those of now
        ranked = sorted(found, key=_strongest_first) + sorted((f for f in kept if f.kind == kind), key=_strongest_first)
        pool += ranked[:cap]
    return pool


def _strongest_first(find: FalseFind) -> tuple[float, str, int, int]:
    return (-find.score, find.name, find.x0, find.y0)


def _in_slides(
    network: Detector, slides: AnnotatedRegions, most: int, rng: np.random.Generator, number: int
) -> list[FalseFind]:
    found = []
    for name, site, field in slides.fields_of_normal_tissue(most, rng):
        find = false_find(network, field)
        if find is not None and find[0] >= LEAST_SCORE:
            found.append(FalseFind(number, "slide", name, site[0], site[1], round(find[0], 4)))
    return found


def _in_patches(network: Detector, normal: PatchSet, config: DetectorConfig, number: int) -> list[FalseFind]:
    if not len(normal):
        return []
    scores = score_patches(network, normal.rgb, patch_mpp=config.data.patch_mpp, mpp=config.train.mpp)
    chosen = np.flatnonzero(scores >= LEAST_SCORE)
    return [FalseFind(number, "patch", str(normal.ids[i]), 0, 0, round(float(scores[i]), 4)) for i in chosen]


def use(pool: list[FalseFind], material: Material) -> Material:
    """The material with the pool in it: `material` must be the one without any pool."""
    if material.slides is not None:
        material.slides.false_finds = [(f.name, (f.x0, f.y0)) for f in pool if f.kind == "slide"]
    ids = {f.name for f in pool if f.kind == "patch"}
    if not ids:
        return material
    mined = material.negative.where(np.array([str(i) in ids for i in material.negative.ids], dtype=bool))
    return replace(material, hard_negative=join([material.hard_negative, mined]))


def write_pool(pool: list[FalseFind], folder: Path) -> None:
    path = folder / FILE_NAME
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(vars(find) for find in pool)
    os.replace(unfinished, path)
