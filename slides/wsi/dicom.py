"""Just enough of DICOM to say why a file is not a whole slide: explicit VR little endian headers, no pixels.

Only top-level elements are looked at, and whether the pixel data are all there. DICOM PS3.5 section 7 and A.4; PS3.3 C.8.12.4.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from slides.wsi.errors import RefusalCode, SlideRefused

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}
_WHOLE_SLIDE_STORAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_SOP_CLASS, _IMAGE_TYPE, _SERIES = 0x00080016, 0x00080008, 0x0020000E
_FRAMES, _PIXEL_DATA, _SYNTAX = 0x00280008, 0x7FE00010, 0x00020010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_EXPLICIT_LITTLE = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.")
_DEEPEST = 16
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
    if elements.get(_SYNTAX, "").startswith(_EXPLICIT_LITTLE):
        _check_whole(path, frames=elements.get(_FRAMES, ""))
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


def _check_member(path: Path, *, frames: str) -> None:
    try:
        _check_whole(path, frames=frames)
    except SlideRefused as refused:
        raise SlideRefused(refused.code, f"{path.name}: {refused.message}") from refused


def _check_whole(path: Path, *, frames: str) -> None:
    """Raises SlideRefused (truncated, incomplete) when the file ends before its pixel data do."""
    with path.open("rb") as file:
        walk = _Walk(file.fileno(), path.stat().st_size)
        fragments = walk.fragments()
    if fragments is not None and frames.isdecimal() and 0 < fragments < int(frames):
        raise SlideRefused(
            RefusalCode.INCOMPLETE,
            f"The DICOM file holds {fragments:,} of the {int(frames):,} frames it names. Export it from the scanner again.",
        )


class _Walk:
    """From element to element by their lengths; a file that ends within one is truncated."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size

    def fragments(self) -> int | None:
        """How many fragments the encapsulated pixel data have, without the offset table; None where they are native."""
        place = 132
        while place < self._size:
            tag, length, start = self._element(place)
            if tag == _PIXEL_DATA and length == _UNDEFINED:
                return self._items(start) - 1
            if tag == _PIXEL_DATA:
                self._must_hold(start + length)
                return None
            place = self._end(length, start, depth=0)
        raise _truncated(self._size, self._size + 1)  # what a slide is for has not come yet

    def _items(self, place: int) -> int:
        count = 0
        while True:
            tag, length = self._item(place)
            if tag == _SEQUENCE_END:
                return count
            if tag != _ITEM or length == _UNDEFINED:
                raise _damaged()
            count += 1
            place += 8 + length

    def _end(self, length: int, start: int, *, depth: int) -> int:
        if length != _UNDEFINED:
            return start + length
        if depth > _DEEPEST:
            raise _damaged()
        place = start  # a sequence of undefined length
        while True:
            tag, length = self._item(place)
            place += 8
            if tag == _SEQUENCE_END:
                return place
            if tag != _ITEM:
                raise _damaged()
            if length != _UNDEFINED:
                place += length
                continue
            while self._item(place)[0] != _ITEM_END:
                _, inner, inner_start = self._element(place)
                place = self._end(inner, inner_start, depth=depth + 1)
            place += 8

    def _element(self, place: int) -> tuple[int, int, int]:
        """(tag, length of the value, where it starts)."""
        head = self._read(place, 8)
        group, element = struct.unpack_from("<HH", head)
        if head[4:6] in _LONG:
            return group << 16 | element, struct.unpack("<I", self._read(place + 8, 4))[0], place + 12
        if not head[4:6].isalpha():
            raise _damaged()
        return group << 16 | element, struct.unpack_from("<H", head, 6)[0], place + 8

    def _item(self, place: int) -> tuple[int, int]:
        group, element, length = struct.unpack("<HHI", self._read(place, 8))
        return group << 16 | element, length

    def _read(self, place: int, length: int) -> bytes:
        self._must_hold(place + length)
        return os.pread(self._descriptor, length, place)

    def _must_hold(self, end: int) -> None:
        if end > self._size:
            raise _truncated(self._size, end)


def _truncated(size: int, needed: int) -> SlideRefused:
    return SlideRefused(
        RefusalCode.TRUNCATED,
        f"The file is truncated at byte {size:,} of at least {needed:,}: the copy or upload did not finish. "
        "Copy it from the scanner again.",
    )


def _damaged() -> SlideRefused:
    return SlideRefused(
        RefusalCode.DAMAGED_STRUCTURE,
        "The structure of the DICOM file is damaged: its elements do not follow each other. Export it from the scanner again.",
    )


def check_series(members: Iterable[Path]) -> None:
    """Raises SlideRefused when a file is cut, or the folder holds more than one series: each would be a slide of its own."""
    series = set()
    for member in members:
        if is_dicom(member):
            elements = _elements(member)
            series.add(elements.get(_SERIES, ""))
            if elements.get(_SYNTAX, "").startswith(_EXPLICIT_LITTLE):
                _check_member(member, frames=elements.get(_FRAMES, ""))
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
        if group == _ITEM >> 16:
            depth -= group << 16 | element == _SEQUENCE_END
            position += 8
            continue
        representation = data[position + 4 : position + 6]
        if representation in _LONG:
            if position + 12 > len(data):
                break
            length, start = struct.unpack_from("<I", data, position + 8)[0], position + 12
        else:
            length, start = struct.unpack_from("<H", data, position + 6)[0], position + 8
        if length == _UNDEFINED and representation == b"SQ":
            depth += 1
            position = start
            continue
        if length == _UNDEFINED or (group > 0x0028 and not depth):
            break
        if not depth and length <= _LARGEST_VALUE and representation.isalpha():
            found[group << 16 | element] = data[start : start + length].decode("ascii", "replace").strip(" \0")
        position = start + length
    return found
