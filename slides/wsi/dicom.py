"""Just enough of DICOM to say why a file is not a whole slide: explicit VR little endian headers, no pixels.

Only top-level elements before the pixel data are looked at. DICOM PS3.5 section 7; PS3.3 C.8.12.4.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from slides.wsi.errors import RefusalCode, SlideRefused

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}
_WHOLE_SLIDE_STORAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_SOP_CLASS, _IMAGE_TYPE, _SERIES = 0x00080016, 0x00080008, 0x0020000E
_ITEM_GROUP, _SEQUENCE_END, _UNKNOWN = 0xFFFE, 0xE0DD, 0xFFFFFFFF
_WANTED_HEAD = 256 << 10
_LARGEST_VALUE = 4096


def is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def series_of(path: Path) -> str:
    """The Series Instance UID; empty for files that are no DICOM image (DICOMDIR too) or do not say."""
    try:
        return _elements(path).get(_SERIES, "") if is_dicom(path) else ""
    except OSError:
        return ""


def check(path: Path) -> None:
    """Raises SlideRefused (incomplete, not_a_slide) for DICOM files that are no image of a whole slide."""
    elements = _elements(path)
    if elements.get(_SOP_CLASS, _WHOLE_SLIDE_STORAGE) != _WHOLE_SLIDE_STORAGE:
        raise SlideRefused(
            RefusalCode.NOT_A_SLIDE, "The DICOM file is not a whole slide image (VL Whole Slide Microscopy)."
        )
    if not elements.get(_IMAGE_TYPE):
        raise SlideRefused(
            RefusalCode.INCOMPLETE,
            "The DICOM file is incomplete: its Image Type (0008,0008) is missing, so slide, label and overview "
            "cannot be told apart. Export it from the scanner again.",
        )


def check_series(members: Iterable[Path]) -> None:
    """Raises SlideRefused when a folder holds more than one series: each would be a slide of its own."""
    series = {_elements(member).get(_SERIES, "") for member in members if is_dicom(member)}
    if len(series) > 1:
        raise SlideRefused(
            RefusalCode.UNSUPPORTED_FORMAT,
            f"The folder holds {len(series)} DICOM series, that is {len(series)} slides. Send each in its own folder.",
        )


def _elements(path: Path) -> dict[int, str]:
    """Texts of the first top-level elements; what cannot be followed ends the list."""
    with path.open("rb") as file:
        data = file.read(_WANTED_HEAD)
    found: dict[int, str] = {}
    position, depth = 132, 0  # depth: in how many sequences of unknown length; their elements are passed over
    while position + 8 <= len(data):
        group, element = struct.unpack_from("<HH", data, position)
        if group == _ITEM_GROUP:
            depth -= element == _SEQUENCE_END
            position += 8
            continue
        representation = data[position + 4 : position + 6]
        if representation in _LONG:
            if position + 12 > len(data):
                break
            length, start = struct.unpack_from("<I", data, position + 8)[0], position + 12
        else:
            length, start = struct.unpack_from("<H", data, position + 6)[0], position + 8
        if length == _UNKNOWN and representation == b"SQ":
            depth += 1
            position = start
            continue
        if length == _UNKNOWN or (group > 0x0028 and not depth):
            break
        if not depth and length <= _LARGEST_VALUE and representation.isalpha():
            found[group << 16 | element] = data[start : start + length].decode("ascii", "replace").strip(" \0")
        position = start + length
    return found
