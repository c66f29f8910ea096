"""The network as it reads slides: BatchNorm folded into convolutions and, where a model carries ranges, 8-bit integers.

Post-training quantisation (Jacob et al. 2018, arXiv 1712.05877): what goes into a convolution is rounded to one of 256
steps of a fixed range, its weights to one of 127 steps for each output channel. The ranges are measured once, on
training images, and travel with the weights; being fixed, they leave what is said of a place independent of where its
window was cut. Rounding shifts the mean of a channel, which is taken off the bias (Nagel et al. 2019, arXiv 1906.04721).

In torch this is an imitation in floats: it says what 8 bits will say, no faster. OpenVINO turns it into real integers.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from analysis.detector.network.backbone import SameConv
from analysis.detector.network.detector import Detector

PREFIX = "int8."
"""Of the tensors in a weights file that `measure` made."""
QUANTISED = ("backbone.", "pyramid.", "dense.trunk.")
"""Where 8 bits pay. The last 1x1 convolution stays in floats, and so do the towers, which see some fields alone."""
_STEPS, _WEIGHT_STEPS = 255, 127
_WEIGHT_STEPS_USED = 63
"""Processors without VNNI add two products of 8 bits in 16: 2 x 255 x 63 still fits, 2 x 255 x 127 would not and is cut off
without a word. So weights use half of their steps, everywhere, and the answer does not depend on the processor."""


def fused(network: Detector) -> Detector:
    """A copy with each BatchNorm that follows a convolution folded into it. The towers share theirs, so they stay."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for i, (conv, norm) in enumerate(zip(list(module)[:-1], list(module)[1:], strict=True)):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[i], module[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network


@dataclass(frozen=True)
class Steps:
    """The 256 steps of a range: step n is (n - zero) * scale."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> "Steps":
        low, high = min(low, 0.0), max(high, 0.0)  # zero is a step: padding adds zeros
        scale = max((high - low) / _STEPS, 1e-8)
        return cls(scale, min(max(round(-low / scale), 0), _STEPS))

    def rounded(self, x: Tensor) -> Tensor:
        """In floats."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, _STEPS)

    def packed(self, x: Tensor) -> Tensor:
        """The numbers of the steps, uint8."""
        return torch.fake_quantize_per_tensor_affine(x * (1 / self.scale) + self.zero, 1.0, 0, 0, _STEPS).byte()

    def unpacked(self, numbers: Tensor) -> Tensor:
        """What `rounded` gives, of what `packed` gives."""
        return (numbers.float() - self.zero) * self.scale


class EightBitConv(nn.Module):
    """A convolution whose input and weights are rounded to 8 bits."""

    weight_scale: Tensor
    weight_zero: Tensor

    def __init__(self, conv: nn.Conv2d, low: float, high: float) -> None:
        super().__init__()
        self.conv = conv
        self.steps = Steps.of(low, high)
        largest = conv.weight.detach().abs().amax(dim=(1, 2, 3)).clamp_min(1e-8)
        self.register_buffer("weight_scale", largest / _WEIGHT_STEPS_USED)
        self.register_buffer("weight_zero", torch.zeros(len(largest), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        x = self.steps.rounded(x)
        weight = torch.fake_quantize_per_channel_affine(
            conv.weight, self.weight_scale, self.weight_zero, 0, -_WEIGHT_STEPS, _WEIGHT_STEPS
        )
        if isinstance(conv, SameConv):
            x = conv.pad(x)
        return functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class RangesDoNotFit(ValueError):
    """The 8-bit ranges are damaged or of another network."""


def check(network: Detector, ranges: Mapping[str, Tensor]) -> None:
    """Raises RangesDoNotFit."""
    convs = _convs(network)
    if {f"{name}.{part}" for name in convs for part in ("range", "bias")} != set(ranges):
        raise RangesDoNotFit("the 8-bit ranges are not those of this network")
    for name, conv in convs.items():
        limits, bias = ranges[f"{name}.range"], ranges[f"{name}.bias"]
        if limits.shape != (2,) or bias.shape != (conv.out_channels,):
            raise RangesDoNotFit(f"the 8-bit range or bias of {name} has another size")
        if not (limits.isfinite().all() and bias.isfinite().all() and limits[0] <= limits[1]):
            raise RangesDoNotFit(f"the 8-bit range of {name} is no range")


def quantised(network: Detector, ranges: Mapping[str, Tensor]) -> Detector:
    """A fused copy of `network` with the ranges and biases of `measure`. Raises RangesDoNotFit."""
    check(network, ranges)
    network = fused(network)
    for name, conv in _convs(network).items():
        low, high = ranges[f"{name}.range"].tolist()
        conv.bias = nn.Parameter(ranges[f"{name}.bias"].clone(), requires_grad=False)
        network.set_submodule(name, EightBitConv(conv, low, high))
    return network


def steps_between(network: Detector) -> list[Steps | None]:
    """Of each map of the backbone: the steps to which everything that looks at it rounds it; None where they are not the same,
    or it is not rounded."""
    return [_only_steps(_takers(network, index)) for index in range(len(network.backbone.out_channels))]


def _takers(network: Detector, index: int) -> list[nn.Module]:
    used = index - network.unused_maps
    return [*network.backbone.takers(index), *([network.pyramid.lateral[used]] if used >= 0 else [])]


def _only_steps(takers: list[nn.Module]) -> Steps | None:
    steps = {taker.steps if isinstance(taker, EightBitConv) else None for taker in takers}
    return steps.pop() if len(steps) == 1 else None


def measure(network: Detector, images: Tensor) -> dict[str, Tensor]:
    """Ranges and corrected biases of `network` in evaluation mode: NAME.range (2,) low and high, NAME.bias (channels,).

    images: (B, 3, H, W) from `to_input`, like what the network will meet; some million pixels are enough.
    """
    plain = fused(network)
    convs = _convs(plain)
    ranges: dict[str, Tensor] = {}
    means: dict[str, Tensor] = {}

    def look(name: str, given: Tensor, out: Tensor) -> None:
        per_image = given.flatten(1)
        ranges[f"{name}.range"] = torch.stack([per_image.amin(dim=1).mean(), per_image.amax(dim=1).mean()])
        bias = convs[name].bias
        ranges[f"{name}.bias"] = torch.zeros(out.shape[1]) if bias is None else bias.clone()
        means[name] = out.mean(dim=(0, 2, 3))

    _watch(plain, convs, images, look)
    rounded = quantised(network, ranges)

    def correct(name: str, given: Tensor, out: Tensor) -> Tensor:
        # layers are met in the order of the network: what comes later sees the earlier ones corrected
        shift = means[name] - out.mean(dim=(0, 2, 3))
        ranges[f"{name}.bias"] += shift
        return out + shift[:, None, None]

    _watch(rounded, {name: rounded.get_submodule(name) for name in convs}, images, correct)
    return ranges


def _convs(network: Detector) -> dict[str, nn.Conv2d]:
    # the dense branch rests where the class tower stands in for it
    parts = tuple(part for part in QUANTISED if network.config.heads != "box" or not part.startswith("dense."))
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith(parts)
    }


def _watch(
    network: Detector,
    modules: Mapping[str, nn.Module],
    images: Tensor,
    look: Callable[[str, Tensor, Tensor], Tensor | None],
) -> None:
    """Call `look` with name, input and output of each module; what it returns, if anything, stands for the output."""
    handles = [
        module.register_forward_hook(lambda _, given, out, name=name: look(name, given[0], out))
        for name, module in modules.items()
    ]
    try:
        with torch.no_grad():
            network.trunk(images)
    finally:
        for handle in handles:
            handle.remove()
