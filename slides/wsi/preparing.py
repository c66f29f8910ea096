"""Everything the child does to make a slide ready: describe, check every tile, tile store, thumbnail, tissue."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from slides.wsi import tile_index, tile_store
from slides.wsi.colour import write_colour_table
from slides.wsi.convert import PyramidPlan, plan_pyramid, write_pyramid
from slides.wsi.properties import ScaleState
from slides.wsi.reader import SlideReader, encoded_png
from slides.wsi.source_jpeg_tiles import JpegTileSource
from slides.wsi.store_plan import StorePlan
from slides.wsi.tiff_pyramid import TiffLevel
from slides.wsi.tile_store import CONVERTED, PASS_THROUGH, TileIndex
from slides.wsi.tissue import tissue_mask

PYRAMID_NAME, THUMBNAIL_NAME = "pyramid.tif", "thumbnail.jpg"
THUMBNAIL_PX = 1024
_TISSUE_UM = 8.0
_TISSUE_DOWNSAMPLE = 32.0  # where the scale is not known: 8 um at the usual 0.25
_LARGEST_OVERVIEW = 5000
_SEPARATE_IMAGES = ("label", "macro")
_THREADS = 2

OnProgress = Callable[[str, float], None]


def prepare_slide(slide: SlideReader, output: Path, associated: Path | None, on_progress: OnProgress) -> dict[str, Any]:
    """Fill `output` with the tile store and thumbnail.jpg; label and macro go to `associated` as PNG."""
    started = time.monotonic()
    plan = slide.store_plan
    index, own_pyramid = _make_tiles(slide, plan, output, on_progress)
    document = _write(slide, plan, index, output, own_pyramid=own_pyramid)
    on_progress("finding tissue", 0.0)
    tissue = _tissue(slide)
    thumbnail = slide.thumbnail(THUMBNAIL_PX)
    (output / THUMBNAIL_NAME).write_bytes(simplejpeg.encode_jpeg(thumbnail, quality=85, colorspace="RGB"))
    written = _write_associated(slide, associated) if associated else []
    return {
        "properties": slide.properties.to_json(),
        "store": plan.to_json(),
        "tissue": tissue,
        "missing_tiles": document["missing_tiles"],
        "corrupt_tiles": document["corrupt_tiles"],
        "associated": written,
        "seconds": time.monotonic() - started,
    }


def _make_tiles(slide: SlideReader, plan: StorePlan, output: Path, on_progress: OnProgress) -> tuple[TileIndex, bool]:
    """The index, and whether a pyramid of our own stands beside the slide's tiles."""
    if plan.kind == CONVERTED:
        return _converted(slide, output, on_progress), True
    source = slide.source
    assert isinstance(source, JpegTileSource)
    native = tile_index.only_levels(source.index, [0])
    if not plan.side_pyramid:
        _scan(source, native, on_progress)
        return native, False
    pyramid = plan_pyramid(source.levels, 2)
    side = _write_pyramid(slide, pyramid, output, _stage(on_progress, "making low resolutions"))
    if pyramid.source_level.index == 0:
        native.records["flag"][_positions(source.unreadable, 0, native)] = tile_store.CORRUPT
    else:
        _scan(source, native, on_progress)
    return tile_index.joined(native, _indexed(output / PYRAMID_NAME, side, file=1, headers=len(native.headers))), True


def _converted(slide: SlideReader, output: Path, on_progress: OnProgress) -> TileIndex:
    pyramid = plan_pyramid(slide.source.levels, 1)
    levels = _write_pyramid(slide, pyramid, output, _stage(on_progress, "converting"))
    return _indexed(output / PYRAMID_NAME, levels, file=0, headers=0)


def _write_pyramid(
    slide: SlideReader, plan: PyramidPlan, output: Path, on_fraction: Callable[[float], None]
) -> tuple[TiffLevel, ...]:
    mpp = slide.scale if slide.properties.scale_state == ScaleState.OK else None
    return write_pyramid(slide.source, plan, output / PYRAMID_NAME, icc=slide.icc, mpp=mpp, on_fraction=on_fraction)


