"""The whole slides that recipes start from: one picture in the file layouts that scanners and converters write.

A base writes its file or folder below the folder it is given and returns its path. All show PICTURE, apart from those in
OTHER_PICTURE. Names that begin with `ref:` are files of the reference data.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from PIL import Image, ImageCms

from slides.wsi.jpeg_stream import split_tables

from ..wsi.made_slides import Rgb, halved, tissue_picture
from . import dicom_files, vendor_files
from .tiff_edit import TiffEditor

WIDTH, HEIGHT, TILE = 600, 500, 128
APERIO = (
    "Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}] (128x128) {codec}|AppMag = 20|MPP = 0.5"
)
Base = Callable[[Path], Path]
BASES: dict[str, Base] = {}


@cache
def picture() -> Rgb:
    return tissue_picture(WIDTH, HEIGHT)


@cache
def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def base(name: str) -> Callable[[Base], Base]:
    def register(make: Base) -> Base:
        BASES[name] = make
        return make

    return register


def _write(
    path: Path, levels: int = 3, *, first: Rgb | None = None, file: dict[str, Any] | None = None, **page: Any
) -> Path:
    """A pyramid in main directories. `page`: options of tifffile for every level."""
    options = {
        "photometric": "rgb", "tile": (TILE, TILE), "metadata": None, "resolution": (20000, 20000),
        "resolutionunit": "CENTIMETER", **page,
    }  # fmt: skip
    level = picture() if first is None else first
    with tifffile.TiffWriter(path, **(file or {})) as out:
        for number in range(levels):
            out.write(level, subfiletype=1 if number else 0, **options)
            level = halved(level)
    return path


JPEG = {"compression": "jpeg", "compressionargs": {"level": 92}, "subsampling": (1, 1)}
RGB_JPEG = {"compression": "jpeg", "compressionargs": {"level": 92, "outcolorspace": "rgb"}, "subsampling": (1, 1)}


def _with_shared_tables(path: Path, *ifds: str) -> Path:
    """Each directory's JPEG tables in one place, as scanners write them; tifffile writes them into each tile."""
    tiff = TiffEditor(path.read_bytes())
    for ifd in ifds:
        offsets, counts = tiff.segment_tags(ifd)
        tables = b""
        for number, (place, size) in enumerate(zip(tiff.values(ifd, offsets), tiff.values(ifd, counts), strict=True)):
            tables, tile = split_tables(bytes(tiff.data[place : place + size]))
            tiff.data[place : place + size] = tile.ljust(size, b"\0")
            tiff.set_value(ifd, counts, number, len(tile))
        tiff.set_tag(ifd, "JPEGTables", tables, type="UNDEFINED")
    path.write_bytes(bytes(tiff.data))
    return path


@base("tiff-jpeg")
def _(folder: Path) -> Path:
    return _with_shared_tables(_write(folder / "slide.tif", **JPEG), "0", "1", "2")


@base("tiff-jpeg-own-tables")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", **JPEG)


@base("tiff-jpeg-one-level")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", 1, **JPEG)


@base("tiff-jpeg-levels-1-4-16")
def _(folder: Path) -> Path:
    path, level = folder / "slide.tif", picture()
    with tifffile.TiffWriter(path) as out:
        for number in range(3):
            out.write(level, subfiletype=1 if number else 0, photometric="rgb", tile=(32, 32), metadata=None,
                      resolution=(20000, 20000), resolutionunit="CENTIMETER", **JPEG)  # fmt: skip
            level = halved(halved(level))
    return path


@base("tiff-jpeg-padded")
def _(folder: Path) -> Path:
    """As CAMELYON16: each reduced level's size rounded up to whole tiles."""
    path, level = folder / "slide.tif", picture()
    with tifffile.TiffWriter(path) as out:
        for number in range(4):
            bottom, right = (-side % TILE for side in level.shape[:2])
            padded = level if number == 0 else np.pad(level, ((0, bottom), (0, right), (0, 0)))
            out.write(padded, subfiletype=1 if number else 0, photometric="rgb", tile=(TILE, TILE), metadata=None,
                      resolution=(20000, 20000), resolutionunit="CENTIMETER", **JPEG)  # fmt: skip
            level = halved(level)
    return path


