"""One chart of flat colours in every way that slides store colour, and the published measure of how far colours differ."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import ImageCms

from .made_slides import Rgb

# Stains (eosin, haematoxylin, DAB, mixtures of them), glass, ink, greys, and the corners that show exchanged channels.
COLOURS = np.array(
    [(232, 178, 205), (214, 130, 178), (188, 92, 150), (150, 84, 150), (110, 70, 140), (72, 48, 118),
     (160, 110, 70), (110, 66, 36), (244, 243, 246), (255, 255, 255), (200, 200, 200), (128, 128, 128),
     (60, 60, 60), (12, 12, 14), (40, 90, 160), (20, 120, 60), (200, 40, 40), (30, 30, 200),
     (220, 190, 60), (60, 180, 190), (180, 140, 220), (245, 220, 230), (96, 20, 60), (170, 60, 110)],
    np.uint8,
)  # fmt: skip
PATCH_PX, COLUMNS = 128, 6
APERIO = "Aperio Image Library v11.0.37\r\n768x512 [0,0 768x512] (256x256) {codec}|AppMag = 20|MPP = 0.5"


def chart(colours: npt.NDArray[np.uint8] = COLOURS) -> Rgb:
    """uint8 (512, 768, 3)"""
    return colours.reshape(-1, COLUMNS, 3).repeat(PATCH_PX, axis=0).repeat(PATCH_PX, axis=1)


def grey_colours() -> npt.NDArray[np.uint8]:
    return (COLOURS @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)


def patch_means(rgb: Rgb) -> npt.NDArray[np.float64]:
    """(24, 3): the mean of the middle of each patch, in a picture of any size that shows the whole chart."""
    side = rgb.shape[1] / COLUMNS
    means = []
    for number in range(len(COLOURS)):
        top, left = (round(place * side) for place in divmod(number, COLUMNS))
        quarter = round(side / 4)
        middle = rgb[top + quarter : top + 3 * quarter, left + quarter : left + 3 * quarter]
        means.append(middle.reshape(-1, 3).mean(axis=0))
    return np.array(means)


def _tiles(picture: npt.NDArray[np.uint8], encode: Callable[[npt.NDArray[np.uint8]], bytes]) -> Iterator[bytes]:
    for top in range(0, picture.shape[0], 256):
        for left in range(0, picture.shape[1], 256):
            yield encode(np.ascontiguousarray(picture[top : top + 256, left : left + 256]))


def _ycbcr(rgb: Rgb) -> Rgb:
    """Full-range BT.601, as JFIF and Aperio's compression 33003 have it."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return (rgb @ matrix.T + np.array([0, 128, 128])).round().clip(0, 255).astype(np.uint8)


def write_kind(path: Path, kind: str, *, icc: bytes = b"") -> Path:
    """A chart slide; `kind` is one of KINDS."""
    rgb = chart()
    options: dict[str, object] = {"tile": (256, 256), "metadata": None, "iccprofile": icc or None}
    jpeg = {"compression": "jpeg", "photometric": "rgb"}
    if kind == "JPEG RGB":
        options |= jpeg | {"compressionargs": {"level": 90, "outcolorspace": "rgb"}, "subsampling": (1, 1)}
        options["description"] = APERIO.format(codec="JPEG/RGB Q=90")
    elif kind == "JPEG YCbCr 4:2:0":
        options |= jpeg | {"compressionargs": {"level": 90}, "subsampling": (2, 2)}
    elif kind == "JPEG YCbCr 4:4:4":
        options |= jpeg | {"compressionargs": {"level": 90}, "subsampling": (1, 1)}
    elif kind == "deflate":
        options |= {"compression": "deflate", "photometric": "rgb"}
    elif kind == "JPEG grey":
        options |= {"compression": "jpeg", "photometric": "minisblack", "compressionargs": {"level": 90}}
    elif kind == "deflate grey":
        options |= {"compression": "deflate", "photometric": "minisblack"}
    elif kind.startswith("JPEG 2000"):
        compression = int(kind.rsplit(" ", 1)[1])
        stored = _ycbcr(rgb) if compression == 33003 else rgb
        data = _tiles(stored, lambda tile: imagecodecs.jpeg2k_encode(tile, codecformat="j2k", mct=False, level=60))
        options |= {
            "compression": compression,
            "photometric": "rgb",
            "description": APERIO.format(codec="J2K/KDU Q=70"),
        }
        with tifffile.TiffWriter(path) as file:
            file.write(data, shape=rgb.shape, dtype=np.uint8, **options)
        return path
    else:
        raise ValueError(kind)
    picture = chart(grey_colours()[:, None].repeat(3, axis=1))[..., 0] if "grey" in kind else rgb
    with tifffile.TiffWriter(path) as file:
        file.write(picture, **options)
    return path


