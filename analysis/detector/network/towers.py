"""The class tower and the box tower, each with its own attention.

No GroupNorm and no global pooling: both make the score of a place depend on where the tile was cut. The channel
gate therefore pools over a window, and BatchNorm keeps separate statistics for each pyramid level.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelGate(nn.Module):
    """Channel weights from the mean over a window around each cell (CBAM's channel gate, made local).

    Window 0 takes the mean over the whole map, as published; the answer then depends on where the tile was cut.
    """

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor, *, window: int) -> Tensor:
        if window:
            mean = functional.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)
        else:
            mean = x.mean(dim=(2, 3), keepdim=True)
        gate: Tensor = torch.sigmoid(self.excite(functional.relu(self.squeeze(mean))))
        return x * gate


class SpatialGate(nn.Module):
    """One weight per cell from the mean and maximum over channels (Woo et al. 2018, arXiv 1807.06521).

    Returns the gated map and the gate's logit, which is supervised with the lesion mask.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)  # (B, 2, h, w)
        logit = self.conv(pooled)
        # 0.5 + sigmoid: a gate that is wrong dims a cell, it cannot erase it.
        return x * (0.5 + torch.sigmoid(logit)), logit


class Tower(nn.Module):
    """`depth` convolutions shared over the levels, normalised per level, then the two gates."""

    def __init__(self, channels: int, *, depth: int, attention: bool, windows: tuple[int, ...], kernel: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(channels, momentum=0.05) for _ in range(depth)) for _ in windows
        )
        self.windows = windows
        self.channel_gate = ChannelGate(channels) if attention else None
        self.spatial_gate = SpatialGate(kernel) if attention else None

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """levels: P3 and as many after it as are wanted. Returns the tower's maps and the spatial gates' logits (none
        without attention)."""
        out, gates = [], []
        for x, norms, window in zip(levels, self.norms, self.windows, strict=False):
            for conv, norm in zip(self.convs, norms, strict=True):  # type: ignore[call-overload]
                x = functional.relu(norm(conv(x)))
            if self.channel_gate is not None and self.spatial_gate is not None:
                x, gate = self.spatial_gate(self.channel_gate(x, window=window))
                gates.append(gate)
            out.append(x)
        return out, gates
