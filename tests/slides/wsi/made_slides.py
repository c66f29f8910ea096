"""Small slides made for tests: tissue-like pictures in the file layouts that scanners write."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
import tifffile

Rgb = npt.NDArray[np.uint8]
APERIO = "Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = {mpp}"


def tissue_picture(width: int, height: int, *, seed: int = 1) -> Rgb:
    """Pink blobs on white, smooth enough for JPEG, different in every place."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    field = np.zeros((height, width))
    for _ in range(12):
        centre_x, centre_y = random.uniform(0, width), random.uniform(0, height)
        size = random.uniform(0.08, 0.25) * max(width, height)
        field += np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / (2 * size**2))
    density = np.clip(field, 0, 1)[..., None] * np.array([50.0, 140.0, 80.0])
    ripple = 12 * np.sin(x / 9.0)[..., None] * np.sin(y / 7.0)[..., None]
    return np.clip(242 - density + ripple * (density > 20), 0, 255).astype(np.uint8)


def halved(rgb: Rgb) -> Rgb:
    height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    cut = rgb[:height, :width].astype(np.uint16)
    return ((cut[::2, ::2] + cut[1::2, ::2] + cut[::2, 1::2] + cut[1::2, 1::2] + 2) // 4).astype(np.uint8)


def write_jpeg_tiff(
    path: Path, rgb: Rgb, *, levels: int = 1, tile: int = 256, mpp: float | None = 0.5, rgb_jpeg: bool = False
) -> Path:
    """A plain tiled pyramid, as CAMELYON files are. rgb_jpeg: colours stored as RGB inside the JPEG (Aperio's habit)."""
    resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            file.write(
                rgb,
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 90, "outcolorspace": "rgb"} if rgb_jpeg else {"level": 90},
                subsampling=(1, 1),
                tile=(tile, tile),
                subfiletype=1 if level else 0,
                metadata=None,
                **resolution,
            )
            rgb = halved(rgb)
    return path


def write_svs(path: Path, rgb: Rgb, *, mpp: str = "0.5") -> Path:
    """As an Aperio scanner writes it: RGB JPEG tiles, a thumbnail, a label (subfile type 1) and a macro (9)."""
    height, width = rgb.shape[:2]
    description = APERIO.format(width=width, height=height, mpp=mpp)
    jpeg = {
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 90, "outcolorspace": "rgb"},
        "metadata": None,
    }
    with tifffile.TiffWriter(path) as file:
        file.write(rgb, tile=(256, 256), description=description, **jpeg)
        file.write(halved(halved(rgb)), description=description, rowsperstrip=16, **jpeg)
        file.write(np.full((60, 50, 3), (10, 200, 10), np.uint8), subfiletype=1, description="Aperio\r\nlabel 50x60",
                   photometric="rgb", compression="lzw", metadata=None)  # fmt: skip
        file.write(
            np.full((40, 130, 3), (200, 10, 10), np.uint8),
            subfiletype=9,
            rowsperstrip=8,
            description="Aperio\r\nmacro 130x40",
            **jpeg,
        )
    return path


def spoil_tile(path: Path, number: int, *, how: str, level: int = 0) -> None:
    """Break one tile of a TIFF in place: "zero length", "garbage" (not JPEG), or "cut" (its picture data overwritten)."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        offset, length = page.dataoffsets[number], page.databytecounts[number]
        tag = page.tags["TileByteCounts"]
        place = tag.valueoffset + number * (tag.valuebytecount // tag.count)
        width = tag.valuebytecount // tag.count
    with path.open("r+b") as file:
        if how == "zero length":
            file.seek(place)
            file.write(bytes(width))
        elif how == "garbage":
            file.seek(offset)
            file.write(b"\x00" * length)
        else:
            file.seek(offset + length // 2)
            file.write(b"\xff\xd9" + b"\x00" * (length - length // 2 - 2))


def tiff_of_directories(*directories: tuple[int, list[tuple[int, int, int, int]], int]) -> bytes:
    """A classic little-endian TIFF from (offset, [(tag, type, count, value)], offset of the next directory)."""
    size = max(offset + 2 + 12 * len(entries) + 4 for offset, entries, _ in directories)
    data = bytearray(max(size, 8))
    struct.pack_into("<2sHI", data, 0, b"II", 42, directories[0][0])
    for offset, entries, following in directories:
        struct.pack_into("<H", data, offset, len(entries))
        for number, entry in enumerate(entries):
            struct.pack_into("<HHII", data, offset + 2 + 12 * number, *entry)
        struct.pack_into("<I", data, offset + 2 + 12 * len(entries), following)
    return bytes(data)


def decoded(data: bytes) -> Rgb:
    rgb: Rgb = simplejpeg.decode_jpeg(data, colorspace="RGB")
    return rgb


def difference(first: Rgb, second: Rgb) -> float:
    """Mean absolute difference of two pictures, in grey levels."""
    return float(np.abs(first.astype(int) - second.astype(int)).mean())
