"""A pyramidal JPEG BigTIFF, written in one pass: tiles of all levels as they come, the directories at the end.

Tiles come as whole JPEGs of one encoder setting, so their tables are alike: they are kept once per level (JPEGTables), as TIFF
Technical Note 2 has it, and left out of the tiles.
"""

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from slides.wsi import tiff_walk
from slides.wsi.jpeg_stream import split_tables

_SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 3, 4, 5, 7, 16
_SUBSAMPLING = 530
_REDUCED = 1


@dataclass
class WrittenLevel:
    """Sizes of one level, and the place of each tile so far, row by row."""

    width: int
    height: int
    tables: bytes = b""
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


class PyramidFile:
    """Use as a context manager: the file is complete only when the block ends without an error."""

    def __init__(self, path: Path, *, tile_side: int, icc: bytes = b"", mpp: tuple[float, float] | None = None) -> None:
        self._file = path.open("wb")
        self._tile_side = tile_side
        self._icc = icc
        self._mpp = mpp
        self.levels: list[WrittenLevel] = []
        self._file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))

    def add_level(self, width: int, height: int) -> WrittenLevel:
        level = WrittenLevel(width, height)
        self.levels.append(level)
        return level

    def add_tile(self, level: WrittenLevel, jpeg: bytes) -> None:
        """Tiles of a level must come row by row; levels may be mixed."""
        tables, tile = split_tables(jpeg)
        if level.tables and tables != level.tables:
            raise ValueError("the tiles of a level must share their JPEG tables")
        level.tables = tables
        level.offsets.append(self._file.tell())
        level.lengths.append(len(tile))
        self._file.write(tile)

    def _finish(self) -> None:
        link = 8
        for number, level in enumerate(self.levels):
            offset = self._write_directory(level, reduced=number > 0)
            self._patch(link, offset)
            link = self._file.tell() - 8
        self._file.flush()
        os.fsync(self._file.fileno())

    def _patch(self, place: int, offset: int) -> None:
        self._file.seek(place)
        self._file.write(struct.pack("<Q", offset))
        self._file.seek(0, os.SEEK_END)

    def _write_directory(self, level: WrittenLevel, *, reduced: bool) -> int:
        """Values that do not fit first, then the directory; returns its offset."""
        tags = self._tags(level, reduced=reduced)
        entries = []
        for tag, (kind, count, data) in sorted(tags.items()):
            if len(data) > 8:
                place = self._file.tell()
                self._file.write(data)
                data = struct.pack("<Q", place)
            entries.append(struct.pack("<HHQ8s", tag, kind, count, data))
        offset = self._file.tell()
        self._file.write(struct.pack("<Q", len(entries)) + b"".join(entries) + struct.pack("<Q", 0))
        return offset

    def _tags(self, level: WrittenLevel, *, reduced: bool) -> dict[int, tuple[int, int, bytes]]:
        side, count = self._tile_side, len(level.offsets)
        tags = {
            tiff_walk.SUBFILE_TYPE: _number(_LONG, _REDUCED if reduced else 0),
            tiff_walk.WIDTH: _number(_LONG, level.width),
            tiff_walk.HEIGHT: _number(_LONG, level.height),
            tiff_walk.BITS: (_SHORT, 3, struct.pack("<HHH", 8, 8, 8)),
            tiff_walk.COMPRESSION: _number(_SHORT, tiff_walk.COMPRESSION_JPEG),
            tiff_walk.PHOTOMETRIC: _number(_SHORT, tiff_walk.YCBCR),
            tiff_walk.SAMPLES: _number(_SHORT, 3),
            tiff_walk.PLANAR: _number(_SHORT, 1),
            tiff_walk.TILE_WIDTH: _number(_LONG, side),
            tiff_walk.TILE_HEIGHT: _number(_LONG, side),
            tiff_walk.TILE_OFFSETS: (_LONG8, count, struct.pack(f"<{count}Q", *level.offsets)),
            tiff_walk.TILE_BYTES: (_LONG, count, struct.pack(f"<{count}I", *level.lengths)),
            tiff_walk.JPEG_TABLES: (_UNDEFINED, len(level.tables), level.tables),
            _SUBSAMPLING: (_SHORT, 2, struct.pack("<HH", 2, 2)),
        }
        if self._icc:
            tags[tiff_walk.ICC_PROFILE] = (_UNDEFINED, len(self._icc), self._icc)
        if self._mpp and not reduced:
            tags[tiff_walk.X_RESOLUTION], tags[tiff_walk.Y_RESOLUTION] = (
                (_RATIONAL, 1, struct.pack("<II", round(10_000_000 / mpp), 1000)) for mpp in self._mpp
            )
            tags[tiff_walk.RESOLUTION_UNIT] = _number(_SHORT, 3)
        return tags

    def __enter__(self) -> "PyramidFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None:
                self._finish()


def _number(kind: int, value: int) -> tuple[int, int, bytes]:
    return kind, 1, struct.pack("<H" if kind == _SHORT else "<I", value)
