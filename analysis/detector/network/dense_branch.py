"""Tumour map and distance to the lesion's edge, at stride 4 or 8."""

from torch import Tensor, nn

from analysis.detector.network.pyramid import upsample_to


class DenseBranch(nn.Module):
    """Levels up to P4, finest first, summed at the finest's stride -> (tumour logit, distance to the edge), each (B, 1, h, w)
    of the finest."""

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

    def forward(self, finest: Tensor, *coarser: Tensor) -> tuple[Tensor, Tensor]:
        together = finest
        for level in coarser:
            together = together + upsample_to(level, finest)
        out = self.head(self.trunk(together))
        return out[:, :1], out[:, 1:]
