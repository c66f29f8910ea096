"""A leaner network for the reading, taught by the one that read before.

It keeps what flows between the blocks of the trained network and half of what is computed inside them, and answers once for
each cell of the whole-slide map instead of four times. What it learns to say is the mean of what its teacher says of the
field turned eight ways: steadier than the teacher at one look (`distillation.py`). No label is needed.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.detector.configuration import DetectorConfig, NetworkConfig
from analysis.detector.engine import Engine, open_engine
from analysis.detector.network.backbone import LEAN_LITE
from analysis.detector.network.detector import Detector
from analysis.detector.side_by_side import side_by_side
from analysis.detector.training.augmentation import fit_to
from analysis.detector.training.distillation import (
    TaughtField,
    begin_with,
    cell_means,
    gathered,
    teach,
    training_fields,
)
from analysis.detector.training.material import Material
from analysis.detector.training.patch_scores import PAD_PX
from analysis.detector.turning import turn, turn_back
from analysis.detector.weights import Beside, LoadedModel

BATCH = 8
TURNS = 8
PATCHES_PER_FIELD = 2
DENSE_STRIDE = 8
"""Of a cell of the map at 1.0 um/px."""


def lean_network(network: NetworkConfig) -> NetworkConfig:
    """What is taught to read in place of `network`: no towers, for boxes are asked of the network that looks again."""
    return NetworkConfig(
        backbone=LEAN_LITE,
        backbone_stride=network.backbone_stride,
        pyramid_channels=network.pyramid_channels,
        dense_channels=network.dense_channels,
        dense_stride=DENSE_STRIDE,
        attention="none",
        heads="mask",
    )


def learn(
    model: LoadedModel,
    material: Material,
    *,
    steps: int,
    most_fields: int,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Detector, Beside, dict[str, Any]]:
    """The lean network, its state and 8-bit ranges, and what the card says of it. `model` is the teacher.

    `say` is told now and then how far it is.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = model.config
    small = begin_with(model.network, Detector(lean_network(config.network)))
    count = max(BATCH, min(steps * BATCH, most_fields))
    teacher, single = open_engine(model), PATCHES_PER_FIELD * count
    read = taught_fields(teacher, material, config, rng, count=count)
    fields = gathered(read, count=count, say=say, name="fields for the lean network")
    alone = taught_patches(teacher, material, rng, count=single)
    patches = gathered(alone, count=single, say=say, name="patches for the lean network")
    taught, loss = teach(
        small,
        fields,
        patches=patches,
        steps=steps,
        batch=BATCH,
        stain_jitter=config.train.stain_jitter,
        rng=rng,
        say=say,
        name="lean network",
    )
    said = {"steps": steps, "fields": count, "patches": len(patches), "turns": TURNS, "loss": round(loss, 4)}
    return small, taught, said


def taught_fields(
    teacher: Engine, material: Material, config: DetectorConfig, rng: np.random.Generator, *, count: int
) -> Iterator[TaughtField]:
    """`count` fields of training tissue at the reading's spacing, each read by the teacher in all its turns."""
    yield from _all_taught(teacher, training_fields(material, config, rng, count=count))


def taught_patches(
    teacher: Engine, material: Material, rng: np.random.Generator, *, count: int
) -> Iterator[TaughtField]:
    """As `taught_fields`, of single patches mirrored to PAD_PX, as many of each kind: of normal tissue that looks like tumour
    there is too little in fields."""
    sets = material.patch_kinds
    chosen = (sets[i % len(sets)] for i in range(count))
    patches = (one.rgb[int(rng.integers(len(one)))] for one in chosen)
    yield from _all_taught(teacher, (fit_to(patch[None], PAD_PX)[0] for patch in patches))


def _all_taught(teacher: Engine, fields: Iterable[NDArray[np.uint8]]) -> Iterator[TaughtField]:
    with ThreadPoolExecutor(teacher.workers, thread_name_prefix="teacher") as pool:
        yield from side_by_side(pool, (partial(_taught, teacher, rgb) for rgb in fields), at_once=teacher.workers)


def _taught(teacher: Engine, rgb: NDArray[np.uint8]) -> TaughtField:
    said = teacher.read(np.stack([turn(rgb, which) for which in range(TURNS)])).probability
    cell = DENSE_STRIDE // teacher.dense_stride
    as_it_lies = [turn_back(cell_means(p, cell), which) for which, p in enumerate(said)]
    return TaughtField(rgb, np.mean(as_it_lies, axis=0, dtype=np.float32))
