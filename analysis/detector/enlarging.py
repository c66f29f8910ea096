"""Fields enlarged for a network that knows finer pixels than there are."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def enlarged(rgb: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """(B, h, w, 3) -> (B, times h, times w, 3), bilinear, as patches are enlarged for a training at a finer spacing than theirs."""
    height, width = rgb.shape[1:3]
    size = width * times, height * times
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in rgb])
