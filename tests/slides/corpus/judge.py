"""Puts the slide of a recipe through the real preparation and says in which ways the outcome is not what it must be."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from slides.wsi import sandbox, tile_index
from slides.wsi.errors import SlideRefused
from slides.wsi.sandbox import Limits
from slides.wsi.tile_store import TileStore

from ..wsi.made_slides import Rgb, decoded, halved
from .bases import picture
from .recipe import Recipe, make

LIMITS = Limits(memory_bytes=2 << 30, file_bytes=256 << 20, cpu_seconds=60, prepare_seconds=25.0, stall_seconds=25.0)
"""A bomb must be stopped by these: memory and processor time of the child, size of each file it writes."""

MPP = 0.5
_MOST_READ = 3000
_BLOCK = 20
_LARGEST_DIFFERENCE = 22.0  # mean over a block of 20 x 20 pixels; JPEG of these pictures stays below 10
_SHOWN_AT = {"scn": (100, 80)}
_GREY = ("tiff-grey", "tiff-white-is-zero")


def judge(recipe: Recipe, folder: Path, reference: Path | None, *, limits: Limits = LIMITS) -> list[str]:
    """What is wrong, in words; nothing when all is as expected. `folder` must be empty."""
    places = {name: folder / name for name in ("slide", "store", "associated")}
    for place in places.values():
        place.mkdir()
    path = make(recipe, places["slide"], reference)
    before = _bytes_below(places["slide"])
    try:
        made = sandbox.prepare(path, places["store"], associated_dir=places["associated"], limits=limits)
    except SlideRefused as refused:
        wrong = _refused(recipe.expected, refused)
    else:
        wrong = _ready(recipe, path, made, limits)
    if _bytes_below(places["slide"]) != before:
        wrong.append("the slide's own files were changed")
    return wrong


def _bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def _refused(expected: Any, refused: SlideRefused) -> list[str]:
    said = f"{refused.code}: {refused.message}"
    if expected["state"] != "quarantined":
        return [f"refused, and should be ready ({said}) {getattr(refused, '__notes__', '')}"]
    codes = expected["code"] if isinstance(expected["code"], list) else [expected["code"]]
    wrong = [] if refused.code.value in codes else [f"refused as {said}, and should be as {codes}"]
    wrong += [f"{word!r} is not in the message: {said}" for word in expected.get("words", []) if word not in said]
    return wrong


def _ready(recipe: Recipe, path: Path, made: sandbox.PreparedSlide, limits: Limits) -> list[str]:
    expected, found = recipe.expected, made.properties
    if expected["state"] != "ready":
        return [f"ready, and should be refused as {expected['code']}"]
    facts = {
        "scale": found.scale_state,
        "size": [found.width, found.height],
        "downsamples": [round(level.downsample, 3) for level in found.levels],
        "tiles": made.store.kind,
        "missing": made.missing_tiles - made.corrupt_tiles,
        "corrupt": made.corrupt_tiles,
        "associated": sorted(made.associated),
        "icc": found.icc,
        "orientation": found.orientation,
        "bounds": [found.bounds_x0, found.bounds_y0, found.bounds_width, found.bounds_height],
    }
    wanted = {"missing": 0, "corrupt": 0} | {key: expected[key] for key in facts if key in expected}
    wrong = [f"{key} is {facts[key]}, and should be {value}" for key, value in wanted.items() if facts[key] != value]
    if "mpp" in expected and not np.allclose([found.mpp_x or 0, found.mpp_y or 0], expected["mpp"], rtol=1e-3):
        wrong.append(f"the scale is {found.mpp_x} x {found.mpp_y}, and should be {expected['mpp']}")
    bad = wanted["missing"] + wanted["corrupt"] > 0
    return wrong + _tiles(made) + _pixels(recipe, path, made, limits, some_failed=expected.get("some_failed", bad))


def _tiles(made: sandbox.PreparedSlide) -> list[str]:
    """Every tile of the store is a JPEG of its level's size, and says truly whether it is a placeholder."""
    wrong = []
    with TileStore.load(made.tile_store) as store:
        for level in store.levels:
            hatched = tile_index.placeholder(level.tile_width, level.tile_height)
            for row in range(level.rows):
                for col in range(level.cols):
                    tile = store.tile(level.index, col, row)
                    where = f"tile {col}, {row} of level {level.index}"
                    if tile.missing != (tile.data == hatched):
                        wrong.append(f"{where} is a placeholder and is not marked so, or the other way round")
                    elif decoded(tile.data).shape != (level.tile_height, level.tile_width, 3):
                        wrong.append(f"{where} is not of the size of its level")
        document = json.loads((made.tile_store / "index.json").read_text())
        if document["width"] != store.levels[0].width:
            wrong.append("the store is not as wide as its finest level")
    return wrong


def _pixels(recipe: Recipe, path: Path, made: sandbox.PreparedSlide, limits: Limits, *, some_failed: bool) -> list[str]:
    """What detection reads: at each place the slide's picture, or said to have failed."""
    width, height = made.properties.width, made.properties.height
    wrong = []
    with sandbox.open_pixels(path, mpp_override=(MPP, MPP), checked=made.tile_store, limits=limits) as pixels:
        for shrink in (1, 2):
            size = min(width, _MOST_READ) // shrink, min(height, _MOST_READ) // shrink
            read = pixels.read_at_mpp(0, 0, *size, MPP * shrink)
            may_be_coarser = (
                made.missing_tiles > made.corrupt_tiles and shrink > 1
            )  # a reduced level may hold the place
            if bool(read.failed.any()) != some_failed and not may_be_coarser:
                wrong.append(f"at {MPP * shrink} um {read.failed.mean():.2%} of the pixels count as failed")
            if recipe.expected.get("picture", "same") == "same" and not recipe.base.startswith("ref:"):
                wrong += _compared(recipe, read.rgb, read.failed, shrink)
    return wrong


def truth(base: str) -> Rgb:
    whole = picture().copy()
    if base in _GREY:
        return np.repeat(whole[..., 1:2], 3, axis=2)
    if base == "tiff-rgba":
        whole[:, whole.shape[1] // 2 :] = 255
    return whole


def _compared(recipe: Recipe, rgb: Rgb, failed: np.ndarray, shrink: int) -> list[str]:
    shown = truth(recipe.base)
    if shrink == 2:
        shown = halved(shown)
    x, y = (place // shrink for place in _SHOWN_AT.get(recipe.base, (0, 0)))
    height, width = (min(shown.shape[axis], rgb.shape[axis] - at) for axis, at in ((0, y), (1, x)))
    apart = np.abs(rgb[y : y + height, x : x + width].astype(int) - shown[:height, :width]).mean(axis=2)
    apart[failed[y : y + height, x : x + width]] = 0
    rows, cols = height // _BLOCK, width // _BLOCK
    blocks = apart[: rows * _BLOCK, : cols * _BLOCK].reshape(rows, _BLOCK, cols, _BLOCK).mean(axis=(1, 3))
    if blocks.size == 0 or blocks.max() < _LARGEST_DIFFERENCE:
        return []
    row, col = np.unravel_index(blocks.argmax(), blocks.shape)
    return [
        f"at {MPP * shrink} um the picture differs by {blocks.max():.0f} around ({col * _BLOCK}, {row * _BLOCK}) "
        "and nothing says so"
    ]
