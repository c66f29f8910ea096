"""A bounded walk through the structure of a TIFF or BigTIFF file, before any native decoder sees it.

Reads numbers only, never pixels. Every offset, count and size is held against the file and against fixed limits, and
no directory is visited twice, so that loops, floods and cut files end here with a reason. TIFF 6.0; BigTIFF.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slides.wsi.errors import RefusalCode, SlideRefused

LARGEST_DIRECTORY_COUNT = 512
LARGEST_TAG_COUNT = 4096
LARGEST_TAG_BYTES = 256 << 20
LARGEST_PIXEL_COUNT = 1 << 37
LARGEST_TILE_COUNT = 10_000_000
LARGEST_TILE_BYTES = 64 << 20
LARGEST_EXPANSION = 5000
"""Decoded bytes for each byte of the file. Glass alone reaches some 500 in JPEG and 3,000 in ZSTD."""
EXPANSION_LOOKED_AT_ABOVE = 4 << 30
"""Decoded bytes that are worked through in seconds, however small the file is."""

_TYPES: dict[int, str] = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4",
    11: "f4", 12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip
_PAIRS = {5, 10}  # rationals: two numbers a value
_WHOLE_NUMBERS = {1, 3, 4, 6, 8, 9, 13, 16, 17, 18}

SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
DESCRIPTION, MAKE, MODEL, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP = 270, 271, 272, 273, 274, 277, 278
STRIP_BYTES, X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, SOFTWARE = 279, 282, 283, 284, 296, 305
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SUB_IFDS, SAMPLE_FORMAT = 322, 323, 324, 325, 330, 339
JPEG_TABLES, ICC_PROFILE, NDPI_MARK = 347, 34675, 65420

# what places pixels: each must stand once, as whole numbers, so that no two readers understand it differently
_STRUCTURAL = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES,
    PLANAR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SUB_IFDS, SAMPLE_FORMAT,
}  # fmt: skip

UNCOMPRESSED, COMPRESSION_JPEG = 1, 7
RGB, YCBCR = 2, 6


@dataclass(frozen=True, slots=True)
class _Entry:
    type: int
    count: int
    data: bytes


@dataclass(frozen=True)
class TiffDirectory:
    """One image of the file. `parent` is the index of the directory whose SubIFD it is, or None."""

    index: int
    offset: int
    parent: int | None
    byte_order: str
    entries: dict[int, _Entry] = field(repr=False)

    def numbers(self, tag: int) -> npt.NDArray[Any]:
        """All values of a numeric tag (rationals as n, d, n, d ...); empty where the tag is missing."""
        entry = self.entries.get(tag)
        if entry is None:
            return np.zeros(0, np.int64)
        return np.frombuffer(entry.data, self.byte_order + _TYPES[entry.type])

    def number(self, tag: int, default: int = 0) -> int:
        values = self.numbers(tag)
        return int(values[0]) if values.size else default

    def rational(self, tag: int) -> float | None:
        """A positive rational or number, else None."""
        values = self.numbers(tag)
        entry = self.entries.get(tag)
        if entry is None or values.size == 0:
            return None
        if entry.type not in _PAIRS:
            return float(values[0])
        return float(values[0]) / float(values[1]) if values.size > 1 and values[1] else None

    def text(self, tag: int) -> str:
        entry = self.entries.get(tag)
        if entry is None:
            return ""
        return entry.data.split(b"\0\0\0" if entry.data[:2] == b"\xff\xfe" else b"\0")[0].decode("utf-8", "replace")

    def raw(self, tag: int) -> bytes:
        entry = self.entries.get(tag)
        return entry.data if entry else b""

    @property
    def width(self) -> int:
        return self.number(WIDTH)

    @property
    def height(self) -> int:
        return self.number(HEIGHT)

    @property
    def tiled(self) -> bool:
        return TILE_OFFSETS in self.entries

    @property
    def tile_width(self) -> int:
        return self.number(TILE_WIDTH) if self.tiled else self.width

    @property
    def tile_height(self) -> int:
        if self.tiled:
            return self.number(TILE_HEIGHT)
        return max(1, min(self.height, self.number(ROWS_PER_STRIP, self.height)))

    @property
    def samples(self) -> int:
        return self.number(SAMPLES, 1)

    @property
    def bits(self) -> int:
        values = self.numbers(BITS)
        return int(values.max()) if values.size else 1

    @property
    def compression(self) -> int:
        return self.number(COMPRESSION, 1)

    @property
    def photometric(self) -> int:
        return self.number(PHOTOMETRIC, 1)

    @property
    def planar(self) -> int:
        return self.number(PLANAR, 1)

    @property
    def orientation(self) -> int:
        value = self.number(ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1

    @property
    def description(self) -> str:
        return self.text(DESCRIPTION)

    def segments(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Offsets and byte counts of the tiles or strips, row by row."""
        offsets, counts = (TILE_OFFSETS, TILE_BYTES) if self.tiled else (STRIP_OFFSETS, STRIP_BYTES)
        return self.numbers(offsets).astype(np.uint64), self.numbers(counts).astype(np.uint64)


