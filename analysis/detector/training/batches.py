"""What each step learns from. It is drawn from the seed and the number of the step alone: whoever prepares it, and when,
it is the same."""

import dataclasses
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from analysis.detector.configuration import DetectorConfig
from analysis.detector.training.augmentation import coarser, degrade, jitter_stain, rescale, shown_side
from analysis.detector.training.material import Material
from analysis.detector.training.patch_scores import CENTRE_SHARE
from analysis.detector.training.targets import RegionTarget, build_targets
from analysis.detector.turning import turn
from slides.wsi.errors import WsiError

SCALE_RANGE = (0.85, 1.2)
PATCH_SHARES = (0.38, 0.31, 0.31)
"""Of a batch: tumour, normal, hard negatives, as far as there are such patches."""
UNKNOWN = -1.0
MIXUP_ALPHA = 0.4
AHEAD = 3
"""Batches that each process prepares ahead."""


@dataclass(frozen=True)
class Batch:
    rgb: Tensor  # (B, H, W, 3) uint8
    truth: Tensor | RegionTarget
    """Of patches: (B,) 0 to 1, or UNKNOWN."""
    centre_px: float = 0.0
    """Side of the square in a patch of which the label speaks."""
    taught: Tensor | None = None
    """The field of `rgb` as the teachers look at it, where they look at a finer spacing."""

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        moved: Batch = _each(self, Tensor, lambda t: t.pin_memory().to(device, non_blocking=True))
        return moved