def _indexed(path: Path, levels: tuple[TiffLevel, ...], *, file: int, headers: int) -> TileIndex:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return tile_index.index_tiles(descriptor, levels, file=file, header_offset=headers)
    finally:
        os.close(descriptor)


def _stage(on_progress: OnProgress, name: str) -> Callable[[float], None]:
    return lambda fraction: on_progress(name, fraction)


def _positions(numbers: set[int], first: int, index: TileIndex) -> list[int]:
    """Records of level 0 among `numbers` that are not already known to be missing."""
    return [
        number - first
        for number in numbers
        if 0 <= number - first < index.records.size and index.records["flag"][number - first] == tile_store.OK
    ]


def _scan(source: JpegTileSource, native: TileIndex, on_progress: OnProgress) -> None:
    """Flag the tiles of level 0 that do not decode (or, on very large slides, are not whole)."""
    stage = _stage(on_progress, "checking tiles")
    records = native.records
    if records.size > tile_index.DECODE_ALL_UP_TO:
        tile_index.scan_structure(source.descriptor, records, on_fraction=stage)
        return
    numbers = np.flatnonzero(records["flag"] == tile_store.OK)
    level = native.levels[0]
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, numbers.size, 256):
            batch = numbers[start : start + 256]
            whole = pool.map(lambda number: source.decode(int(number), level) is not None, batch)
            records["flag"][batch[~np.fromiter(whole, bool, batch.size)]] = tile_store.CORRUPT
            stage(start / numbers.size)


def _write(slide: SlideReader, plan: StorePlan, index: TileIndex, output: Path, *, own_pyramid: bool) -> dict[str, Any]:
    files = []
    if plan.kind == PASS_THROUGH:
        files.append(tile_store.file_entry(slide.path, named="source"))
    if own_pyramid:
        files.append(tile_store.file_entry(output / PYRAMID_NAME, named=PYRAMID_NAME))
    sizes = {(level.tile_width, level.tile_height) for level in index.levels}
    has_scale = slide.properties.scale_state == ScaleState.OK
    return tile_store.write_store(
        output,
        index=index,
        placeholders={size: tile_index.placeholder(*size) for size in sorted(sizes)},
        files=files,
        facts={
            "kind": plan.kind,
            "width": slide.properties.width,
            "height": slide.properties.height,
            "mpp_x": slide.properties.mpp_x if has_scale else None,
            "mpp_y": slide.properties.mpp_y if has_scale else None,
            "background": "#ffffff",
            "colour": write_colour_table(slide.icc, output),
        },
    )


def _tissue(slide: SlideReader) -> dict[str, float | None]:
    """{mm2 (None without scale), fraction of the scan}."""
    properties = slide.properties
    pixel0 = (_TISSUE_DOWNSAMPLE, _TISSUE_DOWNSAMPLE)
    um = _TISSUE_UM
    known = properties.scale_state == ScaleState.OK
    if known:
        mpp_x, mpp_y = slide.scale
        pixel0 = (um / mpp_x, um / mpp_y)
    grow = max(1.0, properties.width / pixel0[0] / _LARGEST_OVERVIEW, properties.height / pixel0[1] / _LARGEST_OVERVIEW)
    view = slide.overview_at(pixel0[0] * grow, pixel0[1] * grow)
    mask = tissue_mask(view.rgb, um * grow) & ~view.failed
    mm2 = float(mask.sum()) * (um * grow / 1000) ** 2
    return {"mm2": mm2 if known else None, "fraction": float(mask.mean())}


def _write_associated(slide: SlideReader, folder: Path) -> list[str]:
    written = []
    for name, rgb in slide.associated_images().items():
        if name in _SEPARATE_IMAGES:
            (folder / f"{name}.png").write_bytes(encoded_png(rgb))
            written.append(name)
    return written
