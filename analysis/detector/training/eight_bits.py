"""After training: the 8-bit ranges of the network, kept where reading with them is no worse than in floats."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from analysis.detector.configuration import DetectorConfig
from analysis.detector.network import eight_bit
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.training.augmentation import fit_to, rescale
from analysis.detector.training.material import Material
from analysis.detector.training.patch_scores import PAD_PX

ALIKE_SPACING = 0.05
"""Relative difference of two spacings up to which a patch is shown as it is."""
MOST_FALL = 0.003
"""Of what the checkpoint was chosen by; a larger fall and the model is read in floats alone."""
REGIONS, PATCHES = 16, 128


def zoom_of(config: DetectorConfig) -> float:
    """How much larger a network sees a patch than it is."""
    zoom = config.data.patch_mpp / config.read.mpp
    return 1.0 if abs(zoom - 1) < ALIKE_SPACING else zoom


def images_for_ranges(material: Material, rng: np.random.Generator, *, zoom: float = 1.0) -> Tensor:
    """Training images as the network will meet them: regions, or patches where there are none, these `zoom` times enlarged."""
    if material.regions is not None:
        return to_input(np.stack([material.regions.make(rng).rgb for _ in range(REGIONS)]))
    sets = [s for s in (material.positive, material.negative, material.hard_negative) if len(s)]
    chosen = [s.rgb[rng.integers(len(s), size=PATCHES // len(sets))] for s in sets]
    rgb = np.concatenate(chosen)
    return to_input(
        rescale(rgb, factor=zoom, side=round(PAD_PX * zoom / 64) * 64) if zoom != 1 else fit_to(rgb, PAD_PX)
    )


def try_eight_bits(
    network: Detector,
    material: Material,
    rng: np.random.Generator,
    *,
    value_of: Callable[[Detector], float | None],
    zoom: float = 1.0,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The ranges, empty if they are not to be used, and what the card says of it. `value_of` judges on validation material.
    `zoom`: how much larger the network sees a patch than it is.

    What imitates 8 bits in torch is judged: OpenVINO, which will compute with them, need not be installed.
    """
    ranges = eight_bit.measure(network, images_for_ranges(material, rng, zoom=zoom))
    return judge_eight_bits(network, ranges, value_of=value_of)


def judge_eight_bits(
    network: Detector, ranges: dict[str, Tensor], *, value_of: Callable[[Detector], float | None]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As `try_eight_bits`, of ranges that are measured already."""
    plain, rounded = value_of(network), value_of(eight_bit.quantised(network, ranges))
    used = plain is not None and rounded is not None and plain - rounded <= MOST_FALL
    said = {"used": used, "validation": {"float": plain, "int8": rounded}, "most_fall": MOST_FALL}
    return (ranges if used else {}), said
