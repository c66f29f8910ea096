"""Slides in the layouts of single vendors, as far as OpenSlide looks at them."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import tifffile
from PIL import Image

from ..wsi.made_slides import Rgb, halved

TILE = 128
_JPEG: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": 92}, "subsampling": (1, 1)}


def jpeg_of(rgb: Rgb) -> bytes:
    return bytes(
        simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=92, colorspace="RGB", colorsubsampling="444")
    )


def padded_to(rgb: Rgb, side: int) -> Rgb:
    height, width = rgb.shape[:2]
    return np.pad(rgb, ((0, -height % side), (0, -width % side), (0, 0)), constant_values=255)


def write_philips(path: Path, rgb: Rgb) -> Path:
    """Levels padded to whole tiles; their true sizes follow from the spacings in the XML."""
    levels = [rgb, halved(rgb), halved(halved(rgb))]
    parts = "".join(
        '<DataObject ObjectType="PixelDataRepresentation">'
        f'<Attribute Name="DICOM_PIXEL_SPACING">"{0.0005 * 2**number}" "{0.0005 * 2**number}"</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_COLUMNS">{padded_to(level, TILE).shape[1]}</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_ROWS">{padded_to(level, TILE).shape[0]}</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER">{number}</Attribute></DataObject>'
        for number, level in enumerate(levels)
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="DICOM_MANUFACTURER">PHILIPS</Attribute>'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array><DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
        '<Attribute Name="DICOM_PIXEL_SPACING">"0.0005" "0.0005"</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>{parts}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    with tifffile.TiffWriter(path) as out:
        for number, level in enumerate(levels):
            out.write(padded_to(level, TILE), tile=(TILE, TILE), subfiletype=1 if number else 0, photometric="rgb",
                      metadata=None, software="Philips DP v1.0" if number == 0 else None,
                      description=xml if number == 0 else None, **_JPEG)  # fmt: skip
    return path


def write_scn(path: Path, rgb: Rgb) -> Path:
    """A Leica collection of 800 x 700 pixels with the scanned area at (100, 80)."""
    height, width = rgb.shape[:2]
    nm = 500
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="made">'
        f'<collection name="made" sizeX="{800 * nm}" sizeY="{700 * nm}"><barcode>MQ==</barcode>'
        f'<image name="main"><pixels sizeX="{width}" sizeY="{height}"><dimension sizeX="{width}" sizeY="{height}" r="0" ifd="0"/>'
        f'<dimension sizeX="{width // 2}" sizeY="{height // 2}" r="1" ifd="1"/></pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{100 * nm}" offsetY="{80 * nm}" spacingZ="0"/>'
        '<creationDate>2020-01-01T00:00:00Z</creationDate><device model="Leica SCN400" version="1"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image></collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as out:
        for number, level in enumerate((rgb, halved(rgb))):
            out.write(level, tile=(TILE, TILE), photometric="rgb", metadata=None, subfiletype=1 if number else 0,
                      description=xml if number == 0 else None, resolution=(20000 / (number + 1), 20000 / (number + 1)),
                      resolutionunit="CENTIMETER", **_JPEG)  # fmt: skip
    return path


def write_bif(path: Path, rgb: Rgb) -> Path:
    """A Ventana scan of one area without overlap. Tiles are whole: the picture is padded with white."""
    whole = padded_to(rgb, 2 * TILE)
    columns, rows = whole.shape[1] // TILE, whole.shape[0] // TILE
    joints = []
    for index in range(columns * rows - 1):
        row, along = divmod(index, columns)
        up = along == columns - 1
        joints.append((index + 1, index + 2, "UP" if up else ("LEFT" if row % 2 else "RIGHT")))
    right = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{direction}" Tile1="{first}" Tile2="{second}" '
        'OverlapX="0" OverlapY="0"/>'
        for first, second, direction in joints
        if direction != "LEFT"
    )
    scan = '<iScan AppVersion="made" Magnification="20" ScanRes="0.5" Z-layers="1" ScannerModel="VENTANA iScan HT"></iScan>'
    level_0 = (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" NumRows="{rows}" NumCols="{columns}" '
        f'Width="{TILE}" Height="{TILE}" Pos-X="0" Pos-Y="0">{right}</ImageInfo></SlideStitchInfo>'
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as out:
        out.write(np.full((64, 32, 3), 200, np.uint8), photometric="rgb", metadata=None, description="Label Image",
                  extratags=[(700, 1, len(scan), scan.encode(), True)], rowsperstrip=64)  # fmt: skip
        for number, level in enumerate((whole, halved(whole))):
            extra = [(700, 1, len(level_0), level_0.encode(), True)] if number == 0 else []
            out.write(level, tile=(TILE, TILE), photometric="rgb", metadata=None, extratags=extra,
                      description=f"level={number} mag={20 / 2**number:g} quality=90", **_JPEG)  # fmt: skip
    return path


def write_ndpi(path: Path, rgb: Rgb) -> Path:
    """Each level is one JPEG in one strip, with Hamamatsu's private tags."""
    out = bytearray(struct.pack("<2sHI", b"II", 42, 0) + bytes(8))
    link = 4
    for number, level in enumerate((rgb, halved(rgb))):
        jpeg = jpeg_of(level)
        jpeg_at = len(out)
        out += jpeg + bytes(-len(jpeg) % 8)
        make_at = len(out)
        out += b"Hamamatsu\0NanoZoomer\0\0\0\0"
        resolution_at = len(out)
        out += struct.pack("<II", 20000 >> number, 1)
        height, width = level.shape[:2]
        bits_at = len(out)
        out += struct.pack("<HHHH", 8, 8, 8, 0)
        lens = struct.unpack("<I", struct.pack("<f", 20.0 / 2**number))[0]
        entries = [
            (254, 4, 1, 0), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits_at), (259, 3, 1, 7),
            (262, 3, 1, 6), (271, 2, 10, make_at), (272, 2, 11, make_at + 10), (273, 4, 1, jpeg_at), (277, 3, 1, 3),
            (278, 4, 1, height), (279, 4, 1, len(jpeg)), (282, 5, 1, resolution_at), (283, 5, 1, resolution_at),
            (284, 3, 1, 1), (296, 3, 1, 3), (65420, 4, 1, 1), (65421, 11, 1, lens), (65422, 9, 1, 0), (65423, 9, 1, 0),
            (65424, 9, 1, 0),
        ]  # fmt: skip
        struct.pack_into("<I", out, link, len(out))
        out += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        link = len(out)
        out += bytes(8)  # NDPI links by 64 bits
    path.write_bytes(bytes(out))
    return path


