"""Everything the child does to make a slide ready: describe, tile store, every tile checked, thumbnail, tissue, blur.

A large slide whose own tiles are served can be made viewable first, on the levels of its file: `first_look`. The rest
is then done by a second preparation, of everything, whose store takes the place of the first.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from slides.wsi import tile_index, tile_store
from slides.wsi.colour import write_colour_table
from slides.wsi.convert import PyramidPlan, WrittenPyramid, plan_pyramid, write_pyramid
from slides.wsi.errors import NoScale
from slides.wsi.level_check import check_some_is_readable, levels_of_another_picture
from slides.wsi.measuring import blur_of, tissue_and_ink
from slides.wsi.pixels import LevelSource, Rgb
from slides.wsi.quality import Quality
from slides.wsi.reader import SlideReader, encoded_png
from slides.wsi.resample import overview_of
from slides.wsi.source_jpeg_tiles import JpegTileSource
from slides.wsi.store_plan import StorePlan
from slides.wsi.tiff_pyramid import TiffLevel
from slides.wsi.tile_store import CONVERTED, PASS_THROUGH, TileIndex

PYRAMID_NAME, THUMBNAIL_NAME = "pyramid.tif", "thumbnail.jpg"
THUMBNAIL_PX = 1024
LARGEST_FIRST_OVERVIEW = 1 << 26
"""Pixels of the coarsest level of a file with which a first look is quick to make, and good to look at from afar."""
_SEPARATE_IMAGES = ("label", "macro")
_THREADS = 2

OnProgress = Callable[[str, float], None]


def prepare_slide(
    slide: SlideReader, output: Path, associated: Path | None, on_progress: OnProgress, *, first_look_above: int
) -> dict[str, Any]:
    """Fill `output` with the tile store and thumbnail.jpg; label and macro go to `associated` as PNG.

    A slide of more than `first_look_above` pixels gets a first look alone, where that is possible: `checked` is then
    false, its tiles were not decoded, and blur was not measured.
    """
    started = time.monotonic()
    plan = slide.store_plan
    checked = not _can_have_first_look(slide, plan, first_look_above)
    check_some_is_readable(slide.source, _native(slide).index.of_level(0) if plan.kind == PASS_THROUGH else None)
    left_out: tuple[int, ...] = ()
    if checked:
        left_out = levels_of_another_picture(slide.source)
        slide.leave_out_levels(left_out)
    index, own_pyramid = _make_tiles(slide, plan, output, on_progress) if checked else (_native(slide).index, False)
    check_some_is_readable(slide.source, index.of_level(0))
    document = _write(slide, plan, index, output, own_pyramid=own_pyramid, left_out=left_out)
    written = _write_associated(slide, associated) if associated else []
    source = _ready_source(slide, index, output, own_pyramid=own_pyramid)
    try:
        quality = _look(slide, source, output, on_progress, checked=checked)
    finally:
        source.close()
    return {
        "properties": slide.properties.to_json(),
        "store": plan.to_json(),
        "checked": checked,
        "quality": quality.to_json(),
        "missing_tiles": document["missing_tiles"],
        "corrupt_tiles": document["corrupt_tiles"],
        "associated": written,
        "seconds": time.monotonic() - started,
    }


def _can_have_first_look(slide: SlideReader, plan: StorePlan, above: int) -> bool:
    """Never for a file without small levels of its own: there is nothing to be seen from afar before a pyramid is made."""
    levels = slide.source.levels
    coarsest = levels[-1].width * levels[-1].height
    return (
        plan.kind == PASS_THROUGH
        and levels[0].width * levels[0].height > above
        and len(levels) > 1
        and coarsest <= LARGEST_FIRST_OVERVIEW
    )


def _native(slide: SlideReader) -> JpegTileSource:
    assert isinstance(slide.source, JpegTileSource)
    return slide.source


def _make_tiles(slide: SlideReader, plan: StorePlan, output: Path, on_progress: OnProgress) -> tuple[TileIndex, bool]:
    """The index, and whether a pyramid of our own stands beside the slide's tiles."""
    if plan.kind == CONVERTED:
        return _converted(slide, output, on_progress), True
    source = _native(slide)
    native = tile_index.only_levels(source.index, [0])
    if not plan.side_pyramid:
        _scan(source, native, on_progress)
        return native, False
    pyramid = plan_pyramid(source.levels, 2)
    side = _write_pyramid(slide, pyramid, output, _stage(on_progress, "making overview levels"))
    if side.hatched and pyramid.source_level.index:  # what a reduced level lacks is there in full resolution
        pyramid = plan_pyramid(source.levels[:1], 2)
        side = _write_pyramid(slide, pyramid, output, _stage(on_progress, "making overview levels"))
    if pyramid.source_level.index == 0:
        native.records["flag"][_positions(source.unreadable, 0, native)] = tile_store.CORRUPT
    else:
        _scan(source, native, on_progress)
    return tile_index.joined(native, _indexed(output / PYRAMID_NAME, side, file=1, headers=len(native.headers))), True


