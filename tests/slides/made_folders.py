"""Tiny slides of several files, written by the rules of their formats, and archives of them."""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 256
SLIDE_ID = "00112233445566778899AABBCCDDEEFF"
_SECTION = "LAYER_0_LEVEL_0_SECTION"


def picture(width: int, height: int, seed: int) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed)
    tissue = noise.normal((150, 90, 160), 25, (height // 8, width // 8, 3)).clip(0, 255).astype(np.uint8)
    whole = np.full((height, width, 3), 244, np.uint8)
    whole[height // 4 : -height // 4, width // 4 : -width // 4] = tissue.repeat(8, 0).repeat(8, 1)[
        height // 4 : -height // 4, width // 4 : -width // 4
    ]
    return whole


def mirax_files(name: str = "slide", *, seed: int = 1, across: int = 3, down: int = 2) -> dict[str, bytes]:
    """A MIRAX slide of one level without overlap: `name.mrxs` and the files of its folder."""
    whole = picture(across * SIDE, down * SIDE, seed)
    data, entries = bytearray(b"data of " + SLIDE_ID.encode()), []
    for number in range(across * down):
        top, left = number // across * SIDE, number % across * SIDE
        tile = _jpeg(whole[top : top + SIDE, left : left + SIDE])
        entries.append(struct.pack("<iiii", number, len(data), len(tile), 0))
        data += tile
    head = b"01.02" + SLIDE_ID.encode()
    roots = len(head)  # hier root, nonhier root, then: pointer of level 0, its first record, its page
    pointer, record, page = roots + 8, roots + 12, roots + 20
    index = head + struct.pack("<ii", pointer, pointer) + struct.pack("<i", record) + struct.pack("<ii", 0, page)
    index += struct.pack("<ii", len(entries), 0) + b"".join(entries)
    slidedat = f"""[GENERAL]
SLIDE_VERSION = 01.02
SLIDE_ID = {SLIDE_ID}
IMAGENUMBER_X = {across}
IMAGENUMBER_Y = {down}
OBJECTIVE_MAGNIFICATION = 20
[HIERARCHICAL]
HIER_COUNT = 1
NONHIER_COUNT = 0
INDEXFILE = Index.dat
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = 1
HIER_0_VAL_0_SECTION = {_SECTION}
[DATAFILE]
FILE_COUNT = 1
FILE_0 = Data0000.dat
[{_SECTION}]
OVERLAP_X = 0
OVERLAP_Y = 0
MICROMETER_PER_PIXEL_X = 0.5
MICROMETER_PER_PIXEL_Y = 0.5
IMAGE_FORMAT = JPEG
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = {SIDE}
DIGITIZER_HEIGHT = {SIDE}
IMAGE_CONCAT_FACTOR = 0
"""
    return {
        f"{name}.mrxs": b"the index of a slide",
        f"{name}/Slidedat.ini": slidedat.encode(),
        f"{name}/Index.dat": index,
        f"{name}/Data0000.dat": bytes(data),
    }


def hamamatsu_files(name: str = "slide", *, seed: int = 2) -> dict[str, bytes]:
    """A Hamamatsu VMS slide of one picture: the list and the pictures that it names."""
    whole = picture(768, 512, seed)
    listed = f"""[Virtual Microscope Specimen]
NoLayers=1
NoJpegColumns=1
NoJpegRows=1
ImageFile={name}(0,0).jpg
MapFile={name}_map2.jpg
SourceLens=20
PhysicalWidth=384000
PhysicalHeight=256000
"""
    return {
        f"{name}.vms": listed.encode(),
        f"{name}(0,0).jpg": _jpeg(whole, restart=True),
        f"{name}_map2.jpg": _jpeg(whole[::8, ::8].copy(), restart=True),
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def _jpeg(rgb: npt.NDArray[np.uint8], *, restart: bool = False) -> bytes:
    buffer = io.BytesIO()
    options = {"restart_marker_rows": 1} if restart else {}
    Image.fromarray(rgb).save(buffer, "JPEG", quality=90, subsampling=0, **options)
    return buffer.getvalue()
