"""A small network for the scan of `fast`, taught by the network that reads.

The scan asks one thing: may the reading find anything here? So the small network learns to say, at the scan's spacing and
from a quarter of the pixels, the strongest that the trained network says of the same place at the reading's spacing
(distillation: Hinton et al. 2015, arXiv 1503.02531). No label is needed, so tissue without one serves as well. It begins
with the trained network's own channels, those that weigh most (network slimming: Liu et al. 2017, arXiv 1708.06519).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from analysis.detector.configuration import DetectorConfig
from analysis.detector.engine import Engine, open_engine
from analysis.detector.network import eight_bit
from analysis.detector.network.backbone import InvertedResidual, LiteBackbone
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.patch_file import PatchSet
from analysis.detector.reading_plan import MAP_MPP
from analysis.detector.training.augmentation import degrade, jitter_stain, rescale, turn
from analysis.detector.training.material import Material
from analysis.detector.weights import Beside, LoadedModel

PATCH_SHARE = 0.4
"""Of the fields: laid of patches, where there are regions too."""
FIELDS_PER_STEP = 2
BATCH = 16
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
EMA_DECAY = 0.99
WARMUP_STEPS = 30
FIELDS_FOR_RANGES = 64
RIM_CELLS = 2
"""At the edge of a field both networks see what is not there."""


@dataclass(frozen=True)
class TaughtField:
    rgb: NDArray[np.uint8]  # (s, s, 3) at the scan's spacing
    target: NDArray[np.float32]  # (s / stride, s / stride) strongest probability of the reading in each cell


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
    fields: list[TaughtField] = []
    for field in taught_fields(teacher, material, config, rng, count=count, stride=small.config.dense_stride):
        fields.append(field)
        if len(fields) % 500 == 0:
            say(f"scan network: {len(fields)} of {count} fields read by its teacher")
    average = {k: v.detach().clone() for k, v in small.state_dict().items()}
    optimizer = torch.optim.AdamW(small.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    small.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    running = math.nan
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _schedule(step, steps)
        loss = _loss(small, [fields[int(i)] for i in rng.integers(len(fields), size=BATCH)], config, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(small.parameters(), 5.0)
        optimizer.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        for key, value in small.state_dict().items():
            if value.dtype.is_floating_point:
                average[key].lerp_(value.detach(), 1 - decay)
            else:
                average[key].copy_(value)
        running = loss.item() if math.isnan(running) else 0.95 * running + 0.05 * loss.item()
        if (step + 1) % 100 == 0:
            say(f"scan network: step {step + 1} of {steps}, loss {running:.4f}")
    small.load_state_dict(average)
    small.eval().requires_grad_(False)
    ranges = eight_bit.measure(small, to_input(np.stack([field.rgb for field in fields[:FIELDS_FOR_RANGES]])))
    return (average, ranges), {"steps": steps, "fields": len(fields), "loss": round(running, 4)}


def _schedule(step: int, steps: int) -> float:
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))


def _loss(small: Detector, batch: list[TaughtField], config: DetectorConfig, rng: np.random.Generator) -> Tensor:
    turns = [int(rng.integers(8)) for _ in batch]
    rgb = np.stack([turn(field.rgb, which) for field, which in zip(batch, turns, strict=True)]).astype(np.uint8)
    target = np.stack([turn(field.target, which) for field, which in zip(batch, turns, strict=True)])
    rgb = degrade(jitter_stain(rgb, strength=config.train.stain_jitter, rng=rng), rng=rng)
    logit = small.trunk(to_input(rgb))[1][:, 0]
    inner = np.s_[:, RIM_CELLS:-RIM_CELLS, RIM_CELLS:-RIM_CELLS]
    wanted = torch.from_numpy(np.ascontiguousarray(target[inner], np.float32))
    return functional.binary_cross_entropy_with_logits(logit[inner], wanted)


# -- what is learnt from -------------------------------------------------------------------------------------------------


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
    for rgb in _fields(material, config, rng, count=count):
        p = teacher.read(rgb[None]).probability[0]
        map_cell = max(1, round(MAP_MPP / config.read.mpp) // teacher.dense_stride)
        per_cell = round(stride / factor) // teacher.dense_stride // map_cell
        as_mapped = _means(p, map_cell)
        cells = len(as_mapped) // per_cell
        strongest = as_mapped.reshape(cells, per_cell, cells, per_cell).max(axis=(1, 3))
        scanned = rescale(rgb[None], factor=factor, side=round(len(rgb) * factor))[0]
        yield TaughtField(scanned, strongest.astype(np.float32))


def _means(p: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """As the whole-slide map has them: one value of the network alone is noise."""
    n = len(p) // side
    mean: NDArray[np.float32] = p.reshape(n, side, n, side).mean(axis=(1, 3))
    return mean


def _fields(
    material: Material, config: DetectorConfig, rng: np.random.Generator, *, count: int
) -> Iterator[NDArray[np.uint8]]:
    side = config.train.region_px
    sets = [
        s for s in (material.positive, material.negative, material.hard_negative, material.unlabelled) if s and len(s)
    ]
    for _ in range(count):
        if material.regions is not None and (not sets or rng.random() >= PATCH_SHARE):
            yield material.regions.make(rng).rgb
        else:
            yield _laid_of_patches(sets, side, rng)


def _laid_of_patches(sets: list[PatchSet], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(side, side, 3): patches of one scanner side by side, as many of each kind."""
    first = sets[int(rng.integers(len(sets)))]
    stain = first.stain[int(rng.integers(len(first)))]
    own = [s.where(np.flatnonzero(s.stain == stain)) for s in sets if (s.stain == stain).any()]
    patch = own[0].rgb.shape[1]
    n = -(-side // patch) + 1
    sheet = np.empty((n * patch, n * patch, 3), np.uint8)
    for row in range(n):
        for col in range(n):
            chosen = own[int(rng.integers(len(own)))]
            one = turn(chosen.rgb[int(rng.integers(len(chosen)))], int(rng.integers(8)))
            sheet[row * patch : (row + 1) * patch, col * patch : (col + 1) * patch] = one
    y, x = rng.integers(0, len(sheet) - side + 1, 2)
    return sheet[y : y + side, x : x + side]


# -- where it begins -----------------------------------------------------------------------------------------------------


def begin_with(network: Detector, small: Detector) -> Detector:
    """`small` with the weightiest channels of `network`'s backbone, where both have the same layout; else as it is."""
    from_, to = network.backbone, small.backbone
    if not (isinstance(from_, LiteBackbone) and isinstance(to, LiteBackbone)):
        return small
    big_stages, small_stages = _blocks(from_), _blocks(to)
    if [len(blocks) for blocks in big_stages[: len(small_stages)]] != [len(blocks) for blocks in small_stages]:
        return small
    seen = _copy(list(from_.stem), list(to.stem), torch.arange(3))
    for big, little in zip(big_stages, small_stages, strict=False):
        # blocks of a stage add up: all of them keep the same channels
        weight = torch.stack([_norm_of(block.body[-1]).weight.detach().abs() for block in big]).sum(dim=0)
        kept = _weightiest(weight, _norm_of(little[0].body[-1]).num_features)
        for from_block, to_block in zip(big, little, strict=True):
            seen = _copy(list(from_block.body), list(to_block.body), seen, last=kept)
    return small


def _blocks(backbone: LiteBackbone) -> list[list[InvertedResidual]]:
    return [[block for block in stage.modules() if isinstance(block, InvertedResidual)] for stage in backbone.stages]


def _norm_of(module: nn.Module) -> nn.BatchNorm2d:
    assert isinstance(module, nn.BatchNorm2d)
    return module


def _copy(big: list[nn.Module], small: list[nn.Module], seen: Tensor, *, last: Tensor | None = None) -> Tensor:
    """Convolutions, each with the BatchNorm behind it, for the channels `seen` going in; returns those that come out of the
    last: `last`, or the weightiest."""
    convs = [i for i, layer in enumerate(big) if isinstance(layer, nn.Conv2d)]
    for i in convs:
        from_, to, norm, to_norm = big[i], small[i], _norm_of(big[i + 1]), _norm_of(small[i + 1])
        assert isinstance(from_, nn.Conv2d)
        assert isinstance(to, nn.Conv2d)
        if from_.groups > 1:
            chosen, weight = seen, from_.weight[seen]
        else:
            chosen = last if last is not None and i == convs[-1] else _weightiest(norm.weight.detach().abs(), to.out_channels)  # fmt: skip
            weight = from_.weight[chosen][:, seen]
        with torch.no_grad():
            to.weight.copy_(weight)
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(to_norm, name).copy_(getattr(norm, name)[chosen])
        seen = chosen
    return seen


def _weightiest(weight: Tensor, count: int) -> Tensor:
    return weight.topk(count).indices.sort().values