def _converted(slide: SlideReader, output: Path, on_progress: OnProgress) -> TileIndex:
    pyramid = plan_pyramid(slide.source.levels, 1)
    made = _write_pyramid(slide, pyramid, output, _stage(on_progress, "converting"))
    return _indexed(output / PYRAMID_NAME, made, file=0, headers=0)


def _write_pyramid(
    slide: SlideReader, plan: PyramidPlan, output: Path, on_fraction: Callable[[float], None]
) -> WrittenPyramid:
    return write_pyramid(
        slide.source, plan, output / PYRAMID_NAME, icc=slide.icc, mpp=_scale_of(slide), on_fraction=on_fraction
    )


def _scale_of(slide: SlideReader) -> tuple[float, float] | None:
    try:
        return slide.scale
    except NoScale:
        return None


def _indexed(path: Path, made: WrittenPyramid, *, file: int, headers: int) -> TileIndex:
    levels: tuple[TiffLevel, ...] = made.levels
    descriptor = os.open(path, os.O_RDONLY)
    try:
        index = tile_index.index_tiles(descriptor, levels, file=file, header_offset=headers)
    finally:
        os.close(descriptor)
    index.records["flag"][sorted(made.hatched)] = tile_store.HATCHED
    return index


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
    """Flag the tiles of level 0 that do not decode."""
    stage = _stage(on_progress, "checking tiles")
    records = native.records
    numbers = np.flatnonzero(records["flag"] == tile_store.OK)
    level = native.levels[0]
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, numbers.size, 256):
            batch = numbers[start : start + 256]
            whole = pool.map(lambda number: source.is_whole(int(number), level), batch)
            records["flag"][batch[~np.fromiter(whole, bool, batch.size)]] = tile_store.CORRUPT
            stage(start / numbers.size)


def _ready_source(slide: SlideReader, index: TileIndex, output: Path, *, own_pyramid: bool) -> JpegTileSource:
    """The tiles as they will be served: their low levels make reading the whole slide once more cheap."""
    files = [slide.path] if slide.store_plan.kind == PASS_THROUGH else []
    files += [output / PYRAMID_NAME] if own_pyramid else []
    return JpegTileSource(index, [os.open(file, os.O_RDONLY | os.O_CLOEXEC) for file in files], threads=_THREADS)


def _look(
    slide: SlideReader, source: JpegTileSource, output: Path, on_progress: OnProgress, *, checked: bool
) -> Quality:
    """Tissue and ink, blur of a checked slide, and the thumbnail."""
    on_progress("finding tissue", 0.0)
    mpp = _scale_of(slide)
    quality, overview = tissue_and_ink(source, mpp)
    thumbnail = simplejpeg.encode_jpeg(_thumbnail(source, overview), quality=85, colorspace="RGB")
    (output / THUMBNAIL_NAME).write_bytes(thumbnail)
    if not checked or mpp is None:
        return quality
    on_progress("measuring focus", 0.0)
    blurred, measured = blur_of(source, mpp)
    return replace(quality, blurred_share=blurred if measured else None, measured_mm2=measured)


def _thumbnail(source: LevelSource, overview: Rgb) -> Rgb:
    """At most THUMBNAIL_PX on its longer side; out of the overview where that is fine enough."""
    level0 = source.levels[0]
    pixel0 = max(1.0, max(level0.width, level0.height) / THUMBNAIL_PX)
    size = max(1, round(level0.width / pixel0)), max(1, round(level0.height / pixel0))
    if overview.shape[0] >= size[1] and overview.shape[1] >= size[0]:
        return np.asarray(Image.fromarray(overview).resize(size, Image.Resampling.BOX))
    return overview_of(source, pixel0, pixel0).rgb


def _write(
    slide: SlideReader,
    plan: StorePlan,
    index: TileIndex,
    output: Path,
    *,
    own_pyramid: bool,
    left_out: tuple[int, ...],
) -> dict[str, Any]:
    files = []
    if plan.kind == PASS_THROUGH:
        files.append(tile_store.file_entry(slide.path, named="source"))
    if own_pyramid:
        files.append(tile_store.file_entry(output / PYRAMID_NAME, named=PYRAMID_NAME))
    sizes = {(level.tile_width, level.tile_height) for level in index.levels}
    mpp_x, mpp_y = _scale_of(slide) or (None, None)
    return tile_store.write_store(
        output,
        index=index,
        placeholders={size: tile_index.placeholder(*size) for size in sorted(sizes)},
        files=files,
        facts={
            "kind": plan.kind,
            "width": slide.properties.width,
            "height": slide.properties.height,
            "mpp_x": mpp_x,
            "mpp_y": mpp_y,
            "background": "#ffffff",
            "levels_left_out": list(left_out),
            "colour": write_colour_table(slide.icc, output),
        },
    )


def _write_associated(slide: SlideReader, folder: Path) -> list[str]:
    written = []
    for name, rgb in slide.associated_images().items():
        if name in _SEPARATE_IMAGES:
            (folder / f"{name}.png").write_bytes(encoded_png(rgb))
            written.append(name)
    return written
