"""Damaged tiles from the file to the result: counted, shown hatched, and never judged as if they had been looked at."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from analysis.detector import infer
from analysis.detector.weights import load_model
from slides.wsi import sandbox, tile_index
from slides.wsi.tile_store import TileStore
from tests.slides.wsi.made_slides import spoil_tile, tissue_picture, write_jpeg_tiff

COLS, ROWS = 6, 5


def sharp_picture() -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, 14, (ROWS * 256, COLS * 256, 1))
    return np.clip(tissue_picture(COLS * 256, ROWS * 256) + noise, 0, 255).astype(np.uint8)


PICTURE = sharp_picture()


def prepared(path: Path, folder: Path) -> sandbox.PreparedSlide:
    for name in ("store", "associated"):
        (folder / name).mkdir()
    return sandbox.prepare(path, folder / "store", associated_dir=folder / "associated")


@pytest.mark.parametrize(("levels", "spoilt"), [(1, [14]), (3, [7, 8, 9, 13, 14, 15, 19, 20, 21])])
def test_damaged_tiles_are_counted_hatched_and_not_analysed(
    tmp_path: Path, model_files: Callable[..., Path], spoilt: list[int], levels: int
) -> None:
    """Also where the file's own reduced levels are whole: nobody can look at the place in full resolution."""
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE, levels=levels)
    for number, tile in enumerate(spoilt):
        spoil_tile(path, tile, how=["garbage", "cut"][number % 2])
    made = prepared(path, tmp_path)
    assert (made.corrupt_tiles, made.missing_tiles) == (len(spoilt), len(spoilt))
    with TileStore.load(made.tile_store) as store:
        served = [store.tile(0, number % COLS, number // COLS) for number in range(COLS * ROWS)]
    assert [number for number, tile in enumerate(served) if tile.missing] == spoilt
    assert {tile.data for tile in served if tile.missing} == {tile_index.placeholder(256, 256)}
    with sandbox.open_pixels(path, checked=made.tile_store) as pixels:
        detection = infer.detect(pixels, load_model(model_files()))
    assert detection.tissue.failed > 0.01
    assert detection.status in ("incomplete", "cannot_assess")
    assert "could not be read" in detection.status_reason
    assert detection.triage != "ai_negative"


def test_a_whole_slide_is_read_whole(tmp_path: Path, model_files: Callable[..., Path]) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE, levels=3)
    made = prepared(path, tmp_path)
    assert (made.corrupt_tiles, made.missing_tiles) == (0, 0)
    with sandbox.open_pixels(path, checked=made.tile_store) as pixels:
        detection = infer.detect(pixels, load_model(model_files()))
    assert detection.tissue.failed == 0


def test_a_damaged_tile_of_a_converted_slide_is_counted_and_not_analysed(
    tmp_path: Path, model_files: Callable[..., Path]
) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", compression="deflate", tile=(256, 256), metadata=None,
                     resolution=(20000, 20000), resolutionunit="CENTIMETER")  # fmt: skip
    spoil_tile(path, 14, how="garbage")
    made = prepared(path, tmp_path)
    assert made.corrupt_tiles == 1
    with sandbox.open_pixels(path, checked=made.tile_store) as pixels:
        detection = infer.detect(pixels, load_model(model_files()))
    assert detection.tissue.failed > 0.01
    assert detection.triage != "ai_negative"


def test_every_tile_of_a_very_large_slide_is_decoded(tmp_path: Path) -> None:
    """More than 20,000 tiles; the damaged ones end as a JPEG ends, so that only decoding finds them."""
    side = 16 * 150
    path = write_jpeg_tiff(tmp_path / "slide.tif", tissue_picture(side, side), tile=16)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        places = {number: (page.dataoffsets[number], page.databytecounts[number]) for number in (0, 7_777, 22_499)}
    with path.open("r+b") as file:
        for offset, length in places.values():
            file.seek(offset + length - 12)
            file.write(b"\0" * 10)
    made = prepared(path, tmp_path)
    assert made.corrupt_tiles == 3
    with TileStore.load(made.tile_store) as store:
        assert store.levels[0].cols * store.levels[0].rows == 22_500
        assert [store.tile(0, number % 150, number // 150).missing for number in (0, 7_777, 22_499, 5)] == [
            True, True, True, False,
        ]  # fmt: skip