def write_vms(path: Path, rgb: Rgb) -> Path:
    """One JPEG and a map of it, named by a key file."""
    whole = padded_to(rgb, 16)
    Image.fromarray(whole).save(
        path.parent / "slide.jpg", quality=92, subsampling=0, restart_marker_blocks=whole.shape[1] // 8
    )  # without a restart marker after each row OpenSlide does not take it
    small = halved(halved(padded_to(rgb, 64)))
    Image.fromarray(small).save(
        path.parent / "slide_map2.jpg", quality=92, subsampling=0, restart_marker_blocks=small.shape[1] // 8
    )
    height, width = whole.shape[:2]
    path.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nImageFile=slide.jpg\n"
        f"MapFile=slide_map2.jpg\nPhysicalWidth={width * 500}\nPhysicalHeight={height * 500}\nSourceLens=20\n"
    )
    return path


MRXS_ID = "0123456789ABCDEF0123456789ABCDEF"


def write_mrxs(path: Path, rgb: Rgb) -> Path:
    """An index file and its folder: JPEG images of 128 pixels side by side, two zoom levels."""
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(jpeg_of(halved(halved(rgb))))
    whole = padded_to(rgb, 2 * TILE)
    columns, rows = whole.shape[1] // TILE, whole.shape[0] // TILE
    data = bytearray()
    places: list[list[tuple[int, int, int]]] = []  # per level: (image index, offset, length)
    for number, level in enumerate((whole, halved(whole))):
        step = 2**number
        found = []
        for row in range(level.shape[0] // TILE):
            for col in range(level.shape[1] // TILE):
                jpeg = jpeg_of(level[row * TILE : (row + 1) * TILE, col * TILE : (col + 1) * TILE])
                found.append((row * step * columns + col * step, len(data), len(jpeg)))
                data += jpeg
        places.append(found)
    (folder / "Data0000.dat").write_bytes(bytes(data))
    (folder / "Index.dat").write_bytes(_mrxs_index(places))
    level = (
        "IMAGE_CONCAT_FACTOR={concat}\nOVERLAP_X=0\nOVERLAP_Y=0\nMICROMETER_PER_PIXEL_X={mpp}\n"
        "MICROMETER_PER_PIXEL_Y={mpp}\nIMAGE_FORMAT=JPEG\nIMAGE_FILL_COLOR_BGR=16777215\n"
        f"DIGITIZER_WIDTH={TILE}\nDIGITIZER_HEIGHT={TILE}\n"
    )
    (folder / "Slidedat.ini").write_text(
        f"[GENERAL]\nSLIDE_VERSION=01.02\nSLIDE_ID={MRXS_ID}\nIMAGENUMBER_X={columns}\nIMAGENUMBER_Y={rows}\n"
        "OBJECTIVE_MAGNIFICATION=20\nCameraImageDivisionsPerSide=1\n"
        "[HIERARCHICAL]\nHIER_COUNT=1\nNONHIER_COUNT=0\nINDEXFILE=Index.dat\nHIER_0_NAME=Slide zoom level\n"
        "HIER_0_COUNT=2\nHIER_0_VAL_0_SECTION=LAYER_0_LEVEL_0_SECTION\nHIER_0_VAL_1_SECTION=LAYER_0_LEVEL_1_SECTION\n"
        "[DATAFILE]\nFILE_COUNT=1\nFILE_0=Data0000.dat\n"
        f"[LAYER_0_LEVEL_0_SECTION]\n{level.format(concat=0, mpp=0.5)}"
        f"[LAYER_0_LEVEL_1_SECTION]\n{level.format(concat=1, mpp=1.0)}"
    )
    return path


def _mrxs_index(places: list[list[tuple[int, int, int]]]) -> bytes:
    """Version, slide id, root of the hierarchy, then per level one page of (image, offset, length, file)."""
    index = bytearray(b"01.02" + MRXS_ID.encode())
    root = len(index)
    index += struct.pack("<ii", 0, 0)
    struct.pack_into("<i", index, root, len(index))
    pointers = len(index)
    index += bytes(4 * len(places))
    for number, found in enumerate(places):
        struct.pack_into("<i", index, pointers + 4 * number, len(index))
        index += struct.pack("<ii", 0, len(index) + 8)
        index += struct.pack("<ii", len(found), 0)
        for image, offset, length in found:
            index += struct.pack("<iiii", image, offset, length, 0)
    return bytes(index)
