"""Index the JPEG tiles of a TIFF file where they lie, if they can be served as they are."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import simplejpeg

from slides.wsi import tiff_walk, tile_store
from slides.wsi.geometry import Level
from slides.wsi.jpeg_stream import SOI, NotJpeg, parse_frame, splice_header
from slides.wsi.pixels import Rgb
from slides.wsi.tiff_pyramid import TiffLevel
from slides.wsi.tile_store import TILE_RECORD, Records, TileIndex

HEAD_BYTES = 2048
"""Enough for the headers of an abbreviated tile; tiles that carry long comments are read whole."""


@dataclass(frozen=True, slots=True)
class PassThrough:
    """Whether tiles can be served as they are; `reason` says why not."""

    possible: bool
    reason: str


def judge_pass_through(descriptor: int, levels: Sequence[TiffLevel]) -> PassThrough:
    """Look at the layout and one tile of each level: 8-bit baseline JPEG tiles of the declared size, or not."""
    for level in levels:
        reason = _why_not(level) or _why_not_first_tile(descriptor, level)
        if reason:
            return PassThrough(False, reason)
    return PassThrough(True, "its tiles are baseline JPEG and are served as they are")


def _why_not(tiff_level: TiffLevel) -> str:
    directory = tiff_level.directory
    if not directory.tiled:
        return "the image is stored in strips, not in tiles"
    if directory.compression != tiff_walk.COMPRESSION_JPEG:
        return f"its tiles are {compression_name(directory.compression)}, which browsers do not show"
    if directory.planar != 1 or directory.samples not in (1, 3) or directory.bits != 8:
        return "its colours are stored in a way browsers do not show"
    if directory.orientation != 1:
        return "the picture is stored turned (Orientation tag) and must be turned upright"
    if max(directory.tile_width, directory.tile_height) > 2048:
        return "its tiles are too large to be shown quickly"
    return ""


def _why_not_first_tile(descriptor: int, tiff_level: TiffLevel) -> str:
    offsets, counts = tiff_level.directory.segments()
    present = np.flatnonzero(counts)
    for number in present[np.linspace(0, present.size - 1, min(8, present.size)).astype(int)]:
        try:
            frame = parse_frame(os.pread(descriptor, int(counts[number]), int(offsets[number])))
        except NotJpeg:
            continue
        if not frame.baseline:
            return "its tiles are JPEG, but not baseline JPEG"
        if (frame.width, frame.height) != (tiff_level.level.tile_width, tiff_level.level.tile_height):
            return "its JPEG tiles are not of the size the file declares"
        return ""
    return "" if present.size == 0 else "its tiles are not readable JPEG"


def compression_name(compression: int) -> str:
    names = {1: "uncompressed", 5: "LZW", 8: "deflate", 32946: "deflate", 33003: "JPEG 2000", 33005: "JPEG 2000",
             34712: "JPEG 2000", 50000: "ZSTD", 50001: "WebP", 7: "JPEG", 22610: "JPEG XR"}  # fmt: skip
    return names.get(compression, f"compressed by method {compression}")


def index_tiles(descriptor: int, levels: Sequence[TiffLevel], *, file: int, header_offset: int = 0) -> TileIndex:
    """Places of all tiles with the headers to put before them. Sparse and headless tiles are flagged missing or corrupt."""
    headers: list[bytes] = []
    tables: list[Records] = []
    first_tile: list[int] = []
    for tiff_level in levels:
        directory = tiff_level.directory
        rgb = directory.samples == 3 and directory.photometric == tiff_walk.RGB
        try:
            header, broken = splice_header(directory.raw(tiff_walk.JPEG_TABLES), rgb=rgb), False
        except NotJpeg:
            header, broken = SOI, True
        if header not in headers:
            headers.append(header)
        first_tile.append(sum(table.size for table in tables))
        records = _records(descriptor, tiff_level, file=file, header=header_offset + headers.index(header))
        if broken:  # without its tables no tile can be decoded
            records["flag"][records["flag"] == tile_store.OK] = tile_store.CORRUPT
        tables.append(records)
    return TileIndex(tuple(each.level for each in levels), tuple(first_tile), np.concatenate(tables), tuple(headers))


def _records(descriptor: int, tiff_level: TiffLevel, *, file: int, header: int) -> Records:
    directory, level = tiff_level.directory, tiff_level.level
    stored_cols = -(-directory.width // directory.tile_width)
    offsets, counts = directory.segments()
    numbers = (np.arange(level.rows)[:, None] * stored_cols + np.arange(level.cols)).ravel()
    records = np.zeros(numbers.size, TILE_RECORD)
    records["offset"], records["length"] = offsets[numbers], counts[numbers]
    records["file"], records["header"] = file, header
    records["flag"][records["length"] == 0] = tile_store.MISSING
    _skip_own_headers(descriptor, records, level)
    return records


def _skip_own_headers(descriptor: int, records: Records, level: Level) -> None:
    """Move each record past the tile's own SOI and APPn, which the spliced header replaces; flag what is not JPEG."""
    offsets, lengths = records["offset"].tolist(), records["length"].tolist()
    starts = np.zeros(records.size, np.int64)
    alike, start = b"\0", 0  # the headers of tiles are nearly always alike: compare first, parse only what differs
    for number in np.flatnonzero(records["flag"] == tile_store.OK).tolist():
        if lengths[number] < len(alike) or os.pread(descriptor, len(alike), offsets[number]) != alike:
            alike, start = _head(descriptor, offsets[number], lengths[number], level)
        starts[number] = start
    records["flag"][starts < 0] = tile_store.CORRUPT
    starts = starts.clip(0).astype(np.uint64)
    records["offset"] += starts
    records["length"] -= starts.astype(np.uint32)


