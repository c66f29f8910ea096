"""Teachers: networks that say of each patch what they think of it, each patch judged only by those that never saw it.

The labels of tissue patches hold errors (a lymphocyte inside an outline counts as tumour), and many patches have none.
K networks are trained, each without one of K parts of the labelled patches, and score that part and all unlabelled
patches. The detector then learns the mean of label and score, and of an unlabelled patch the mean score. Each teacher
leaves teachers/teacher-K.csv in the folder of the run; one that is there is not trained again.
"""

import csv
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.detector.configuration import DetectorConfig
from analysis.detector.network.detector import Detector
from analysis.detector.patch_file import PatchSet, percent_of
from analysis.detector.training.augmentation import turn
from analysis.detector.training.material import Material
from analysis.detector.training.patch_scores import score_patches

if TYPE_CHECKING:
    from analysis.detector.train import Trainer

TEACHERS_FOLDER = "teachers"
COLUMNS = ["id", "probability"]
TURNS = 8


def part_of(ids: NDArray[np.str_], *, parts: int) -> NDArray[np.intp]:
    """Which teacher (0 to parts - 1) must not see a patch, by hash of its id."""
    return np.array([percent_of(str(i), salt="teacher") * parts // 100 for i in ids], dtype=np.intp)


def lesson(material: Material, *, teacher: int, parts: int) -> Material:
    """What one teacher learns from: patches alone, without its own part, and nothing to choose a checkpoint by."""

    def others(patches: PatchSet) -> PatchSet:
        return patches.where(part_of(patches.ids, parts=parts) != teacher)

    return replace(
        material,
        positive=others(material.positive),
        negative=others(material.negative),
        hard_negative=others(material.hard_negative),
        validation=material.validation.where(np.zeros(len(material.validation), bool)),
        unlabelled=None,
        regions=None,
        slides=None,
        slide_validation=(),
    )


def teacher_config(config: DetectorConfig, *, teacher: int) -> DetectorConfig:
    train = replace(
        config.train,
        teachers=0,
        epochs=config.train.teacher_epochs,
        regions_every=0,
        hard_negative_every=0,
        patience=0,
        seed=config.train.seed + 100 * (teacher + 1),
    )
    return replace(config, train=train)


def opinions(network: Detector, patches: PatchSet, *, patch_mpp: float, mpp: float) -> NDArray[np.float32]:
    """Probability (n,) of each patch: the mean over the eight turns and flips."""
    total = np.zeros(len(patches), np.float32)
    for which in range(TURNS):
        turned = (
            np.ascontiguousarray(np.stack([turn(rgb, which) for rgb in patches.rgb])) if len(patches) else patches.rgb
        )
        total += score_patches(network, turned.astype(np.uint8), patch_mpp=patch_mpp, mpp=mpp)
    return total / np.float32(TURNS)


def file_of(folder: Path, teacher: int) -> Path:
    return folder / TEACHERS_FOLDER / f"teacher-{teacher + 1}.csv"


def teach(
    trainer_of: Callable[[DetectorConfig, Material, Path], "Trainer"],
    train: Callable[["Trainer"], None],
    config: DetectorConfig,
    material: Material,
    folder: Path,
    *,
    teacher: int,
) -> None:
    """Train one teacher, going on from its checkpoint, and write what it says of its part and the unlabelled patches."""
    parts = config.train.teachers
    own = folder / TEACHERS_FOLDER / f"teacher-{teacher + 1}"
    own.mkdir(parents=True, exist_ok=True)
    trainer = trainer_of(teacher_config(config, teacher=teacher), lesson(material, teacher=teacher, parts=parts), own)
    trainer.resume()
    train(trainer)
    network = trainer.averaged()
    rows: list[dict[str, Any]] = []
    asked = [p.where(part_of(p.ids, parts=parts) == teacher) for p in (material.positive, material.negative)]
    for patches in (*asked, *(p for p in (material.unlabelled,) if p is not None)):
        said = opinions(network, patches, patch_mpp=config.data.patch_mpp, mpp=config.train.mpp)
        rows += [{"id": i, "probability": f"{p:.5f}"} for i, p in zip(patches.ids, said, strict=True)]
    path = file_of(folder, teacher)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(unfinished, path)


def with_opinions(material: Material, config: DetectorConfig, folder: Path) -> Material:
    """The material with the teachers' mean for each patch they judged. Raises OSError where a teacher is missing."""
    said: dict[str, list[float]] = {}
    for teacher in range(config.train.teachers):
        with file_of(folder, teacher).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                said.setdefault(row["id"], []).append(float(row["probability"]))
    return replace(material, opinion={i: sum(p) / len(p) for i, p in said.items()})


def to_learn(patches: PatchSet, which: int, opinion: dict[str, float], *, weight: float) -> float:
    """What the detector is to learn of a patch: its label, moved to the teachers' opinion by `weight`.

    A patch without label takes the opinion whole; one that no teacher judged keeps its label.
    """
    label, said = float(patches.label[which]), opinion.get(str(patches.ids[which]))
    if said is None:
        return label
    return said if label < 0 else (1 - weight) * label + weight * said