@base("tiff-jpeg-level-of-two-thirds")
def _(folder: Path) -> Path:
    path = folder / "slide.tif"
    small = np.asarray(Image.fromarray(picture()).resize((400, 333), Image.Resampling.BOX))
    with tifffile.TiffWriter(path) as out:
        for number, level in enumerate((picture(), small)):
            out.write(level, subfiletype=1 if number else 0, photometric="rgb", tile=(TILE, TILE), metadata=None,
                      resolution=(20000, 20000), resolutionunit="CENTIMETER", **JPEG)  # fmt: skip
    return path


@base("tiff-jpeg-big-endian")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", file={"byteorder": ">"}, **JPEG)


@base("bigtiff-jpeg")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", file={"bigtiff": True}, **JPEG)


@base("bigtiff-jpeg-big-endian")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", file={"bigtiff": True, "byteorder": ">"}, **JPEG)


@base("tiff-jpeg-icc")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", iccprofile=srgb(), **JPEG)


@base("tiff-raw")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif")


@base("tiff-deflate")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", compression="adobe_deflate", predictor=True)


@base("tiff-lzw")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", compression="lzw")


@base("tiff-zstd")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", compression="zstd")


@base("tiff-webp")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", compression="webp", compressionargs={"level": 101})


@base("tiff-packbits")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", compression="packbits")


@base("tiff-grey")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", 1, first=picture()[..., 1].copy(), photometric="minisblack", compression="lzw")


@base("tiff-white-is-zero")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", 1, first=255 - picture()[..., 1], photometric="miniswhite", compression="lzw")


@base("tiff-rgba")
def _(folder: Path) -> Path:
    """The right half is transparent black, as converters write the outside of a scan."""
    rgba = np.dstack([picture(), np.full(picture().shape[:2], 255, np.uint8)])
    rgba[:, WIDTH // 2 :] = 0
    return _write(folder / "slide.tif", 1, first=rgba, extrasamples=["unassalpha"], compression="adobe_deflate")


@base("tiff-planar")
def _(folder: Path) -> Path:
    planes = np.moveaxis(picture(), 2, 0).copy()
    return _write(folder / "slide.tif", 1, first=planes, planarconfig="separate", compression="adobe_deflate")


@base("tiff-strips-deflate")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", 1, tile=None, rowsperstrip=32, compression="adobe_deflate")


@base("tiff-strips-jpeg")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", 1, tile=None, rowsperstrip=32, **JPEG)


@base("tiff-one-strip")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", 1, tile=None, rowsperstrip=HEIGHT)


@base("tiff-sixteen-bit")
def _(folder: Path) -> Path:
    return _write(folder / "slide.tif", 1, first=picture().astype(np.uint16) * 257, compression="adobe_deflate")


@base("tiff-cmyk")
def _(folder: Path) -> Path:
    ink = 255 - np.dstack([picture(), np.full(picture().shape[:2], 255, np.uint8)])
    return _write(folder / "slide.tif", 1, first=ink, photometric="separated", compression="adobe_deflate")


@base("tiff-fluorescence")
def _(folder: Path) -> Path:
    path = folder / "slide.tif"
    with tifffile.TiffWriter(path) as out:
        for name in ("DAPI", "FITC", "Cy5"):
            out.write(picture()[..., 1].copy(), photometric="minisblack", tile=(TILE, TILE), description=name,
                      compression="lzw", metadata=None)  # fmt: skip
    return path


def _aperio(path: Path, codec: str, level_0: Rgb | None = None, **options: Any) -> Path:
    whole = picture() if level_0 is None else level_0
    description = APERIO.format(width=WIDTH, height=HEIGHT, codec=codec)
    quarter = halved(halved(whole))
    with tifffile.TiffWriter(path) as out:
        out.write(whole, tile=(TILE, TILE), description=description, metadata=None, photometric="rgb", **options)
        out.write(quarter, description=description, rowsperstrip=16, metadata=None, photometric="rgb", **RGB_JPEG)
        half = f"{description}\r\n{WIDTH}x{HEIGHT} -> {WIDTH // 2}x{HEIGHT // 2}"
        out.write(halved(whole), tile=(TILE, TILE), description=half, metadata=None, photometric="rgb", **options)
        out.write(np.full((60, 50, 3), (10, 200, 10), np.uint8), subfiletype=1, description="Aperio\r\nlabel 50x60",
                  photometric="rgb", compression="lzw", metadata=None)  # fmt: skip
        out.write(np.full((40, 130, 3), (200, 10, 10), np.uint8), subfiletype=9, rowsperstrip=8,
                  description="Aperio\r\nmacro 130x40", photometric="rgb", metadata=None, **RGB_JPEG)  # fmt: skip
    return path


@base("svs")
def _(folder: Path) -> Path:
    return _with_shared_tables(_aperio(folder / "slide.svs", "JPEG/RGB Q=90", **RGB_JPEG), "0", "2")


@base("svs-ycbcr")
def _(folder: Path) -> Path:
    return _with_shared_tables(_aperio(folder / "slide.svs", "JPEG/YCC Q=90", **JPEG), "0", "2")


@base("svs-jp2k-33005")
def _(folder: Path) -> Path:
    options = {"compression": "aperio_jp2000_rgb", "compressionargs": {"level": 45, "codecformat": "j2k", "mct": False}}
    return _aperio(folder / "slide.svs", "J2K/KDU Q=70", **options)


@base("svs-jp2k-33003")
def _(folder: Path) -> Path:
    """The three components hold Y, Cb, Cr and no colour transform says so."""
    ycbcr = np.asarray(Image.fromarray(picture()).convert("YCbCr"))
    options = {
        "compression": "aperio_jp2000_ycbc",
        "compressionargs": {"level": 45, "codecformat": "j2k", "mct": False},
    }
    return _aperio(folder / "slide.svs", "J2K/YUV16 Q=70", ycbcr, **options)


def _ome(path: Path, xml: str, **options: Any) -> Path:
    """OME-TIFF as bioformats2raw and QuPath write it: lower levels in SubIFDs of the first image."""
    level = picture()
    with tifffile.TiffWriter(path) as out:
        page = {"photometric": "rgb", "tile": (TILE, TILE), "metadata": None, **options}
        out.write(level, subifds=2, description=xml, **page)
        for _ in range(2):
            level = halved(level)
            out.write(level, subfiletype=1, **page)
    return path


OME_XML = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="600" SizeY="500" SizeC="3" '
    'SizeZ="1" SizeT="1" Interleaved="true" PhysicalSizeX="{x}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{y}" '
    'PhysicalSizeYUnit="{unit}"><Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>'
    "</Pixels></Image></OME>"
)


