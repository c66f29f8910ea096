"""What a slide's ICC profile does to its colours, as a small table that a viewer applies and a reader can switch off.

Tiles, thumbnail and the detector's pixels all stay as the scanner stored them; only the screen of a reader who wants it
shows them as the profile says. The table is made once, in the child, so that no profile of an unknown file is ever parsed
in the web process or by a browser.

Cells of 8 x 8 x 8 colours; each entry is the sRGB of the cell's colour (8r + 4, 8g + 4, 8b + 4), red slowest, 3 bytes.
A viewer adds the difference between entry and cell to each pixel: profiles are smooth, so that errs by about a grey level.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from slides.wsi.tile_store import COLOUR_CELLS, COLOUR_NAME

_SEEN = 2  # grey levels: a table that changes no colour by more changes nothing that is seen
_LONGEST_NAME = 100


def write_colour_table(icc: bytes, folder: Path) -> dict[str, Any] | None:
    """Write the table of a profile beside the tiles; what the descriptor says of it. None: no profile of RGB colours.

    {"profile": its name, "changes": whether any colour is shown differently}
    """
    found = _opened(icc)
    if found is None:
        return None
    profile, name = found
    cells = _cells()
    table = converted(profile, cells)
    if table is None:
        return None
    (folder / COLOUR_NAME).write_bytes(table.tobytes())
    changes = int(np.abs(table.astype(np.int16) - cells.astype(np.int16)).max()) > _SEEN
    return {"profile": name, "changes": changes}


def converted(profile: ImageCms.ImageCmsProfile, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """RGB (height, width, 3) of the profile as sRGB, by the intent the profile asks for; None where it cannot be applied."""
    try:
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent(ImageCms.getDefaultIntent(profile)),
        )
        return np.asarray(ImageCms.applyTransform(Image.fromarray(rgb), transform))
    except (ImageCms.PyCMSError, ValueError):
        return None


def _opened(icc: bytes) -> tuple[ImageCms.ImageCmsProfile, str] | None:
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space.strip() != "RGB":
            return None
        name = ImageCms.getProfileDescription(profile)
    except (ImageCms.PyCMSError, OSError):
        return None
    printable = "".join(letter if letter.isprintable() else " " for letter in name)
    return profile, " ".join(printable.split())[:_LONGEST_NAME] or "without a name"


def _cells() -> npt.NDArray[np.uint8]:
    """uint8 (cells * cells, cells, 3)"""
    middle = np.arange(COLOUR_CELLS, dtype=np.uint8) * (256 // COLOUR_CELLS) + 128 // COLOUR_CELLS
    grid = np.stack(np.meshgrid(middle, middle, middle, indexing="ij"), axis=-1)
    return np.ascontiguousarray(grid.reshape(COLOUR_CELLS * COLOUR_CELLS, COLOUR_CELLS, 3))
