"""Cost of detection on one slide: the product against a patch pipeline, in one run on the same slide and machine.

python benchmarks/detection.py SLIDE [--patches 8] prints tissue mm2 per CPU second of the product's profiles and of a
ResNet-34 patch classifier (see PATCH_UM) with random weights, timed on some patches, and the ratio. It measures cost alone: a ratio without accuracy beside it says nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from analysis.detector.card import default_model_folder  # noqa: E402
from analysis.detector.infer import detect  # noqa: E402
from analysis.detector.weights import load_model  # noqa: E402
from slides.wsi.sandbox import open_pixels  # noqa: E402

PATCH_UM = 87.5
"""A patch of 350 px at 0.25 um/px, shrunk to 224 px: the ordinary patch pipeline, without overlap."""
PATCH_PX = 224


class BasicBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.side = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.side = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.side(x))


def resnet34() -> nn.Module:
    """He et al. 2015 (arXiv 1512.03385), two classes, random weights: only its cost is wanted."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels_in = 64
    for channels, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            layers.append(BasicBlock(channels_in, channels, 2 if block == 0 and channels != 64 else 1))
            channels_in = channels
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 2))
    return network.eval().to(memory_format=torch.channels_last)


def cpu_seconds(act: Callable[[], object]) -> float:
    """Of this process. Decoding runs in a child and is not counted, neither for the product nor for the peer."""
    start = time.process_time()
    act()
    return time.process_time() - start


def patch_rate(n: int) -> float:
    """mm2 per CPU second of the patch classifier's network alone (reading its pixels would come on top)."""
    network, x = resnet34(), torch.randn(8, 3, PATCH_PX, PATCH_PX).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(x)
        spent = cpu_seconds(lambda: [network(x) for _ in range(max(1, n // 8))])
    return max(1, n // 8) * 8 * (PATCH_UM / 1000) ** 2 / spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path, nargs="?", default=REPOSITORY / "demo" / "composed_node.tif")
    parser.add_argument("--patches", type=int, default=16, help="patches timed for the patch pipeline")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(default_model_folder())
    peer = patch_rate(options.patches)
    found: dict[str, object] = {"slide": options.slide.name, "resnet34_patches_mm2_per_cpu_s": round(peer, 4)}
    for profile in ("standard", "fast"):
        with open_pixels(options.slide) as source:
            start = time.process_time()
            detection = detect(source, model, profile=profile)
            spent = time.process_time() - start
        rate = detection.tissue.mm2 / spent
        found[profile] = {
            "mm2": detection.tissue.mm2,
            "cpu_s": round(spent, 2),
            "mm2_per_cpu_s": round(rate, 3),
            "ratio": round(rate / peer, 1),
        }
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
