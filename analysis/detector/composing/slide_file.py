"""Writing a composed slide as a scanner would: pyramidal tiled JPEG TIFF with its scale."""

from pathlib import Path

import numpy as np
import pyvips
from numpy.typing import NDArray

TILE_PX = 256
_STRIP_PX = 256


def write_pyramid(path: Path, rgb: NDArray[np.uint8], *, mpp: float, description: str, quality: int = 80) -> None:
    """rgb (H, W, 3) at `mpp` um per px; `description` becomes the ImageDescription tag."""
    image = _image(rgb, mpp).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gstr_type, "image-description", description)
    _save(image, path, compression="jpeg", Q=quality)


def write_mask(path: Path, values: NDArray[np.uint8], *, mpp: float) -> None:
    """values (H, W) of one byte, kept exactly; the coarser levels take the nearest value."""
    _save(_image(values[..., None], mpp), path, compression="deflate", region_shrink="nearest")


def doubled(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) -> (2H, 2W, 3), linear within each pixel, so that the mean of each 2 x 2 px is the pixel it came from.

    The next level of a pyramid is then what was there before. Nothing is added that could be seen.
    """
    out = np.empty((rgb.shape[0] * 2, rgb.shape[1] * 2, 3), np.uint8)
    for top in range(0, len(rgb), _STRIP_PX):
        strip = rgb[max(top - 1, 0) : top + _STRIP_PX + 1].astype(np.int16)
        first = int(top > 0)
        n = min(_STRIP_PX, len(rgb) - top)
        padded = np.pad(strip, ((1 - first, 1), (1, 1), (0, 0)), mode="edge")[: n + 2]
        middle = padded[1:-1, 1:-1]
        # a quarter of a pixel to each side; what would leave 0..255 is held back on both sides alike
        room = np.minimum(middle, 255 - middle) // 2
        across = np.clip((padded[1:-1, 2:] - padded[1:-1, :-2]) // 8, -room, room)
        down = np.clip((padded[2:, 1:-1] - padded[:-2, 1:-1]) // 8, -room, room)
        for dy, sign_y in ((0, -1), (1, 1)):
            for dx, sign_x in ((0, -1), (1, 1)):
                out[2 * top + dy : 2 * (top + n) : 2, dx::2] = middle + sign_y * down + sign_x * across
    return out


def _image(values: NDArray[np.uint8], mpp: float) -> pyvips.Image:
    height, width, bands = values.shape
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(values).data, width, height, bands, "uchar")
    return image.copy(xres=1000 / mpp, yres=1000 / mpp)


def _save(image: pyvips.Image, path: Path, **options: object) -> None:
    image.tiffsave(
        str(path),
        tile=True,
        tile_width=TILE_PX,
        tile_height=TILE_PX,
        pyramid=True,
        subifd=False,
        resunit="cm",
        depth="onetile",
        **options,
    )
