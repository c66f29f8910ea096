"""Per-pixel tumour map and distance to the lesion's edge at stride 4."""

from torch import Tensor, nn

from analysis.detector.network.pyramid import upsample_to


class DenseBranch(nn.Module):
    """P2, P3, P4 summed at stride 4 -> (tumour logit, distance to the edge), each (B, 1, H/4, W/4)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden, momentum=0.05),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden, momentum=0.05),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Conv2d(hidden, 2, 1)
        nn.init.constant_(self.head.bias, -1.0)  # type: ignore[arg-type]

    def forward(self, p2: Tensor, p3: Tensor, p4: Tensor) -> tuple[Tensor, Tensor]:
        out = self.head(self.trunk(p2 + upsample_to(p3, p2) + upsample_to(p4, p2)))
        return out[:, :1], out[:, 1:]
