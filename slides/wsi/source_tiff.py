"""Pixels of TIFF files that OpenSlide does not take: flat, striped, OME, any compression tifffile decodes."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from slides.wsi.geometry import Level
from slides.wsi.pixels import Pixels, Rgb, paste, tiles_under
from slides.wsi.source_openslide import on_white
from slides.wsi.tiff_pyramid import TiffLevel
from slides.wsi.tiff_walk import LARGEST_TILE_BYTES

_CACHE_BYTES = 128 << 20


class TiffSource:
    """A LevelSource that decodes tiles or strips one by one, so that a bad one spoils nothing else."""

    def __init__(self, path: Path, levels: tuple[TiffLevel, ...]) -> None:
        self._file = tifffile.TiffFile(path)
        self._descriptor: int = self._file.filehandle.fileno()
        self._pages = [_page(self._file, level.directory.offset) for level in levels]
        self.levels: tuple[Level, ...] = tuple(level.level for level in levels)
        self._cache: OrderedDict[tuple[int, int], Rgb | None] = OrderedDict()

    def read_level(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        level = self.levels[level_index]
        pixels = Pixels.white(width, height)
        for col, row in tiles_under(x=x, y=y, width=width, height=height, level=level):
            left, top = col * level.tile_width, row * level.tile_height
            paste(
                pixels,
                self._segment(level_index, col, row),
                x=left - x,
                y=top - y,
                width=min(level.tile_width, level.width - left),
                height=min(level.tile_height, level.height - top),
            )
        return pixels

    def read_apart(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        """As read_level, past the cache: several threads may call it at once."""
        level, page = self.levels[level_index], self._pages[level_index]
        pixels = Pixels.white(width, height)
        for col, row in tiles_under(x=x, y=y, width=width, height=height, level=level):
            number = row * -(-page.imagewidth // level.tile_width) + col
            left, top = col * level.tile_width, row * level.tile_height
            paste(
                pixels,
                self._decode(page, number),
                x=left - x,
                y=top - y,
                width=min(level.tile_width, level.width - left),
                height=min(level.tile_height, level.height - top),
            )
        return pixels

    def _segment(self, level_index: int, col: int, row: int) -> Rgb | None:
        level, page = self.levels[level_index], self._pages[level_index]
        number = row * -(-page.imagewidth // level.tile_width) + col
        key = (level_index, number)
        if key not in self._cache:
            self._cache[key] = self._decode(page, number)
            size = level.tile_width * level.tile_height * 3
            if len(self._cache) > max(4, _CACHE_BYTES // size):
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _decode(self, page: Any, number: int) -> Rgb | None:
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
        per_plane = len(page.dataoffsets) // (page.samplesperpixel if separate else 1)
        planes = []
        for plane in range(page.samplesperpixel if separate else 1):
            decoded = self._decode_one(page, number + plane * per_plane)
            if decoded is None:
                return None
            planes.append(decoded)
        samples = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        return _rgb(samples, inverted=page.photometric == 0)

    def _decode_one(self, page: Any, number: int) -> Rgb | None:
        data = os.pread(self._descriptor, page.databytecounts[number], page.dataoffsets[number])
        if not data:
            return None
        try:
            decoded, _, _ = page.decode(data, number, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
        except MemoryError:
            if page.chunks[0] * page.chunks[1] * page.samplesperpixel > LARGEST_TILE_BYTES:
                raise
            return None  # a small tile whose data claim to be large
        except Exception:  # noqa: BLE001 each codec has errors of its own; a segment that fails is reported as failed pixels
            return None
        return None if decoded is None else decoded[0]

    def close(self) -> None:
        self._file.close()


def _page(file: tifffile.TiffFile, offset: int) -> Any:
    file.filehandle.seek(offset)
    return tifffile.TiffPage(file, index=0)


def _rgb(samples: Rgb, *, inverted: bool) -> Rgb:
    """uint8 (H, W, 1|3|4) to RGB."""
    if inverted:
        samples = 255 - samples
    if samples.shape[2] == 4:
        return on_white(samples)
    return np.ascontiguousarray(samples if samples.shape[2] == 3 else np.repeat(samples[..., :1], 3, axis=2))
