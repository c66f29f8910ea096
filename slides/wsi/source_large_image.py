"""Pixels through large_image, asked last: files that neither OpenSlide nor the own TIFF reader takes."""

from pathlib import Path
from typing import Any

import numpy as np

from slides.wsi.geometry import Level
from slides.wsi.pixels import Pixels, paste


class LargeImageSource:
    """A LevelSource over any installed large_image tile source. Levels are its factor-2 levels, finest first."""

    def __init__(self, path: Path) -> None:
        import large_image  # 0.3 s and 50 MB: only loaded for the rare file that needs it

        self._failure: type[Exception] = large_image.exceptions.TileSourceError
        self.source: Any = large_image.open(str(path), encoding="PNG")
        self.levels = tuple(self._levels())

    def _levels(self) -> list[Level]:
        facts = self.source.getMetadata()
        levels = []
        for index in range(int(facts["levels"])):
            downsample = float(2**index)
            size = [max(1, int(facts[name] // downsample)) for name in ("sizeX", "sizeY")]
            tile = (int(facts["tileWidth"]), int(facts["tileHeight"]))
            levels.append(Level(index, size[0], size[1], downsample, *tile))
        return levels

    @property
    def magnification(self) -> dict[str, float | None]:
        return dict(self.source.getNativeMagnification())

    def read_level(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        level = self.levels[level_index]
        pixels = Pixels.white(width, height)
        left, top = max(0, x), max(0, y)
        right, bottom = min(level.width, x + width), min(level.height, y + height)
        if left >= right or top >= bottom:
            return pixels
        scale = level.downsample
        region = {"left": left * scale, "top": top * scale, "right": right * scale, "bottom": bottom * scale}
        try:
            array, _ = self.source.getRegion(
                region=region | {"units": "base_pixels"},
                output={"maxWidth": right - left, "maxHeight": bottom - top},
                format="numpy",
            )
        except (self._failure, OSError, ValueError):
            array = None
        patch = None
        if array is not None and array.shape[:2] == (bottom - top, right - left):
            patch = np.ascontiguousarray(array[..., :3] if array.shape[2] >= 3 else array[..., :1].repeat(3, axis=2))
        paste(pixels, patch, x=left - x, y=top - y, width=right - left, height=bottom - top)
        return pixels

    def close(self) -> None:
        self.source = None
