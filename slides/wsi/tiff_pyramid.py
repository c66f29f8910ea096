"""Which images of a TIFF file are the levels of its slide, and whether they show a stained slide at all."""

import re
from dataclasses import dataclass

from slides.wsi import tiff_walk
from slides.wsi.errors import RefusalCode, SlideRefused
from slides.wsi.geometry import Level, content_size, true_downsample
from slides.wsi.tiff_walk import TiffDirectory, TiffLayout

_GREY_OR_RGB = (0, 1, tiff_walk.RGB, tiff_walk.YCBCR)
_LABEL, _MACRO = 1, 9  # Aperio and Leica GT450: NewSubfileType of label and macro image (openslide#297)
_FLUORESCENCE = re.compile(
    r"fluorescen|<ScanColorTable|EmissionWavelength|\bDAPI\b|\bFITC\b|ExcitationWavelength", re.IGNORECASE
)


READABLE = frozenset(
    {1, 5, 6, 7, 8, 22610, 32773, 32946, 33003, 33004, 33005, 34712, 34887, 34892, 34925, 34926, 34927, 34934, 48124,
     50000, 50001, 50002, 52546}
)  # fmt: skip
"""TIFF compressions that one of the readers decodes: raw, LZW, JPEG, deflate, PackBits, JPEG 2000, ZSTD, WebP, JPEG XR, JPEG XL."""


@dataclass(frozen=True, slots=True)
class TiffLevel:
    level: Level
    directory: TiffDirectory


def check_brightfield(layout: TiffLayout) -> None:
    """Raises SlideRefused (not_brightfield, sixteen_bit, unsupported_format) unless this is 8-bit grey or RGB."""
    first = layout.image
    if first.bits > 8 and first.samples <= 4:
        if _is_fluorescence(layout):
            raise _not_brightfield()
        raise SlideRefused(
            RefusalCode.SIXTEEN_BIT,
            f"The image has {first.bits} bits per colour. Slides must have 8: export it as 8-bit RGB.",
        )
    if _is_fluorescence(layout):
        raise _not_brightfield()
    if first.bits != 8 or first.samples not in (1, 3, 4):
        raise SlideRefused(
            RefusalCode.UNSUPPORTED_FORMAT,
            f"The image has {first.samples} colour channels of {first.bits} bits. Slides must be RGB with 8 bits each.",
        )
    if first.photometric == 5:
        raise SlideRefused(
            RefusalCode.UNSUPPORTED_FORMAT, "The image is CMYK, made for printing. Export the slide as RGB."
        )
    if first.photometric not in _GREY_OR_RGB or (first.numbers(tiff_walk.SAMPLE_FORMAT) != 1).any():
        raise SlideRefused(
            RefusalCode.UNSUPPORTED_FORMAT, "The colours of the image are not stored as RGB. Export the slide as RGB."
        )
    if first.compression not in READABLE:
        raise SlideRefused(
            RefusalCode.UNSUPPORTED_FORMAT,
            f"The image is compressed by method {first.compression}, which cannot be read. Export it as JPEG.",
        )


def _is_fluorescence(layout: TiffLayout) -> bool:
    first = layout.image
    if first.samples >= 3:
        return False
    channels = [
        directory
        for directory in layout.main
        if directory.samples == 1 and (directory.width, directory.height) == (first.width, first.height)
    ]
    return len(channels) > 1 or bool(_FLUORESCENCE.search(first.description))


def _not_brightfield() -> SlideRefused:
    return SlideRefused(
        RefusalCode.NOT_BRIGHTFIELD,
        "This is a fluorescence image (separate grey channels), not a stained brightfield slide (H&E).",
    )


def levels_of(layout: TiffLayout) -> tuple[TiffLevel, ...]:
    """The pyramid, finest first. Reduced images may be main directories or SubIFDs of the first (OME-TIFF)."""
    first = layout.image
    levels = [_level(0, first, first, finer=0.0)]
    for directory in sorted((*layout.children(first), *layout.main), key=lambda each: -each.width):
        if _is_reduced(directory, first) and directory.width < levels[-1].directory.width:
            levels.append(_level(len(levels), directory, first, finer=levels[-1].level.downsample))
    return tuple(levels)


def _level(index: int, directory: TiffDirectory, first: TiffDirectory, *, finer: float) -> TiffLevel:
    full = (first.width, first.height)
    size = (directory.width, directory.height)
    tile = (directory.tile_width, directory.tile_height)
    downsample = 1.0
    if directory is not first:
        downsample = true_downsample(full=full, level=size, tile=tile if directory.tiled else None, finer=finer)
    width, height = content_size(full=full, level=size, downsample=downsample)
    return TiffLevel(Level(index, width, height, downsample, *tile), directory)


def _is_reduced(directory: TiffDirectory, first: TiffDirectory) -> bool:
    """Same picture, smaller: like tiling, like channels, like shape. Labels, macros and thumbnails are not."""
    if directory.number(tiff_walk.SUBFILE_TYPE) == _MACRO or directory.tiled != first.tiled:
        return False
    if (directory.samples, directory.bits, directory.planar) != (first.samples, first.bits, first.planar):
        return False
    if re.search(r"\b(label|macro|thumbnail)\b", directory.description[:400], re.IGNORECASE):
        return False
    return _same_shape(directory, first)


def _same_shape(directory: TiffDirectory, first: TiffDirectory) -> bool:
    """Both axes shrink alike, apart from rounding and padding to whole tiles."""
    full, size = (first.width, first.height), (directory.width, directory.height)
    tile = (directory.tile_width, directory.tile_height) if directory.tiled else None
    downsample = true_downsample(full=full, level=size, tile=tile)
    if downsample == round(downsample):
        return True
    ratios = sorted((full[0] / size[0], full[1] / size[1]))
    return ratios[1] / ratios[0] < 1.02


def label_and_macro(layout: TiffLayout) -> dict[str, TiffDirectory]:
    """Stripped side images by NewSubfileType: 1 label, 9 macro (Aperio; GT450 marks them by nothing else)."""
    found: dict[str, TiffDirectory] = {}
    for directory in layout.main:
        if directory.tiled or directory is layout.image:
            continue
        kind = directory.number(tiff_walk.SUBFILE_TYPE)
        name = {_LABEL: "label", _MACRO: "macro"}.get(kind)
        if name and not _same_shape(directory, layout.image):
            found.setdefault(name, directory)
    return found
