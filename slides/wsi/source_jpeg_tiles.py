"""Pixels straight from indexed JPEG tiles: one pread and one decode each. The fast way for detection."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import simplejpeg

from slides.wsi import tile_store
from slides.wsi.geometry import Level
from slides.wsi.pixels import Pixels, Rgb, paste, tiles_under
from slides.wsi.tile_index import only_levels
from slides.wsi.tile_store import TileIndex

_CACHE_BYTES = 96 << 20


class JpegTileSource:
    """A LevelSource over a TileIndex. `descriptors[n]` is the open file number n; they are closed with the source.

    `unreadable` collects the record numbers of tiles that were asked for and could not be decoded.
    """

    def __init__(self, index: TileIndex, descriptors: Sequence[int], *, threads: int = 1) -> None:
        self.index = index
        self.unreadable: set[int] = set()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._descriptors = list(descriptors)
        self._cache: OrderedDict[int, Rgb | None] = OrderedDict()
        largest = max((level.tile_width * level.tile_height * 3 for level in index.levels), default=1)
        self._cache_size = max(16, _CACHE_BYTES // largest)

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.index.levels

    def read_level(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        level = self.index.levels[level_index]
        pixels = Pixels.white(width, height)
        places = list(tiles_under(x=x, y=y, width=width, height=height, level=level))
        tiles = self._tiles([self.index.record_number(level_index, *place) for place in places], level)
        for (col, row), rgb in zip(places, tiles, strict=True):
            self._paste(pixels, rgb, level, col, row, x, y)
        return pixels

    def read_apart(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        """As read_level, past the cache: several threads may call it at once."""
        level = self.index.levels[level_index]
        pixels = Pixels.white(width, height)
        for col, row in tiles_under(x=x, y=y, width=width, height=height, level=level):
            number = self.index.record_number(level_index, col, row)
            rgb = self.decode(number, level)
            if rgb is None:
                self.unreadable.add(number)
            self._paste(pixels, rgb, level, col, row, x, y)
        return pixels

    def _paste(self, pixels: Pixels, rgb: Rgb | None, level: Level, col: int, row: int, x: int, y: int) -> None:
        left, top = col * level.tile_width, row * level.tile_height
        paste(
            pixels,
            rgb,
            x=left - x,
            y=top - y,
            width=min(level.tile_width, level.width - left),
            height=min(level.tile_height, level.height - top),
        )

    def _tiles(self, numbers: list[int], level: Level) -> list[Rgb | None]:
        found = {number: self._cache[number] for number in numbers if number in self._cache}
        wanted = [number for number in numbers if number not in found]
        run = self._pool.map if self._pool else map
        for number, rgb in zip(wanted, run(lambda number: self.decode(number, level), wanted), strict=True):
            found[number] = rgb
            if rgb is None:
                self.unreadable.add(number)
        self._remember(numbers, found)
        return [found[number] for number in numbers]

    def _remember(self, numbers: list[int], found: dict[int, Rgb | None]) -> None:
        for number in numbers[-self._cache_size :]:
            self._cache[number] = found[number]
            self._cache.move_to_end(number)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)

    def decode(self, number: int, level: Level) -> Rgb | None:
        """uint8 (tile height, tile width, 3), or None for a tile that is missing or does not decode."""
        data = self._bytes_of(number)
        if data is None:
            return None
        try:
            rgb: Rgb = simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            return None
        return rgb if rgb.shape == (level.tile_height, level.tile_width, 3) else None

    def is_whole(self, number: int, level: Level) -> bool:
        """Whether the tile decodes without a complaint. Every bit of it is read; colours are not made of it: half the time."""
        data = self._bytes_of(number)
        if data is None:
            return False
        try:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            simplejpeg.decode_jpeg(data, colorspace="GRAY", min_factor=8)
        except ValueError:
            return False
        return (height, width) == (level.tile_height, level.tile_width)

    def _bytes_of(self, number: int) -> bytes | None:
        offset, length, file, flag, header = self.index.records[number].item()
        if flag not in (tile_store.OK, tile_store.HATCHED):
            return None
        return self.index.headers[header] + os.pread(self._descriptors[file], length, offset)

    def only(self, kept: Sequence[int]) -> "JpegTileSource":
        """The same files with some levels alone; this source must not be used any more."""
        descriptors, self._descriptors = self._descriptors, []
        return JpegTileSource(only_levels(self.index, kept), descriptors)

    @property
    def descriptor(self) -> int:
        """The first file: the slide itself where tiles are passed through."""
        return self._descriptors[0]

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
