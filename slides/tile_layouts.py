"""The tiles of a store as others address them: IIIF Image API 3 at level 0, and Deep Zoom. Only names are translated."""

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

from slides.wsi.geometry import Level

# The last column and row come with the padding that the file stores, which viewers cut off: cutting here would be decoding.
_IIIF_TILE = re.compile(r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})/(\d{1,6}),(\d{1,6})?/0/default\.jpg")
_DZI_TILE = re.compile(r"(\d{1,2})/(\d{1,7})_(\d{1,7})\.jpe?g")


def etag_of(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:20]}"'


def iiif_info(levels: Sequence[Level], *, address: str, thumbnail: tuple[int, int]) -> dict[str, Any]:
    """info.json of the service at `address`. Each tile size is listed with the levels (scale factors) that have it.

    `thumbnail` (width, height) is what may be had of the whole image, and so bounds what `max` means.
    """
    factors: dict[tuple[int, int], list[int]] = {}
    for level in levels:
        if level.downsample == int(level.downsample):
            factors.setdefault((level.tile_width, level.tile_height), []).append(int(level.downsample))
    longest = max(thumbnail)
    limit = {"maxWidth": longest} if all(longest >= max(size) for size in factors) else {}
    return {
        "@context": "http://iiif.io/api/image/3/context.json",
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level0",
        "id": address,
        "width": levels[0].width,
        "height": levels[0].height,
        **limit,
        "sizes": [{"width": thumbnail[0], "height": thumbnail[1]}],
        "tiles": [
            {"width": width, "height": height, "scaleFactors": scale_factors}
            for (width, height), scale_factors in factors.items()
        ],
    }


def is_iiif_whole(name: str, thumbnail: tuple[int, int]) -> bool:
    """Whether the whole image is asked for, at the largest size there is of it (which IIIF asks of every service)."""
    return name in ("full/max/0/default.jpg", f"full/{thumbnail[0]},{thumbnail[1]}/0/default.jpg")


def iiif_tile(levels: Sequence[Level], name: str) -> tuple[int, int, int]:
    """(level, col, row) of `x,y,w,h/w,h/0/default.jpg`. Raises KeyError for anything that is not exactly one tile.

    A region that is the whole image is named `full` (IIIF's canonical addresses).
    """
    if name.startswith("full/"):
        name = f"0,0,{levels[0].width},{levels[0].height}/" + name.removeprefix("full/")
    found = _IIIF_TILE.fullmatch(name)
    if found is None:
        raise KeyError(name)
    x0, y0, width0, height0, width = (int(part) for part in found.groups()[:5])
    height = int(found.group(6)) if found.group(6) else None
    for level in levels:
        factor = int(level.downsample)
        if factor != level.downsample or x0 % (level.tile_width * factor) or y0 % (level.tile_height * factor):
            continue
        col, row = x0 // (level.tile_width * factor), y0 // (level.tile_height * factor)
        whole = (
            min(level.tile_width * factor, levels[0].width - x0),
            min(level.tile_height * factor, levels[0].height - y0),
        )
        size = (math.ceil(whole[0] / factor), math.ceil(whole[1] / factor))
        if (width0, height0) == whole and width == size[0] and height in (None, size[1]):
            return level.index, col, row
    raise KeyError(name)


def dzi(levels: Sequence[Level]) -> str:
    """The Deep Zoom description. Raises KeyError when the levels do not share one square tile size and halve each time."""
    size = _dzi_tile_size(levels)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpg" Overlap="0" TileSize="{size}">'
        f'<Size Width="{levels[0].width}" Height="{levels[0].height}"/></Image>'
    )


def dzi_tile(levels: Sequence[Level], name: str) -> tuple[int, int, int]:
    """(level, col, row) of `<dzi level>/<col>_<row>.jpg`; the highest Deep Zoom level is full resolution. Raises KeyError."""
    _dzi_tile_size(levels)
    found = _DZI_TILE.fullmatch(name)
    if found is None:
        raise KeyError(name)
    dzi_level, col, row = (int(part) for part in found.groups())
    highest = math.ceil(math.log2(max(levels[0].width, levels[0].height, 1)))
    wanted = 2 ** (highest - dzi_level) if dzi_level <= highest else 0
    for level in levels:
        if level.downsample == wanted:
            return level.index, col, row
    raise KeyError(name)


def _dzi_tile_size(levels: Sequence[Level]) -> int:
    size = levels[0].tile_width
    uniform = all((level.tile_width, level.tile_height) == (size, size) for level in levels)
    halves = all(level.downsample == 2**number for number, level in enumerate(levels))
    if not (uniform and halves):
        raise KeyError("these tiles cannot be described as Deep Zoom; use descriptor.json or info.json")
    return size
