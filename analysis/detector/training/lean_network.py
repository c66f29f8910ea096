"""A leaner network for the reading, taught by the one that read before.

It keeps what flows between the blocks of the trained network and half of what is computed inside them, and answers once for
each cell of the whole-slide map instead of four times. What it learns to say is the mean of what its teacher says of the
field turned eight ways: steadier than the teacher at one look (`distillation.py`). Where another network looks again at the
candidates, both are its teachers: it learns the mean of their words in log odds, as a candidate is judged. No label is needed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
LEAST_PROBABILITY = 1e-3
"""In a mean of log odds: what a teacher says more surely than this does not outweigh the other's word."""
DENSE_STRIDE = 8
"""Of a cell of the map at 1.0 um/px."""


def lean_network(network: NetworkConfig) -> NetworkConfig:
    """What is taught to read in place of `network`: no towers, for boxes are asked of the network that looks again."""
    return NetworkConfig(
        backbone=LEAN_LITE,
        colours=network.colours,
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
    start: Detector | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Detector, Beside, dict[str, Any]]:
    """The lean network, its state and 8-bit ranges, and what the card says of it. `model` is the teacher, with the network
    that looks again where it has one. `start`: a lean network that is taught further, in place of a new one.

    `say` is told now and then how far it is.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = model.config
    small = Detector(lean_network(config.network))
    if start is None:
        begin_with(model.network, small)
    else:
        small.load_state_dict(start.state_dict())
    count = max(BATCH, min(steps * BATCH, most_fields))
    teachers, single = teachers_of(open_engine(model)), PATCHES_PER_FIELD * count
    read = taught_fields(teachers, material, config, rng, count=count)
    fields = gathered(read, count=count, say=say, name="fields for the lean network")
    alone = taught_patches(teachers, material, rng, count=single)
    patches = gathered(alone, count=single, say=say, name="patches for the lean network")
    taught, loss = teach(
        small,
        fields,
        patches=patches,
        steps=steps,
        batch=BATCH,
        config=config,
        rng=rng,
        say=say,
        name="lean network",
    )
    said = {"steps": steps, "fields": count, "patches": len(patches), "turns": TURNS, "teachers": len(teachers)}
    return small, taught, {**said, "loss": round(loss, 4)}


def teachers_of(engine: Engine) -> tuple[Engine, ...]:
    """That which reads, and that which looks again if it is another."""
    return (engine, *(each for each in engine.lookers if each is not engine))


def taught_fields(
    teachers: Sequence[Engine], material: Material, config: DetectorConfig, rng: np.random.Generator, *, count: int
) -> Iterator[TaughtField]:
    """`count` fields of training tissue at the reading's spacing, each read by the teachers in all its turns."""
    yield from _all_taught(teachers, training_fields(material, config, rng, count=count))


def taught_patches(
    teachers: Sequence[Engine], material: Material, rng: np.random.Generator, *, count: int
) -> Iterator[TaughtField]:
    """As `taught_fields`, of single patches mirrored to PAD_PX, as many of each kind: of normal tissue that looks like tumour
    there is too little in fields."""
    sets = material.patch_kinds
    chosen = (sets[i % len(sets)] for i in range(count))
    patches = (one.rgb[int(rng.integers(len(one)))] for one in chosen)
    yield from _all_taught(teachers, (fit_to(patch[None], PAD_PX)[0] for patch in patches))


def _all_taught(teachers: Sequence[Engine], fields: Iterable[NDArray[np.uint8]]) -> Iterator[TaughtField]:
    workers = teachers[0].workers
    with ThreadPoolExecutor(workers, thread_name_prefix="teacher") as pool:
        yield from side_by_side(pool, (partial(_taught, teachers, rgb) for rgb in fields), at_once=workers)


def _taught(teachers: Sequence[Engine], rgb: NDArray[np.uint8]) -> TaughtField:
    turned = np.stack([turn(rgb, which) for which in range(TURNS)])
    said = []
    for teacher in teachers:
        cell = DENSE_STRIDE // teacher.dense_stride
        maps = teacher.read(turned).probability
        as_it_lies = [turn_back(cell_means(p, cell), which) for which, p in enumerate(maps)]
        mean: NDArray[np.float32] = np.stack(as_it_lies).mean(axis=0, dtype=np.float32)
        said.append(mean)
    if len(said) == 1:
        return TaughtField(rgb, said[0])
    inside = np.clip(np.stack(said), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds = np.exp(np.log(inside / (1 - inside)).mean(axis=0))
    return TaughtField(rgb, (odds / (1 + odds)).astype(np.float32))