def _each(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The value with everything of `kind` in it changed, through lists and dataclasses."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, list):
        return [_each(part, kind, change) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _each(getattr(value, f.name), kind, change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value


class BatchMaker:
    def __init__(self, config: DetectorConfig, material: Material) -> None:
        self.config, self.material = config, material

    def is_region_step(self, step: int) -> bool:
        every = self.config.train.regions_every
        if every < 0 or not len(self.material.positive):
            return True
        return bool(every) and self.material.regions is not None and step % (every + 1) == every

    def make(self, step: int) -> Batch:
        """Raises what reading a slide raises."""
        rng = np.random.default_rng([self.config.train.seed, step])
        return self._of_regions(rng) if self.is_region_step(step) else self._of_patches(rng)

    def _of_patches(self, rng: np.random.Generator) -> Batch:
        train, data = self.config.train, self.config.data
        rgb, label = self._patches(rng)
        mpp = train.coarse_mpp if rng.random() < train.coarse_share else train.mpp
        scale = float(np.exp(rng.uniform(*np.log(SCALE_RANGE))))
        if train.coarse_enlarged and mpp == train.coarse_mpp:
            return self._enlarged(rgb, label, scale)
        factor = data.patch_mpp / mpp * scale
        side = shown_side(rgb.shape[1], mpp)
        centre_px = rgb.shape[1] * CENTRE_SHARE * factor
        batch = Batch(_tensor(rescale(rgb, factor=factor, side=side)), _tensor(label), centre_px)
        if not train.teachers or mpp <= train.mpp:
            return batch
        finer = round(mpp / train.mpp)
        taught = rescale(rgb, factor=factor * finer, side=side * finer)
        return dataclasses.replace(batch, taught=_tensor(taught))

    def _enlarged(self, rgb: NDArray[np.uint8], label: NDArray[np.float32], scale: float) -> Batch:
        """Of coarse pixels, enlarged; teachers see the same field as it was."""
        train, patch_mpp = self.config.train, self.config.data.patch_mpp
        side = shown_side(rgb.shape[1], train.mpp)
        coarse, coarse_mpp = coarser(rgb, patch_mpp=patch_mpp, mpp=train.coarse_mpp)
        shown = rescale(coarse, factor=coarse_mpp / train.mpp * scale, side=side)
        sharp = rescale(rgb, factor=patch_mpp / train.mpp * scale, side=side) if train.teachers else None
        centre_px = rgb.shape[1] * CENTRE_SHARE * patch_mpp / train.mpp * scale
        return Batch(_tensor(shown), _tensor(label), centre_px, None if sharp is None else _tensor(sharp))

    def _patches(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """As many tumour as normal centres nearly; the hard negatives are half of the normal ones."""
        material, train = self.material, self.config.train
        sets = [material.positive, material.negative, material.hard_negative]
        shares = [share if len(s) else 0.0 for share, s in zip(PATCH_SHARES, sets, strict=True)]
        labels = [1.0, 0.0, 0.0]
        if train.teachers and material.unlabelled is not None and len(material.unlabelled):
            known = (1 - train.unlabelled_share) / sum(shares)
            sets, labels = [*sets, material.unlabelled], [*labels, UNKNOWN]
            shares = [*(known * share for share in shares), train.unlabelled_share]
        which = rng.choice(len(sets), size=train.patch_batch, p=np.array(shares) / sum(shares))
        rgb = []
        for kind in which:
            chosen = sets[kind]
            rgb.append(turn(chosen.rgb[int(rng.integers(len(chosen)))], int(rng.integers(8))))
        images = self._jittered(np.stack(rgb).astype(np.uint8), rng)
        images, label = degrade(images, rng=rng), np.array(labels, np.float32)[which]
        return blend(images, label, share=train.mixup, rng=rng) if train.mixup else (images, label)

    def _of_regions(self, rng: np.random.Generator) -> Batch:
        assert self.material.regions is not None
        regions = [self.material.regions.make(rng) for _ in range(self.config.train.region_batch)]
        images = self._jittered(np.stack([r.rgb for r in regions]), rng)
        target = build_targets(regions, dense_stride=self.config.network.dense_stride)
        return Batch(_tensor(degrade(images, rng=rng)), target)

    def _jittered(self, rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        train = self.config.train
        return jitter_stain(rgb, strength=train.stain_jitter, mixing=train.colour_mixing, rng=rng)


def blend(
    rgb: NDArray[np.uint8], label: NDArray[np.float32], *, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Blend a share of the images (B, H, W, 3) with another one each, and their labels (B,); of an unknown one nothing is known."""
    other = rng.permutation(len(rgb))
    weight = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, len(rgb)).astype(np.float32)
    weight = np.where(rng.random(len(rgb)) < share, np.maximum(weight, 1 - weight), np.float32(1))
    of_each = weight[:, None, None, None]
    mixed = of_each * rgb + (1 - of_each) * rgb[other]
    blended = weight * label + (1 - weight) * label[other]
    blended[(label < 0) | ((weight < 1) & (label[other] < 0))] = UNKNOWN
    return (mixed + 0.5).astype(np.uint8), blended.astype(np.float32)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


class BatchesAhead:
    """Batches of successive steps, prepared by processes of their own; `close` ends them.

    They hold the material of the moment: another one needs other processes.
    """

    def __init__(self, maker: BatchMaker, steps: range, *, workers: int) -> None:
        self.next_step = steps.start
        slides = maker.material.slides
        self._reader = slides.reader if slides is not None else None
        if self._reader is not None:
            self._reader.share_with(workers)
        self._batches = iter(
            DataLoader(
                _Prepared(maker),
                batch_size=None,
                sampler=steps,
                num_workers=workers,
                prefetch_factor=AHEAD,
                multiprocessing_context="fork",
                worker_init_fn=self._begin,
                generator=torch.Generator(),
            )
        )

    def _begin(self, number: int) -> None:
        """In each process, before its first batch."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them too; the training ends them
        torch.set_num_threads(1)
        if self._reader is not None:
            Finalize(None, self._reader.close, exitpriority=0)

    def take(self) -> Batch:
        """The next one. Raises what making it raised."""
        made = next(self._batches)
        self.next_step += 1
        if isinstance(made, Exception):
            raise made
        batch: Batch = _each(made, np.ndarray, torch.from_numpy)
        return batch

    def close(self) -> None:
        del self._batches  # the processes end with it
        if self._reader is not None:
            self._reader.share_with(1)


class _Prepared(Dataset[Any]):
    """By step: a batch with arrays in place of tensors, each of which would hold an open file; or what went wrong."""

    def __init__(self, maker: BatchMaker) -> None:
        self.maker = maker

    def __getitem__(self, step: int) -> Any:
        try:
            return _each(self.maker.make(step), Tensor, Tensor.numpy)
        except (WsiError, ValueError, OSError) as problem:
            return problem
