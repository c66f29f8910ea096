"""Feature pyramid P2..P6 or P3..P6 (Lin et al. 2017, arXiv 1612.03144)."""

from torch import Tensor, nn
from torch.nn import functional


def upsample_to(x: Tensor, like: Tensor) -> Tensor:
    """Nearest: exactly equivariant under shifts by the coarser stride, which interpolation at edges is not."""
    return functional.interpolate(x, size=like.shape[-2:], mode="nearest")


class FeaturePyramid(nn.Module):
    """Maps at strides [4, ]8, 16[, 32] -> [P2, ]P3..P6 (strides [4, ]8, 16, 32, 64), all with the same channels.

    P2 carries no smoothing convolution: at stride 4 it would cost more than the towers, and the dense branch has its own.
    """

    def __init__(self, in_channels: list[int], channels: int, *, finest_stride: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.rough = 1 if finest_stride == 4 else 0
        levels = 4 + self.rough
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels[self.rough :])
        self.extra = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(levels - len(in_channels))
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        sides = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for finer in range(len(sides) - 2, -1, -1):
            sides[finer] = sides[finer] + upsample_to(sides[finer + 1], sides[finer])
        out = sides[: self.rough] + [smooth(x) for smooth, x in zip(self.smooth, sides[self.rough :], strict=True)]
        for extra in self.extra:
            out.append(extra(functional.relu(out[-1])))
        return out
