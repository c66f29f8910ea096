"""Pixels and facts through OpenSlide, the first reader asked for every file."""

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide

from slides.wsi.geometry import Level, content_size, true_downsample
from slides.wsi.pixels import Mask, Pixels, Rgb, paste, tiles_under
from slides.wsi.properties import NO_SCALE, Scale, positive_number

_RETRY_SIDE = 256  # after a failed read the region is tried again in pieces of this size


class OpenSlideSource:
    """A LevelSource. OpenSlide is lost for good after one bad tile, so it is opened again and the bad part found.

    Each thread reads with a handle of its own: one that was lost can then be closed while others read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.slide = openslide.OpenSlide(path)
        self._own = threading.local()
        self._others: list[openslide.OpenSlide] = []
        levels: list[Level] = []
        for index in range(self.slide.level_count):
            levels.append(self._level(index, finer=levels[-1].downsample if levels else 0.0))
        self.levels = tuple(levels)
        self._lost: Mask | None = None

    def mark_lost(self, tiles: Mask) -> None:
        """Tiles (rows, cols) of the full resolution without their data: OpenSlide shows them as glass, here they are failed."""
        self._lost = tiles if tiles.any() else None

    def _level(self, index: int, *, finer: float) -> Level:
        properties = self.slide.properties
        full, size = self.slide.dimensions, self.slide.level_dimensions[index]
        tile_width = int(properties.get(f"openslide.level[{index}].tile-width", 512))
        tile_height = int(properties.get(f"openslide.level[{index}].tile-height", 512))
        downsample = 1.0
        if index:
            downsample = true_downsample(full=full, level=size, tile=(tile_width, tile_height), finer=finer)
        width, height = content_size(full=full, level=size, downsample=downsample)
        return Level(index, width, height, downsample, max(1, tile_width), max(1, tile_height))

    def read_level(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        level = self.levels[level_index]
        pixels = Pixels.white(width, height)
        left, top = max(0, x), max(0, y)
        right, bottom = min(level.width, x + width), min(level.height, y + height)
        if left < right and top < bottom:
            self._read_into(pixels, level_index, (left, top, right, bottom), x, y)
        if level_index == 0 and self._lost is not None:
            for col, row in tiles_under(x=x, y=y, width=width, height=height, level=level):
                if self._lost[row, col]:
                    at = {"x": col * level.tile_width - x, "y": row * level.tile_height - y}
                    paste(pixels, None, **at, width=level.tile_width, height=level.tile_height)
        return pixels

    def read_apart(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        """As read_level; several threads may call it at once."""
        return self.read_level(level_index, x, y, width, height)

    def _handle(self) -> openslide.OpenSlide:
        handle: openslide.OpenSlide | None = getattr(self._own, "handle", None)
        if handle is None:
            handle = self._own.handle = openslide.OpenSlide(self._path)
            self._others.append(handle)
        return handle

    def _read_into(self, pixels: Pixels, level_index: int, box: tuple[int, int, int, int], x: int, y: int) -> None:
        left, top, right, bottom = box
        patch = self._read(level_index, left, top, right - left, bottom - top)
        small = right - left <= _RETRY_SIDE and bottom - top <= _RETRY_SIDE
        if patch is not None or small:
            paste(pixels, patch, x=left - x, y=top - y, width=right - left, height=bottom - top)
            return
        for piece_top in range(top, bottom, _RETRY_SIDE):
            for piece_left in range(left, right, _RETRY_SIDE):
                piece = (
                    piece_left, piece_top, min(right, piece_left + _RETRY_SIDE), min(bottom, piece_top + _RETRY_SIDE)
                )  # fmt: skip
                self._read_into(pixels, level_index, piece, x, y)

    def _read(self, level_index: int, x: int, y: int, width: int, height: int) -> Rgb | None:
        # OpenSlide wants level-0 coordinates by its own ratio, which is not the true one where levels are padded
        ratio = self.slide.level_downsamples[level_index]
        place = (round(x * ratio), round(y * ratio))
        try:
            picture = self._handle().read_region(place, level_index, (width, height))
        except openslide.OpenSlideError:
            self._own.handle = None
            return None
        if picture.getchannel("A").getextrema() == (255, 255):
            return np.asarray(picture.convert("RGB"))
        return on_white(np.asarray(picture))

    def close(self) -> None:
        self.slide.close()
        for handle in self._others:
            handle.close()
        self._others.clear()


def on_white(rgba: Rgb) -> Rgb:
    """uint8 (H, W, 4) with straight alpha to (H, W, 3) on white."""
    alpha = rgba[..., 3:4]
    if (alpha == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    mixed = rgba[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha.astype(np.uint16))
    return ((mixed + 127) // 255).astype(np.uint8)


def scale_of(properties: Mapping[str, str]) -> Scale:
    """OpenSlide's mpp, named by the vendor tag that it stands for."""
    mpp_x = positive_number(properties.get("openslide.mpp-x", ""))
    mpp_y = positive_number(properties.get("openslide.mpp-y", ""))
    if mpp_x is None or mpp_y is None:
        said = positive_number(properties.get("aperio.MPP", ""))
        return Scale(said, said, "file:aperio.MPP") if said else NO_SCALE
    for tag in ("aperio.MPP", "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X", "tiff.XResolution"):
        if tag in properties:
            return Scale(mpp_x, mpp_y, f"file:{tag}")
    return Scale(mpp_x, mpp_y, "file:openslide.mpp-x")