@dataclass(frozen=True)
class TiffLayout:
    """Main directories in file order, each followed by its SubIFDs."""

    big: bool
    size_bytes: int
    directories: tuple[TiffDirectory, ...]
    ndpi: bool = False

    @property
    def main(self) -> tuple[TiffDirectory, ...]:
        return tuple(directory for directory in self.directories if directory.parent is None)

    @property
    def image(self) -> TiffDirectory:
        """The full picture: the largest, of two alike the first. Some files begin with a label or a reduced image."""
        return max(self.main, key=lambda directory: directory.width * directory.height)

    def children(self, directory: TiffDirectory) -> tuple[TiffDirectory, ...]:
        return tuple(child for child in self.directories if child.parent == directory.index)


def is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def walk(path: Path) -> TiffLayout:
    """The layout of a TIFF file. Raises SlideRefused (truncated, damaged_structure, too_large) with the reason."""
    with path.open("rb") as file:
        return _Walk(file.fileno(), os.fstat(file.fileno()).st_size).run()


class _Walk:
    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.visited: set[int] = set()
        self.directories: list[TiffDirectory] = []
        self.ndpi = False

    def run(self) -> TiffLayout:
        head = self.read(0, 8)
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = head[2:4] in (b"+\0", b"\0+")
        first = self.unpack("Q", 8)[0] if self.big else self.unpack("I", 4)[0]
        if self.big and struct.unpack(self.order + "HH", head[4:8]) != (8, 0):
            raise _damaged("its BigTIFF header is wrong")
        self.follow(first, parent=None)
        if not self.directories:
            raise _damaged("it holds no image")
        return TiffLayout(self.big, self.size, tuple(self.directories), self.ndpi)

    def follow(self, offset: int, *, parent: int | None) -> None:
        while offset:
            offset = self.directory(offset, parent=parent)
            if self.ndpi:  # NDPI over 4 GiB bends the offsets of everything that follows: OpenSlide knows them
                return

    def directory(self, offset: int, *, parent: int | None) -> int:
        """Read one directory and its SubIFDs; the offset of the next one."""
        if offset in self.visited:
            raise _damaged(f"its image directories run in a circle (at byte {offset:,})")
        if len(self.visited) >= LARGEST_DIRECTORY_COUNT:
            raise _damaged(f"it claims more than {LARGEST_DIRECTORY_COUNT} images")
        self.visited.add(offset)
        count_format, count_size, entry_size, next_format = ("Q", 8, 20, "Q") if self.big else ("H", 2, 12, "I")
        count = self.unpack(count_format, offset)[0]
        if count > LARGEST_TAG_COUNT:
            raise _damaged(f"an image directory claims {count:,} entries")
        table = self.read(offset + count_size, count * entry_size)
        entries: dict[int, _Entry] = {}
        for tag, entry in self.entries(table, entry_size):
            if tag in entries and tag in _STRUCTURAL:
                raise _damaged(f"an image says twice what entry {tag} is")
            entries.setdefault(tag, entry)
        self.ndpi = self.ndpi or NDPI_MARK in entries
        directory = TiffDirectory(len(self.directories), offset, parent, self.order, entries)
        self.directories.append(directory)
        self.check(directory)
        if parent is None:
            self.children(directory)
        return int(self.unpack(next_format, offset + count_size + count * entry_size)[0])

    def children(self, directory: TiffDirectory) -> None:
        """SubIFDs are a list or a chain; some writers chain what they also list, so a list is not followed further."""
        listed = directory.numbers(SUB_IFDS)
        if listed.size == 1:
            self.follow(int(listed[0]), parent=directory.index)
        else:
            for child in listed:
                self.directory(int(child), parent=directory.index)

    def entries(self, table: bytes, entry_size: int) -> Iterator[tuple[int, _Entry]]:
        inline_size = 8 if self.big else 4
        for start in range(0, len(table), entry_size):
            tag, type_, count = struct.unpack_from(self.order + ("HHQ" if self.big else "HHI"), table, start)
            if type_ not in _TYPES:
                continue
            length = count * int(_TYPES[type_][1]) * (2 if type_ in _PAIRS else 1)
            if tag in _STRUCTURAL and type_ not in _WHOLE_NUMBERS:
                raise _damaged(f"entry {tag} is not a whole number")
            if length > LARGEST_TAG_BYTES:
                raise _damaged(f"entry {tag} claims {length:,} bytes")
            value = table[start + entry_size - inline_size : start + entry_size]
            if length > inline_size:
                place = struct.unpack(self.order + ("Q" if self.big else "I"), value)[0]
                if self.ndpi_tail(tag, place, length):
                    continue
                data = self.read(place, length)
            else:
                data = value[:length]
            yield tag, _Entry(type_, count, data)

    def ndpi_tail(self, tag: int, place: int, length: int) -> bool:
        """Private tags (65400 on) of NDPI may point anywhere; they are not needed."""
        return tag >= 65400 and place + length > self.size

    def check(self, directory: TiffDirectory) -> None:
        width, height = directory.width, directory.height
        if width <= 0 or height <= 0:
            raise _damaged("an image has no size")
        if width * height > LARGEST_PIXEL_COUNT:
            raise SlideRefused(
                RefusalCode.TOO_LARGE,
                f"The file claims an image of {width:,} x {height:,} pixels, more than any scanner makes. "
                "It is damaged or not a slide.",
            )
        if directory.planar not in (1, 2):
            raise _damaged("its colours are laid out in a way that does not exist")
        self.check_expansion(directory, self.size)
        if directory.tiled:
            self.check_tiles(directory)
        if not self.ndpi:
            self.check_segments(directory)

    def check_expansion(self, directory: TiffDirectory, stored: int) -> None:
        decoded = directory.width * directory.height * directory.samples * max(1, directory.bits // 8)
        if decoded > max(EXPANSION_LOOKED_AT_ABOVE, stored * LARGEST_EXPANSION):
            raise SlideRefused(
                RefusalCode.TOO_LARGE,
                f"The file claims an image of {directory.width:,} x {directory.height:,} pixels in {stored:,} bytes, more "
                "than they can hold. It is damaged or not a slide.",
            )

    def check_tiles(self, directory: TiffDirectory) -> None:
        tile_width, tile_height = directory.tile_width, directory.tile_height
        bytes_per_pixel = directory.samples * max(1, directory.bits // 8)
        if tile_width <= 0 or tile_height <= 0:
            raise _damaged("an image has tiles without size")
        if tile_width * tile_height * bytes_per_pixel > LARGEST_TILE_BYTES:
            raise SlideRefused(
                RefusalCode.TOO_LARGE, f"The file claims tiles of {tile_width:,} x {tile_height:,} pixels."
            )
        expected = -(-directory.width // tile_width) * -(-directory.height // tile_height)
        if directory.planar == 2:
            expected *= directory.samples
        if expected > LARGEST_TILE_COUNT:
            raise SlideRefused(RefusalCode.TOO_LARGE, f"The file claims {expected:,} tiles in one image.")
        offsets, counts = directory.segments()
        if offsets.size < expected or counts.size < expected:
            raise _damaged(f"an image of {expected:,} tiles lists only {min(offsets.size, counts.size):,}")
        if offsets.size > expected:
            raise _damaged(f"an image of {expected:,} tiles lists {offsets.size:,}")

    def check_segments(self, directory: TiffDirectory) -> None:
        offsets, counts = directory.segments()
        if offsets.size != counts.size:
            raise _damaged("an image lists a different number of places and lengths for its data")
        if offsets.size == 0:
            raise _damaged("an image has no data")
        if not directory.tiled:
            self.check_strips(directory, offsets.size)
        present = counts > 0
        alone = np.unique(offsets[present], return_index=True)[1]  # tiles may share their bytes
        self.check_expansion(directory, int(counts[present][alone].sum()))
        if directory.compression == UNCOMPRESSED and self.all_too_short(directory, counts[present]):
            raise _damaged("the data of an image are shorter than its size")
        ends = offsets[present] + counts[present]
        if ends.size and (ends < offsets[present]).any():
            raise _damaged("an image lists impossible places for its data")
        if ends.size and int(ends.max()) > self.size:
            raise _truncated(self.size, int(ends.max()))

    def all_too_short(self, directory: TiffDirectory, counts: npt.NDArray[np.uint64]) -> bool:
        samples = directory.samples if directory.planar == 1 else 1
        needed = directory.tile_width * directory.tile_height * samples * directory.bits // 8
        return counts.size > 0 and int(counts.max()) < needed

    def check_strips(self, directory: TiffDirectory, listed: int) -> None:
        if directory.number(ROWS_PER_STRIP, directory.height) <= 0:
            raise _damaged("an image has strips without rows")
        expected = -(-directory.height // directory.tile_height)
        if directory.planar == 2:
            expected *= directory.samples
        if listed != expected:
            raise _damaged(f"an image of {expected:,} strips lists {listed:,}")

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self.size:
            raise _truncated(self.size, offset + length)
        data = os.pread(self.descriptor, length, offset) if length else b""
        if len(data) != length:
            raise _truncated(offset + len(data), offset + length)
        return data

    def unpack(self, format_: str, offset: int) -> tuple[int, ...]:
        return struct.unpack(self.order + format_, self.read(offset, struct.calcsize(self.order + format_)))


def _truncated(size: int, needed: int) -> SlideRefused:
    return SlideRefused(
        RefusalCode.TRUNCATED,
        f"The file is truncated at byte {size:,} of at least {needed:,}: the copy or upload did not finish. "
        "Copy it from the scanner again.",
    )


def _damaged(what: str) -> SlideRefused:
    return SlideRefused(
        RefusalCode.DAMAGED_STRUCTURE,
        f"The TIFF structure of the file is damaged: {what}. Copy or export it from the scanner again.",
    )
