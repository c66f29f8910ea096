"""Adds a laboratory's annotated slides to what a run learns from, after saying what was found."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from analysis.detector.configuration import ConfigurationError, DetectorConfig
from analysis.detector.training.annotated_slides import AnnotatedRegions, Field, MixedRegions, open_slides
from analysis.detector.training.material import Material
from analysis.detector.training.slide_folders import AnnotatedSlide, divide, find_slides

VALIDATION_FIELDS_PER_LESION = 3
VALIDATION_NORMAL_FIELDS = 96


def add_slides(material: Material, config: DetectorConfig, folder: Path, *, say: Callable[[str], None]) -> Material:
    """The material with the slides of `data.slides`, whose splits and fields are kept in the run's `folder`.

    Raises SlideFolderError, ConfigurationError and what reading a slide raises.
    """
    if not config.data.slides:
        if not len(material.positive):
            raise ConfigurationError("there is nothing to learn from: name data.patches or data.slides")
        return material
    inventory = find_slides(config.data)
    divide(inventory, config.data, kept=folder / "splits.csv")
    say(inventory.report())
    say("looking for tissue and lesions on each slide ...")

    def opened(slides: list[AnnotatedSlide]) -> AnnotatedRegions | None:
        return open_slides(
            slides,
            folder=folder,
            region_px=config.train.region_px,
            mpp=config.train.mpp,
            cache_mb=config.data.slide_cache_mb,
            say=say,
        )

    train = opened(inventory.of("train"))
    assert train is not None  # divide() saw to it
    held = opened(inventory.of("validation")) if any(s.tumour for s in inventory.of("validation")) else None
    fields: tuple[Field, ...] = ()
    if held is not None:
        per_lesion, normal = VALIDATION_FIELDS_PER_LESION, VALIDATION_NORMAL_FIELDS
        fields = tuple(held.fixed_fields(per_lesion=per_lesion, normal=normal))
        held.reader.close()
    elif not len(material.validation):
        raise ConfigurationError(
            "no slide with lesions is left for validation, so that the best weights cannot be chosen: "
            "raise data.validation_percent or give a split file (data.slide_splits)"
        )
    if not train.normal:
        say("  no normal tissue to learn from: all slides are partly annotated; add normal slides")
    counts = {
        "train_slides": len(train.sites),
        "train_lesions": len(train.lesions),
        "validation_slides": len(held.sites) if held else 0,
        "validation_fields": len(fields),
        "test_slides": len(inventory.of("test")),
    }
    regions = MixedRegions(train, material.regions, slide_share=config.data.slide_share)
    return dataclasses.replace(material, regions=regions, slides=train, slide_validation=fields, slide_counts=counts)
