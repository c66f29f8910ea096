"""A small network for the scan of `fast`, taught by the network that reads.

The scan asks one thing: may the reading find anything here? So the small network learns to say, at the scan's spacing and
from a quarter of the pixels, the strongest that the trained network says of the same place at the reading's spacing
(`distillation.py`). No label is needed, so tissue without one serves as well.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from analysis.detector.configuration import DetectorConfig
from analysis.detector.engine import Engine, open_engine
from analysis.detector.network.detector import Detector
from analysis.detector.reading_plan import MAP_MPP
from analysis.detector.training.augmentation import rescale
from analysis.detector.training.distillation import (
    TaughtField,
    begin_with,
    cell_means,
    gathered,
    teach,
    training_fields,
)
from analysis.detector.training.material import Material
from analysis.detector.weights import Beside, LoadedModel

FIELDS_PER_STEP = 2
BATCH = 16


def learn(
    model: LoadedModel,
    material: Material,
    *,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Beside, dict[str, Any]]:
    """State and 8-bit ranges of the small network that `model.config.scan` describes, and what the card says of it.

    `model` is the teacher, and its configuration that of the training. `say` is told now and then how far it is.
    """
    torch.manual_seed(seed)  # whatever was drawn before: a training that was interrupted ends with the same network
    rng = np.random.default_rng(seed)
    config, teacher = model.config, open_engine(model)
    steps = config.scan.steps
    small = begin_with(model.network, Detector(config.scan.network))
    count = max(BATCH, min(steps * FIELDS_PER_STEP, config.scan.most_fields))
    read = taught_fields(teacher, material, config, rng, count=count, stride=small.config.dense_stride)
    fields = gathered(read, count=count, say=say, name="fields for the scan network")
    taught, loss = teach(
        small,
        fields,
        steps=steps,
        batch=BATCH,
        config=config,
        rng=rng,
        say=say,
        name="scan network",
    )
    return taught, {"steps": steps, "fields": len(fields), "loss": round(loss, 4)}


def taught_fields(
    teacher: Engine,
    material: Material,
    config: DetectorConfig,
    rng: np.random.Generator,
    *,
    count: int,
    stride: int,
) -> Iterator[TaughtField]:
    """`count` fields of training tissue, each read by the teacher. `stride`: of the small network's map, in its px."""
    factor = config.read.mpp / config.read.scan_mpp
    for rgb in training_fields(material, config, rng, count=count):
        p = teacher.read(rgb[None]).probability[0]
        map_cell = max(1, round(MAP_MPP / config.read.mpp) // teacher.dense_stride)
        per_cell = round(stride / factor) // teacher.dense_stride // map_cell
        as_mapped = cell_means(p, map_cell)
        cells = len(as_mapped) // per_cell
        strongest = as_mapped.reshape(cells, per_cell, cells, per_cell).max(axis=(1, 3))
        scanned = rescale(rgb[None], factor=factor, side=round(len(rgb) * factor))[0]
        yield TaughtField(scanned, strongest.astype(np.float32))
