"""Small slides cut from the demo's composed node, written and read as slides of a scanner are."""

from pathlib import Path

import numpy as np
import pyvips
from scipy.ndimage import gaussian_filter

from analysis.detector.composing.slide_file import write_pyramid
from analysis.detector.detection import LesionFinding
from tests.analysis.detector.conftest import REPOSITORY

DEMO = REPOSITORY / "demo/composed_node.tif"
DEMO_MPP = 0.97
MICRO_AND_AROUND = (925, 2150, 840, 704)
"""left, top, width, height in the demo: its micrometastasis."""
LYMPHOID = (1400, 1250)
"""Left and top of normal tissue in the demo that goes on for more than BLOCK_PX."""
INSIDE_TUMOUR = (4650, 2560)
"""Left and top of a square of tumour in the demo's macrometastasis."""

BLOCK_PX = 384
"""A multiple of the coarsest stride, at the scanning spacing too: all blocks of a mosaic lie in the same phase."""
LESION_PX = 136
RIM_PX, GLASS_PX = 96, 128
"""Around a mosaic: more of the same tissue, so that no lesion sees the glass."""
MOSAIC_MPP = 1.0
QUALITY = 95
"""Above 90 JPEG keeps the colours of each pixel, so that equal blocks stay equal."""


def cut_of_demo(left: int, top: int, width: int, height: int) -> np.ndarray:
    return pyvips.Image.new_from_file(str(DEMO)).crop(left, top, width, height).numpy()[..., :3]


def read_whole(path: Path) -> np.ndarray:
    return pyvips.Image.new_from_file(str(path)).numpy()[..., :3]


def oriented(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """One of the eight: 0 as it is, 1 to 3 turned by so many quarters, 4 to 7 the same after a flip."""
    return np.ascontiguousarray(np.rot90(rgb[:, ::-1] if orientation >= 4 else rgb, orientation % 4))


def place_before(x: float, y: float, orientation: int, *, width: int, height: int) -> tuple[float, float]:
    """Where the point of an oriented slide lies on the slide of width x height that it was made from."""
    for turned in reversed(range(orientation % 4)):
        # back by a quarter; np.rot90 took what was at the right to the top
        x, y = (width if turned % 2 == 0 else height) - y, x
    return (width - x if orientation >= 4 else x), y


def write_cut(path: Path, rgb: np.ndarray, *, mpp: float = DEMO_MPP) -> Path:
    write_pyramid(path, rgb, mpp=mpp, description="composed", quality=QUALITY)
    return path


def write_mosaic(path: Path, *, across: int, down: int) -> Path:
    """The same lesion in the same surroundings, `across` x `down` times, one every BLOCK_PX."""
    block = cut_of_demo(*LYMPHOID, BLOCK_PX, BLOCK_PX).astype(np.float64)
    at = (BLOCK_PX - LESION_PX) // 2
    rows, cols = np.mgrid[:LESION_PX, :LESION_PX] - (LESION_PX - 1) / 2
    weight = gaussian_filter((np.hypot(rows, cols) < LESION_PX / 2 - 4).astype(float), 1.5)[..., None]
    here = block[at : at + LESION_PX, at : at + LESION_PX]
    here += weight * (cut_of_demo(*INSIDE_TUMOUR, LESION_PX, LESION_PX) - here)
    tissue = np.pad(
        np.tile(np.rint(block).astype(np.uint8), (down, across, 1)), [(RIM_PX, RIM_PX)] * 2 + [(0, 0)], mode="wrap"
    )
    rgb = np.pad(tissue, [(GLASS_PX, GLASS_PX)] * 2 + [(0, 0)], constant_values=244)
    return write_cut(path, rgb, mpp=MOSAIC_MPP)


def place_in_mosaic(lesion: LesionFinding) -> tuple[int, int]:
    """Column and row of the block that holds its peak."""
    col, row = ((v - GLASS_PX - RIM_PX) // BLOCK_PX for v in lesion.peak)
    return int(col), int(row)
