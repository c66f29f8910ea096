"""Teaching a small network what a trained one says, without labels (distillation: Hinton et al. 2015, arXiv 1503.02531).

The small network begins with the trained one's own channels, those that weigh most (network slimming: Liu et al. 2017,
arXiv 1708.06519), and learns from fields of training tissue that its teacher has read.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from analysis.detector.configuration import DetectorConfig, TrainConfig
from analysis.detector.network import eight_bit
from analysis.detector.network.backbone import InvertedResidual, LiteBackbone, see_green_alone
from analysis.detector.network.detector import Detector, to_input
from analysis.detector.patch_file import PatchSet
from analysis.detector.training.augmentation import degrade, jitter_stain
from analysis.detector.training.material import Material
from analysis.detector.turning import turn
from analysis.detector.weights import Beside

PATCH_SHARE = 0.4
"""Of the fields: laid of patches, where there are regions too."""
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
EMA_DECAY = 0.99
WARMUP_STEPS = 30
FIELDS_FOR_RANGES = 64
RIM_CELLS = 2
"""At the edge of a field both networks see what is not there."""


@dataclass(frozen=True)
class TaughtField:
    rgb: NDArray[np.uint8]  # (s, s, 3) at the spacing that is taught
    target: NDArray[np.float32]  # (s / stride, s / stride) what the teacher says of each cell


def teach(
    network: Detector,
    fields: Sequence[TaughtField],
    *,
    patches: Sequence[TaughtField] = (),
    steps: int,
    batch: int,
    config: DetectorConfig,
    rng: np.random.Generator,
    say: Callable[[str], None],
    name: str,
) -> tuple[Beside, float]:
    """Train `network` to say of each field what its teacher said, and leave it with the averaged weights, in evaluation
    mode; where there are `patches` (smaller fields), each second step is on those. Returns its state and 8-bit ranges, and the
    running loss. `config` is that of the training: by how much colours change, and which of them may be looked at. `say` is
    told now and then how far `name` is."""
    if config.network.colours == "green":
        see_green_alone(network.backbone)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    running = math.nan
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _schedule(step, steps)
        of, size = fields, batch
        if step % 2 and patches:  # as many pixels of them as of fields
            of, size = patches, batch * round((len(fields[0].rgb) / len(patches[0].rgb)) ** 2)
        chosen = [of[int(i)] for i in rng.integers(len(of), size=size)]
        loss = _loss(network, chosen, config.train, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                average[key].lerp_(value.detach(), 1 - decay)
            else:
                average[key].copy_(value)
        running = loss.item() if math.isnan(running) else 0.95 * running + 0.05 * loss.item()
        if (step + 1) % 100 == 0:
            say(f"{name}: step {step + 1} of {steps}, loss {running:.4f}")
    network.load_state_dict(average)
    network.eval().requires_grad_(False)
    ranges = eight_bit.measure(network, to_input(np.stack([field.rgb for field in fields[:FIELDS_FOR_RANGES]])))
    return (average, ranges), running


def _schedule(step: int, steps: int) -> float:
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))


def _loss(network: Detector, batch: list[TaughtField], train: TrainConfig, rng: np.random.Generator) -> Tensor:
    turns = [int(rng.integers(8)) for _ in batch]
    rgb = np.stack([turn(field.rgb, which) for field, which in zip(batch, turns, strict=True)]).astype(np.uint8)
    target = np.stack([turn(field.target, which) for field, which in zip(batch, turns, strict=True)])
    rgb = degrade(jitter_stain(rgb, strength=train.stain_jitter, mixing=train.colour_mixing, rng=rng), rng=rng)
    logit = network.trunk(to_input(rgb))[1][:, 0]
    inner = np.s_[:, RIM_CELLS:-RIM_CELLS, RIM_CELLS:-RIM_CELLS]
    wanted = torch.from_numpy(np.ascontiguousarray(target[inner], np.float32))
    return functional.binary_cross_entropy_with_logits(logit[inner], wanted)


# -- what is learnt from -------------------------------------------------------------------------------------------------


def gathered(fields: Iterable[TaughtField], *, count: int, say: Callable[[str], None], name: str) -> list[TaughtField]:
    """All of them; `say` is told now and then how many of `count`, and that they are for `name`."""
    got: list[TaughtField] = []
    for field in fields:
        got.append(field)
        if len(got) % 500 == 0 or len(got) == count:
            say(f"{name}: {len(got)} of {count} read by its teacher")
    return got


def cell_means(p: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """As the whole-slide map has them: one value of the network alone is noise."""
    n = len(p) // side
    mean: NDArray[np.float32] = p.reshape(n, side, n, side).mean(axis=(1, 3))
    return mean


def training_fields(
    material: Material, config: DetectorConfig, rng: np.random.Generator, *, count: int
) -> Iterator[NDArray[np.uint8]]:
    """`count` times (s, s, 3) of training tissue at the reading's spacing: composed regions and patches side by side."""
    side = config.train.region_px
    sets = material.patch_kinds
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
    """`small` with the weightiest channels of `network`'s backbone, where both have the same layout, and with its pyramid
    and dense branch, where these have the same size; else as it is."""
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
    _copy_head(network, small)
    return small


def _copy_head(network: Detector, small: Detector) -> None:
    """By the coarsest level: a small network without the finest map lacks what comes before it."""
    shapes = [
        (each.backbone.out_channels, each.config.pyramid_channels, each.config.dense_channels)
        for each in (network, small)
    ]
    if shapes[0] != shapes[1]:
        return
    for name in ("lateral", "smooth", "extra"):
        from_, to = (getattr(each.pyramid, name) for each in (network, small))
        for source, target in zip(reversed(from_), reversed(to), strict=False):
            target.load_state_dict(source.state_dict())
    small.dense.load_state_dict(network.dense.state_dict())


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