def _head(descriptor: int, offset: int, length: int, level: Level) -> tuple[bytes, int]:
    """The bytes of a tile up to the end of its frame header, and where its body starts; -1 if it is not a tile."""
    for size in (min(HEAD_BYTES, length), length):
        data = os.pread(descriptor, size, offset)
        try:
            frame = parse_frame(data)
        except NotJpeg:
            continue
        right_size = (frame.width, frame.height, frame.bits) == (level.tile_width, level.tile_height, 8)
        if right_size and frame.components in (1, 3):
            return data[: frame.frame_end], frame.body_start
    return b"\0", -1


def joined(fine: TileIndex, coarse: TileIndex) -> TileIndex:
    """One index of both, levels renumbered; `coarse` must have been made with header_offset=len(fine.headers)."""
    levels = tuple(replace(level, index=number) for number, level in enumerate((*fine.levels, *coarse.levels)))
    first_tile = (*fine.first_tile, *(first + fine.records.size for first in coarse.first_tile))
    records = np.concatenate([fine.records, coarse.records])
    return TileIndex(levels, first_tile, records, fine.headers + coarse.headers)


def only_levels(index: TileIndex, kept: Sequence[int]) -> TileIndex:
    """The index of some levels alone."""
    tables = [index.of_level(level) for level in kept]
    sizes = np.cumsum([0, *(table.size for table in tables)])
    levels = tuple(replace(index.levels[level], index=number) for number, level in enumerate(kept))
    return TileIndex(levels, tuple(int(size) for size in sizes[:-1]), np.concatenate(tables), index.headers)


def hatched(width: int, height: int) -> Rgb:
    """The picture of a place without readable data: grey diagonal hatching with a cross, never white or black."""
    rows, cols = np.mgrid[0:height, 0:width]
    stripe = ((rows + cols) // 8) % 2 == 0
    rgb = np.where(stripe[..., None], np.uint8(205), np.uint8(165)).repeat(3, axis=2)
    line = max(1, min(width, height) // 64)
    slope = cols * height - rows * width
    cross = (abs(slope) < line * height) | (abs(slope - width * height + 2 * rows * width) < line * height)
    rgb[cross] = (176, 96, 32)
    return np.ascontiguousarray(rgb)


def placeholder(width: int, height: int) -> bytes:
    return bytes(simplejpeg.encode_jpeg(hatched(width, height), quality=70, colorspace="RGB", colorsubsampling="420"))