def ome_xml(x: object = 0.5, y: object = 0.5, unit: str = "µm") -> bytes:
    return OME_XML.format(x=x, y=y, unit=unit).encode() + b"\0"


@base("ome-tiff-jpeg")
def _(folder: Path) -> Path:
    return _ome(folder / "slide.ome.tif", ome_xml(), **JPEG)


@base("ome-tiff-deflate")
def _(folder: Path) -> Path:
    return _ome(folder / "slide.ome.tif", ome_xml(), compression="adobe_deflate")


@base("philips")
def _(folder: Path) -> Path:
    return vendor_files.write_philips(folder / "slide.tiff", picture())


@base("ndpi")
def _(folder: Path) -> Path:
    return vendor_files.write_ndpi(folder / "slide.ndpi", picture())


@base("scn")
def _(folder: Path) -> Path:
    return vendor_files.write_scn(folder / "slide.scn", picture())


@base("bif")
def _(folder: Path) -> Path:
    return vendor_files.write_bif(folder / "slide.bif", picture())


@base("mrxs")
def _(folder: Path) -> Path:
    return vendor_files.write_mrxs(folder / "slide.mrxs", picture())


@base("vms")
def _(folder: Path) -> Path:
    return vendor_files.write_vms(folder / "slide.vms", picture())


@base("dicom")
def _(folder: Path) -> Path:
    return dicom_files.write_instance(folder / "slide.dcm", picture())


@base("dicom-raw")
def _(folder: Path) -> Path:
    return dicom_files.write_instance(folder / "slide.dcm", picture(), encapsulated=False)


@base("dicom-series")
def _(folder: Path) -> Path:
    return dicom_files.write_series(folder / "series", picture(), levels=3)


@base("png")
def _(folder: Path) -> Path:
    path = folder / "slide.png"
    Image.fromarray(picture()).save(path)
    return path


@base("jpeg")
def _(folder: Path) -> Path:
    path = folder / "slide.jpg"
    path.write_bytes(simplejpeg.encode_jpeg(picture(), quality=95, colorspace="RGB", colorsubsampling="444"))
    return path


@base("jp2")
def _(folder: Path) -> Path:
    path = folder / "slide.jp2"
    path.write_bytes(imagecodecs.jpeg2k_encode(picture(), codecformat="jp2", level=45))
    return path


@base("nothing")
def _(folder: Path) -> Path:
    """An empty file, for recipes that write all of it."""
    path = folder / "slide.svs"
    path.touch()
    return path
