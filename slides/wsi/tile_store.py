"""Ready JPEG tiles on disk: a tile is one array look-up and one pread. Needs numpy and the standard library alone.

A store is a folder: `index.json` (levels, files, headers), `tiles.npy` (one record a tile, memory-mapped), `headers.bin`
(what stands before the stored bytes of each tile, and placeholder tiles), and the pyramids made for it. Level 0 is
full resolution. Files are named relative to the folder where that is possible, so folder and slide move together.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slides.wsi.errors import SourceChanged, TileStoreDamaged
from slides.wsi.geometry import Level

VERSION = 1
INDEX_NAME, TILES_NAME, HEADERS_NAME = "index.json", "tiles.npy", "headers.bin"
OK, MISSING, CORRUPT, HATCHED = 0, 1, 2, 3
"""Flags of a tile. HATCHED: a picture of ours, in which a part that could not be read is drawn hatched."""
COLOUR_NAME, COLOUR_CELLS = "colour.lut", 32  # what the slide's ICC profile does (slides/wsi/colour.py)
COLOUR_BYTES = COLOUR_CELLS**3 * 3
PASS_THROUGH, CONVERTED = "pass_through", "converted"

TILE_RECORD = np.dtype([("offset", "<u8"), ("length", "<u4"), ("file", "u1"), ("flag", "u1"), ("header", "<u2")])
Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class TileBytes:
    """A complete JPEG. `missing`: the slide has no readable data here, and the picture says so."""

    data: bytes
    etag: str
    missing: bool


@dataclass(frozen=True)
class TileIndex:
    """Where each tile lies. `first_tile[i]` is the record of tile (0, 0) of level i; rows follow each other."""

    levels: tuple[Level, ...]
    first_tile: tuple[int, ...]
    records: Records
    headers: tuple[bytes, ...]

    def record_number(self, level: int, col: int, row: int) -> int:
        """Raises KeyError outside the level."""
        if not 0 <= level < len(self.levels):
            raise KeyError((level, col, row))
        grid = self.levels[level]
        if not (0 <= col < grid.cols and 0 <= row < grid.rows):
            raise KeyError((level, col, row))
        return self.first_tile[level] + row * grid.cols + col

    def of_level(self, level: int) -> Records:
        first = self.first_tile[level]
        return self.records[first : first + self.levels[level].cols * self.levels[level].rows]


class TileStore:
    """An opened store: thread-safe, holds one descriptor per file. Use as a context manager or call `close`."""

    def __init__(self, folder: Path, document: Mapping[str, Any], index: TileIndex, blob: bytes) -> None:
        self.folder = folder
        self.document = document
        self.index = index
        self._blob = blob
        self._placeholders = {
            tuple(int(side) for side in size.split("x")): blob[start : start + length]
            for size, (start, length) in document["placeholders"].items()
        }
        if lacking := {(level.tile_width, level.tile_height) for level in index.levels} - self._placeholders.keys():
            raise KeyError(f"no tile to stand for a missing one of {lacking}")
        # What a look-up needs, without the cost of properties and of numpy's memmap class: half of a tile's own time.
        self._grids = [
            (level.cols, level.rows, first) for level, first in zip(index.levels, index.first_tile, strict=True)
        ]
        self._records = np.asarray(index.records)
        self._etag_start = f'"{document["store_id"]}-'
        self._descriptors = _open_files(folder, document["files"])

    @classmethod
    def load(cls, folder: Path) -> "TileStore":
        """Raises TileStoreDamaged, or SourceChanged when the slide is not the file that was indexed."""
        document, index, blob = load_index(folder)
        try:
            return cls(folder, document, index, blob)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TileStoreDamaged(f"The tiles in {folder.name} cannot be used ({error}).") from error

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.index.levels

    def tile(self, level: int, col: int, row: int) -> TileBytes:
        """One ready JPEG. Raises KeyError outside the level, OSError when the file cannot be read (or ends too early)."""
        if not 0 <= level < len(self._grids):
            raise KeyError((level, col, row))
        cols, rows, first = self._grids[level]
        if not (0 <= col < cols and 0 <= row < rows):
            raise KeyError((level, col, row))
        number = first + row * cols + col
        offset, length, file, flag, header = self._records[number].item()
        if flag in (OK, HATCHED):
            data = os.pread(self._descriptors[file], length, offset)
            if len(data) != length:
                # cut after the preparation: an error, which must not be kept as if it were the tile
                raise OSError(f"tile {level}/{col}_{row} lies beyond the end of its file")
            tag = f'{number}"' if flag == OK else f'{number}-{flag}"'
            return TileBytes(self.index.headers[header] + data, self._etag_start + tag, False)
        grid = self.index.levels[level]
        # Another tag than that of the tile itself: a flag may be set by a check that ends after the first viewers came.
        etag = f'{self._etag_start}{number}-{flag}"'
        return TileBytes(self._placeholders[grid.tile_width, grid.tile_height], etag, True)

    def descriptor(self) -> dict[str, Any]:
        """What a viewer must know to ask for tiles. `mpp_x`, `mpp_y` are null where there is no scale."""
        names = ("width", "height", "mpp_x", "mpp_y", "missing_tiles", "background")
        levels = [
            {"level": level.index, **{k: v for k, v in asdict(level).items() if k != "index"}}
            | {"cols": level.cols, "rows": level.rows}
            for level in self.levels
        ]
        return {name: self.document[name] for name in names} | {"levels": levels, "colour": self.document.get("colour")}

    def colour_table(self) -> bytes:
        """Raises KeyError where the slide has no colour profile, OSError when it cannot be read."""
        if self.document.get("colour") is None:
            raise KeyError(COLOUR_NAME)
        return (self.folder / COLOUR_NAME).read_bytes()

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def __enter__(self) -> "TileStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_index(folder: Path) -> tuple[dict[str, Any], TileIndex, bytes]:
    """index.json, the tile table and headers.bin of a store, without its files. Raises TileStoreDamaged."""
    try:
        document = json.loads((folder / INDEX_NAME).read_text("utf-8"))
        records = np.load(folder / TILES_NAME, mmap_mode="r", allow_pickle=False)
        blob = (folder / HEADERS_NAME).read_bytes()
        return document, _index_from(document, records, blob), blob
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TileStoreDamaged(f"The tiles in {folder.name} cannot be used ({error}).") from error


def _index_from(document: Mapping[str, Any], records: Records, blob: bytes) -> TileIndex:
    if document["version"] != VERSION:
        raise ValueError(f"store version {document['version']} is not {VERSION}")
    if records.dtype != TILE_RECORD or records.ndim != 1:
        raise ValueError("tiles.npy is not a tile table")
    names = ("index", "width", "height", "downsample", "tile_width", "tile_height")
    levels = tuple(Level(**{name: level[name] for name in names}) for level in document["levels"])
    first_tile = tuple(int(level["first_tile"]) for level in document["levels"])
    for level, first in zip(levels, first_tile, strict=True):
        if first < 0 or first + level.cols * level.rows > records.size:
            raise ValueError(f"level {level.index} lies outside the tile table")
    headers = tuple(blob[start : start + length] for start, length in document["headers"])
    return TileIndex(levels, first_tile, records, headers)


def _open_files(folder: Path, files: Sequence[Mapping[str, Any]]) -> list[int]:
    descriptors: list[int] = []
    for entry in files:
        path = folder / entry["path"]
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            _close_all(descriptors)
            raise SourceChanged(f"The slide file {path.name} is not there any more.") from error
        descriptors.append(descriptor)
        status = os.fstat(descriptor)
        if (status.st_size, status.st_mtime_ns) != (entry["size"], entry["mtime_ns"]):
            _close_all(descriptors)
            raise SourceChanged(f"The slide file {path.name} has changed since it was prepared.")
    return descriptors


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def check_bounds(index: TileIndex, file_sizes: Sequence[int]) -> None:
    """Raises TileStoreDamaged when a tile lies outside of its file or names a header that is not there."""
    records = index.records[np.isin(index.records["flag"], (OK, HATCHED))]
    if records.size == 0:
        return
    if int(records["file"].max()) >= len(file_sizes) or int(records["header"].max()) >= len(index.headers):
        raise TileStoreDamaged("A tile names a file or header that is not there.")
    limits = np.asarray(file_sizes, np.uint64)[records["file"]]
    ends = records["offset"] + records["length"]
    if (ends > limits).any() or (ends < records["offset"]).any():
        raise TileStoreDamaged("A tile lies outside of its file.")


def file_entry(path: Path, *, named: str) -> dict[str, Any]:
    """The guard of a file under a store: its name as written into the index, size and time of change."""
    status = path.stat()
    return {"path": named, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def write_store(
    folder: Path,
    *,
    index: TileIndex,
    placeholders: Mapping[tuple[int, int], bytes],
    files: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a store into `folder`; index.json last, so that a store without it is an unfinished one.

    `facts`: kind, width, height, mpp_x, mpp_y, background, colour. `missing_tiles` and `corrupt_tiles` count those of full
    resolution. Returns what was written as index.json.
    """
    blob, headers, places = _blob_of(index.headers, placeholders)
    records, full = np.ascontiguousarray(index.records), index.of_level(0)
    np.save(folder / TILES_NAME, records, allow_pickle=False)
    (folder / HEADERS_NAME).write_bytes(blob)
    document = {
        "version": VERSION,
        "store_id": store_id(records, blob),
        **facts,
        "files": list(files),
        "levels": [
            asdict(level) | {"cols": level.cols, "rows": level.rows, "first_tile": first}
            for level, first in zip(index.levels, index.first_tile, strict=True)
        ],
        "headers": headers,
        "placeholders": places,
        "missing_tiles": int((full["flag"] != OK).sum()),
        "corrupt_tiles": int(np.isin(full["flag"], (CORRUPT, HATCHED)).sum()),
    }
    write_index(folder, document)
    return document


def store_id(records: Records, blob: bytes) -> str:
    """Names the tiles of a store in their ETags: the same records and headers, the same name."""
    return hashlib.sha256(records.tobytes() + blob).hexdigest()[:20]


def write_index(folder: Path, document: Mapping[str, Any]) -> None:
    """Replace index.json in one step."""
    draft = folder / (INDEX_NAME + ".new")
    draft.write_text(json.dumps(document), "utf-8")
    draft.replace(folder / INDEX_NAME)


def _blob_of(
    headers: Sequence[bytes], placeholders: Mapping[tuple[int, int], bytes]
) -> tuple[bytes, list[list[int]], dict[str, list[int]]]:
    blob = bytearray()
    places = []
    for piece in [*headers, *placeholders.values()]:
        places.append([len(blob), len(piece)])
        blob += piece
    named = {f"{w}x{h}": place for (w, h), place in zip(placeholders, places[len(headers) :], strict=True)}
    return bytes(blob), places[: len(headers)], named
