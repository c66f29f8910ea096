"""What a network costs: parameters and multiply-accumulates (MAC) per input pixel, counted by hooks on its convolutions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from analysis.detector.network.detector import Detector

_SIDE = 512


@dataclass(frozen=True)
class Cost:
    parameters: int
    """Of the modules that a pass uses."""
    kmac_per_px: float

    def gmac_per_mm2(self, mpp: float) -> float:
        """Of tissue read once at `mpp` um/px, without the overlap of windows."""
        return self.kmac_per_px * 1e3 * (1000.0 / mpp) ** 2 / 1e9


def count_cost(network: Detector, *, run: Callable[[Detector, Tensor], object] | None = None) -> Cost:
    """`run`: what is counted (default: the whole network), for example `lambda n, x: n.trunk(x)`.

    Convolutions alone are counted: everything else is below one part in a hundred.
    """
    macs, used = 0, set[nn.Module]()

    def hook(module: nn.Conv2d, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs
        macs += out.shape[1:].numel() * module.weight.shape[1:].numel()
        used.add(module)

    handles = [m.register_forward_hook(hook) for m in network.modules() if isinstance(m, nn.Conv2d)]
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            (run or (lambda n, x: n(x)))(network, torch.zeros(1, 3, _SIDE, _SIDE))
    finally:
        for handle in handles:
            handle.remove()
        network.train(training)
    norms = sum(p.numel() for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    parameters = sum(p.numel() for m in used for p in m.parameters()) + norms
    return Cost(parameters=parameters, kmac_per_px=macs / _SIDE**2 / 1e3)
