"""The whole network: trunk, pyramid, two towers, dense branch."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from analysis.detector.configuration import PYRAMID_STRIDES, NetworkConfig
from analysis.detector.network.backbone import build_backbone
from analysis.detector.network.dense_branch import DenseBranch
from analysis.detector.network.pyramid import FeaturePyramid, upsample_to
from analysis.detector.network.towers import Tower

INPUT_MULTIPLE = 64
"""Height and width of the input must be multiples of this."""
CLASS_PRIOR = 0.01
TOWER_PARTS = ("class_tower", "box_tower", "class_head", "box_head", "quality_head", "box_scale")
"""What a network whose heads are "mask" does without."""


@dataclass
class LevelOutput:
    """One pyramid level: all (B, ., h, w) with h, w = input / stride."""

    stride: int
    class_logit: Tensor  # (B, 1, h, w)
    box: Tensor  # (B, 4, h, w) left, top, right, bottom in input px, > 0
    quality_logit: Tensor  # (B, 1, h, w) predicted IoU of the box
    gate_logits: list[Tensor]  # spatial gates of the towers that carry one, (B, 1, h, w) each


@dataclass
class NetworkOutput:
    tumour_logit: Tensor  # (B, 1, h, w) with h, w = input / NetworkConfig.dense_stride
    edge_distance: Tensor  # (B, 1, h, w), 1 = 32 input px inside the lesion
    levels: list[LevelOutput]  # empty where the configuration has no towers
    dense_stride: int = 4  # of the two dense maps, in input pixels
    heads: str = "both"  # which of the two were meant to learn: NetworkConfig.heads


class Detector(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.pyramid_channels
        self.backbone = build_backbone(config.backbone, last_stride=config.backbone_stride)
        used = self.backbone.out_channels[self.unused_maps :]
        self.pyramid = FeaturePyramid(used, channels, finest_stride=config.dense_stride)
        if config.heads != "mask":
            self._add_towers(config)
        self.dense = DenseBranch(channels, config.dense_channels)

    def _add_towers(self, config: NetworkConfig) -> None:
        """All of TOWER_PARTS."""
        channels = config.pyramid_channels
        windows = config.gate_windows if config.gate == "windowed" else (0,) * len(PYRAMID_STRIDES)
        shape = {"depth": config.tower_depth, "windows": windows, "kernel": config.spatial_kernel}
        self.class_tower = Tower(channels, attention=config.attention in ("class", "both"), **shape)  # type: ignore[arg-type]
        self.box_tower = Tower(channels, attention=config.attention in ("box", "both"), **shape)  # type: ignore[arg-type]
        self.class_head = nn.Conv2d(channels, 1, 3, padding=1)
        self.box_head = nn.Conv2d(channels, 4, 3, padding=1)
        self.quality_head = nn.Conv2d(channels, 1, 3, padding=1)
        self.box_scale = nn.Parameter(torch.ones(len(PYRAMID_STRIDES)))
        nn.init.constant_(self.class_head.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    @property
    def unused_maps(self) -> int:
        """How many of the backbone's maps, finest first, nothing looks at."""
        return 1 if self.config.dense_stride == 8 else 0

    def forward(self, x: Tensor) -> NetworkOutput:
        """x: (B, 3, H, W) from `to_input`, H and W multiples of 64."""
        pyramid, tumour, distance = self.trunk(x)
        return NetworkOutput(tumour, distance, self.towers(pyramid), self.config.dense_stride, self.config.heads)

    def trunk(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """x as in `forward` -> pyramid [P2, ]P3..P6, tumour logit and edge distance (as in NetworkOutput)."""
        pyramid: list[Tensor] = self.pyramid(self.backbone(x)[self.unused_maps :])
        return pyramid, *self.dense_maps(pyramid)

    def dense_maps(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """[P2, ]P3..P6 -> tumour logit and edge distance (as in NetworkOutput)."""
        if self.config.heads == "box":
            tumour = upsample_to(self.class_head(self.class_tower(pyramid[-4:-3])[0][0]), pyramid[0])
            return tumour, torch.zeros_like(tumour)
        tumour, distance = self.dense(*pyramid[:-2])
        return tumour, distance

    def towers(self, pyramid: list[Tensor]) -> list[LevelOutput]:
        """[P2, ]P3..P6 of `trunk` -> what the class and box towers say on P3..P6; nothing with `heads = "mask"`."""
        if self.config.heads == "mask":
            return []
        class_maps, class_gates = self.class_tower(pyramid[-4:])
        box_maps, box_gates = self.box_tower(pyramid[-4:])
        levels = []
        for i, stride in enumerate(PYRAMID_STRIDES):
            box = functional.softplus(self.box_head(box_maps[i])) * self.box_scale[i].clamp_min(0.05) * stride
            levels.append(
                LevelOutput(
                    stride=stride,
                    class_logit=self.class_head(class_maps[i]),
                    box=box,
                    quality_logit=self.quality_head(box_maps[i]),
                    gate_logits=[gates[i] for gates in (class_gates, box_gates) if gates],
                )
            )
        return levels


def to_input(rgb: NDArray[np.uint8], *, device: torch.device | str = "cpu") -> Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float, channels last, scaled as the ImageNet weights expect."""
    return scaled(torch.from_numpy(np.array(rgb, order="C")).to(device))


def scaled(rgb: Tensor) -> Tensor:
    """As `to_input`, of a tensor, where it is."""
    x = rgb.permute(0, 3, 1, 2)
    return x.float().sub_(127.0).div_(128.0).contiguous(memory_format=torch.channels_last)