KINDS = ("JPEG RGB", "JPEG YCbCr 4:2:0", "JPEG YCbCr 4:4:4", "JPEG 2000 33003", "JPEG 2000 33005", "deflate",
         "JPEG grey", "deflate grey")  # fmt: skip
SERVED_AS_THEY_ARE = ("JPEG RGB", "JPEG YCbCr 4:2:0", "JPEG YCbCr 4:4:4", "JPEG grey")


def colours_of(kind: str) -> npt.NDArray[np.uint8]:
    return grey_colours()[:, None].repeat(3, axis=1) if "grey" in kind else COLOURS


def scanner_profile() -> bytes:
    """An RGB profile unlike sRGB: its tone curve is a gamma of 1.8, its red primary is duller."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    struct.pack_into(">6H", data, 24, 2005, 1, 1, 0, 0, 0)  # the date of making: the same bytes at every call
    places = {}
    for number in range(struct.unpack_from(">I", data, 128)[0]):
        name, offset, _ = struct.unpack_from(">4sII", data, 132 + 12 * number)
        places[name] = offset
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        assert data[places[name] : places[name] + 4] == b"para"
        struct.pack_into(">HHi", data, places[name] + 8, 0, 0, round(1.8 * 65536))  # function 0: a power alone
    x, y, z = struct.unpack_from(">3i", data, places[b"rXYZ"] + 8)
    struct.pack_into(">3i", data, places[b"rXYZ"] + 8, round(x * 0.9), y, z + round(0.04 * 65536))
    return bytes(data)


# -- CIEDE2000 (Sharma, Wu, Dalal 2005, "The CIEDE2000 color-difference formula", Color Research & Application 30:21) ----


def lab_of(rgb: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """CIE L*a*b* (D65) of sRGB 0-255."""
    value = np.asarray(rgb, np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def ciede2000(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Of L*a*b* colours (..., 3), with kL = kC = kH = 1."""
    l1, a1, b1 = np.moveaxis(np.asarray(first, np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(second, np.float64), -1, 0)
    mean_c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    g = 0.5 * (1 - np.sqrt(mean_c7 / (mean_c7 + 25.0**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    colourless = c1 * c2 == 0
    turn = np.where(colourless, 0, (h2 - h1 + 180) % 360 - 180)
    turn = np.where((turn == -180) & (h2 > h1), 180, turn)
    dl, dc, dh = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_l, c = (l1 + l2) / 2, (c1 + c2) / 2
    far = np.abs(h1 - h2) > 180
    h = np.where(colourless, h1 + h2, np.where(far, np.where(h1 + h2 < 360, h1 + h2 + 360, h1 + h2 - 360), h1 + h2) / 2)
    t = (1 - 0.17 * np.cos(np.radians(h - 30)) + 0.24 * np.cos(np.radians(2 * h))
         + 0.32 * np.cos(np.radians(3 * h + 6)) - 0.20 * np.cos(np.radians(4 * h - 63)))  # fmt: skip
    sl = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    sc, sh = 1 + 0.045 * c, 1 + 0.015 * c * t
    rotation = -np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2)))) * 2 * np.sqrt(c**7 / (c**7 + 25.0**7))
    return np.sqrt((dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rotation * (dc / sc) * (dh / sh))


def differences(rgb: npt.ArrayLike, reference: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """CIEDE2000 of sRGB colours."""
    return ciede2000(lab_of(rgb), lab_of(reference))
