"""Writing a composed slide as a scanner would: pyramidal tiled JPEG TIFF with its scale."""

from pathlib import Path

import numpy as np
import pyvips
from numpy.typing import NDArray

TILE_PX = 256


def write_pyramid(path: Path, rgb: NDArray[np.uint8], *, mpp: float, description: str, quality: int = 80) -> None:
    """rgb (H, W, 3) at `mpp` um per px; `description` becomes the ImageDescription tag."""
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(rgb).data, rgb.shape[1], rgb.shape[0], 3, "uchar")
    image = image.copy(interpretation="srgb", xres=1000 / mpp, yres=1000 / mpp)
    image.set_type(pyvips.GValue.gstr_type, "image-description", description)
    image.tiffsave(
        str(path),
        compression="jpeg",
        Q=quality,
        tile=True,
        tile_width=TILE_PX,
        tile_height=TILE_PX,
        pyramid=True,
        subifd=False,
        resunit="cm",
        depth="onetile",
    )
