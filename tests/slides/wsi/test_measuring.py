"""What is measured for the operator: tissue, ink and blur, in the prepared tiles of real stores."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from slides.wsi import sandbox
from slides.wsi.damaged_tiles import DamagedTiles
from slides.wsi.quality import Quality
from slides.wsi.tile_store import TileStore

from .made_slides import spoil_tile, tissue_picture, write_jpeg_tiff

INK_BLUE = (30, 60, 170)


def nuclei(side: int, *, seed: int = 3) -> np.ndarray:
    """Stained tissue with sharp detail of cells everywhere, at about 1 um a pixel."""
    random = np.random.default_rng(seed)
    dots = gaussian_filter(random.normal(size=(side, side)), 1.2)
    density = 0.35 + 0.5 * (dots > 0.15)
    stain = np.array([0.55, 1.0, 0.45])
    return (244 * 10 ** (-density[..., None] * 0.6 * stain)).clip(0, 255).astype(np.uint8)


def on_glass(picture: np.ndarray, margin: int) -> np.ndarray:
    return np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), constant_values=244)


def quality_of(path: Path, folder: Path) -> Quality:
    out = folder / "out"
    out.mkdir()
    return sandbox.prepare(path, out, associated_dir=None).quality


def test_sharp_tissue_is_in_focus_and_a_blurred_half_is_found(tmp_path: Path) -> None:
    picture = nuclei(1024)
    sharp = quality_of(write_jpeg_tiff(tmp_path / "sharp.tif", on_glass(picture, 256), mpp=1.0), tmp_path)
    assert sharp.blurred_share == 0.0
    assert sharp.measured_mm2 == pytest.approx(1.05, rel=0.1)
    (tmp_path / "second").mkdir()
    half = picture.astype(np.float32)
    half[:, :512] = gaussian_filter(half[:, :512], (4, 4, 0))
    blurred = quality_of(
        write_jpeg_tiff(tmp_path / "half.tif", on_glass(half.astype(np.uint8), 256), mpp=1.0), tmp_path / "second"
    )
    assert blurred.blurred_share == pytest.approx(0.5, abs=0.1)


def test_focus_is_measured_on_the_level_near_one_micrometre(tmp_path: Path) -> None:
    """The same tissue at 0.25 um a pixel: blur of the scan's finest pixels alone is no blur of the tissue."""
    fine = nuclei(512).repeat(4, axis=0).repeat(4, axis=1)
    found = quality_of(write_jpeg_tiff(tmp_path / "fine.tif", on_glass(fine, 512), mpp=0.25), tmp_path)
    assert found.blurred_share == 0.0
    assert found.measured_mm2 == pytest.approx(0.26, rel=0.15)


def test_pen_ink_is_measured_and_is_no_tissue(tmp_path: Path) -> None:
    picture = on_glass(nuclei(512), 512)
    picture[100:300, 100:1100] = INK_BLUE
    found = quality_of(write_jpeg_tiff(tmp_path / "inked.tif", picture, mpp=1.0), tmp_path)
    assert 0.2 < found.ink_mm2 < 0.27  # with a rim of two or three cells of 8 um
    assert found.tissue_mm2 == pytest.approx(0.26, rel=0.15)


def test_without_a_scale_there_are_shares_and_no_areas_and_no_focus(tmp_path: Path) -> None:
    picture = on_glass(nuclei(1024), 256)
    found = quality_of(write_jpeg_tiff(tmp_path / "slide.tif", picture, mpp=None), tmp_path)
    assert (found.tissue_mm2, found.ink_mm2, found.blurred_share, found.measured_mm2) == (None, None, None, None)
    assert found.tissue_fraction == pytest.approx(0.44, abs=0.1)


@pytest.mark.parametrize("field", ["tissue_fraction", "ink_share", "blurred_share", "tissue_mm2"])
def test_what_cannot_be_is_not_believed_of_the_child(field: str) -> None:
    said = Quality(1.0, 0.5, 0.0, 0.0, 0.1, 1.0).to_json()
    assert Quality.from_json(said) == Quality(1.0, 0.5, 0.0, 0.0, 0.1, 1.0)
    for value in (-0.1, 1e9, float("nan"), "x"):
        with pytest.raises((ValueError, TypeError)):
            Quality.from_json(said | {field: value})


def test_a_tile_that_was_converted_in_part_is_counted_and_known(tmp_path: Path) -> None:
    """One deflate tile of 256 pixels does not decode: our tile of 512 that holds it is drawn hatched there, and marked."""
    picture = tissue_picture(1500, 1100)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture, photometric="rgb", compression="deflate", tile=(256, 256), metadata=None)
    spoil_tile(path, 9, how="garbage")  # column 3, row 1: of our tiles column 1, row 0
    out = tmp_path / "out"
    out.mkdir()
    made = sandbox.prepare(path, out, associated_dir=None)
    assert (made.store.kind, made.corrupt_tiles, made.missing_tiles) == ("converted", 1, 1)
    assert DamagedTiles.of_store(out).boxes.tolist() == [[512, 0, 1024, 512]]
    with TileStore.load(out) as store:
        assert not store.tile(0, 1, 0).missing  # our picture, in which the rest can be seen


def test_a_place_under_a_damaged_tile_is_failed_in_every_read_that_touches_it() -> None:
    damaged = DamagedTiles(np.array([[256.0, 512.0, 512.0, 768.0]]))
    failed = np.zeros((10, 20), bool)
    damaged.mark(failed, x0=192.0, y0=448.0, pixel0_x=64.0, pixel0_y=64.0)
    expected = np.zeros((10, 20), bool)
    expected[1:5, 1:5] = True
    assert np.array_equal(failed, expected)
    shifted = np.zeros((4, 4), bool)
    damaged.mark(shifted, x0=500.0, y0=700.0, pixel0_x=100.0, pixel0_y=100.0)
    assert shifted.nonzero()[0].tolist() == [0]
    nowhere = np.zeros((4, 4), bool)
    damaged.mark(nowhere, x0=512.0, y0=0.0, pixel0_x=10.0, pixel0_y=10.0)
    assert not nowhere.any()


def test_a_file_without_small_levels_has_no_first_look(tmp_path: Path) -> None:
    """There would be nothing to be seen of it from afar."""
    for levels, checked in ((1, True), (2, False)):
        out = tmp_path / f"out-{levels}"
        out.mkdir()
        path = write_jpeg_tiff(tmp_path / f"{levels}.tif", tissue_picture(1500, 1100), levels=levels)
        assert sandbox.prepare(path, out, associated_dir=None, first_look_above=1000).checked is checked
    out = tmp_path / "small"
    out.mkdir()
    assert sandbox.prepare(path, out, associated_dir=None, first_look_above=1 << 30).checked is True
