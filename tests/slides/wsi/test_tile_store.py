from pathlib import Path

import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from PIL import ImageCms

from slides.wsi import sandbox
from slides.wsi.errors import SourceChanged, TileStoreDamaged
from slides.wsi.tile_store import TileStore

from .made_slides import decoded, difference, halved, spoil_tile, tissue_picture, write_jpeg_tiff, write_svs

PICTURE = tissue_picture(1500, 1100)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def prepared(path: Path, folder: Path) -> sandbox.PreparedSlide:
    for name in ("store", "associated"):
        (folder / name).mkdir()
    return sandbox.prepare(path, folder / "store", associated_dir=folder / "associated")


def level_picture(store: TileStore, level: int) -> np.ndarray:
    grid = store.levels[level]
    rows = [
        np.concatenate([decoded(store.tile(level, col, row).data) for col in range(grid.cols)], axis=1)
        for row in range(grid.rows)
    ]
    return np.concatenate(rows)[: grid.height, : grid.width]


@pytest.mark.parametrize("rgb_jpeg", [False, True])
def test_native_tiles_are_served_byte_for_byte_at_full_resolution(tmp_path: Path, rgb_jpeg: bool) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE, rgb_jpeg=rgb_jpeg)
    made = prepared(path, tmp_path)
    assert made.store.kind == "pass_through"
    with TileStore.load(made.tile_store) as store, tifffile.TiffFile(path) as file:
        page = file.pages[0]
        stored = path.read_bytes()[page.dataoffsets[0] :][: page.databytecounts[0]]
        served = store.tile(0, 0, 0).data
        assert served[-400:] == stored[-400:]
        assert b"JFIF" not in served
        assert difference(level_picture(store, 0), PICTURE) < 2.5


def test_the_levels_are_native_then_512_tiles_in_factors_of_two(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE, levels=3)
    with TileStore.load(prepared(path, tmp_path).tile_store) as store:
        levels = store.descriptor()["levels"]
        assert [(level["downsample"], level["tile_width"]) for level in levels] == [(1.0, 256), (2.0, 512), (4.0, 512)]
        assert [(level["width"], level["height"]) for level in levels] == [(1500, 1100), (750, 550), (375, 275)]
        assert difference(level_picture(store, 1), halved(PICTURE)) < 3
        assert difference(level_picture(store, 2), halved(halved(PICTURE))) < 3


def test_odd_sizes_lose_no_row_and_move_nothing(tmp_path: Path) -> None:
    picture = tissue_picture(1031, 777)
    path = write_jpeg_tiff(tmp_path / "slide.tif", picture)
    with TileStore.load(prepared(path, tmp_path).tile_store) as store:
        assert [(level.width, level.height) for level in store.levels] == [(1031, 777), (516, 389), (258, 195)]
        assert difference(level_picture(store, 1)[:388, :515], halved(picture)) < 3


def test_levels_padded_to_whole_tiles_show_the_slide_and_not_the_padding(tmp_path: Path) -> None:
    path = tmp_path / "camelyon.tif"
    picture = tissue_picture(1700, 1300)
    with tifffile.TiffWriter(path) as file:  # as CAMELYON16 files: each level's size rounded up to whole tiles
        level = picture
        for number in range(3):
            bottom, right = (-side % 512 for side in level.shape[:2])
            padded = level if number == 0 else np.pad(level, ((0, bottom), (0, right), (0, 0)))
            file.write(padded, photometric="rgb", compression="jpeg", compressionargs={"level": 90}, tile=(512, 512),
                       subfiletype=1 if number else 0, metadata=None)  # fmt: skip
            level = halved(level)
    made = prepared(path, tmp_path)
    assert [(each.width, each.height, each.downsample) for each in made.properties.levels] == [
        (1700, 1300, 1.0), (850, 650, 2.0), (425, 325, 4.0)
    ]  # fmt: skip
    with sandbox.open_pixels(path, mpp_override=(0.5, 0.5)) as pixels:
        assert difference(pixels.read_at_mpp(0, 0, 850, 650, 1.0).rgb, halved(picture)) < 3
        beyond = pixels.read_at_mpp(1600, 1200, 200, 200, 2.0)
        assert (beyond.rgb[30:, 30:] == 255).all()


def test_a_converted_slide_holds_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", compression="deflate", tile=(256, 256), metadata=None)
    made = prepared(path, tmp_path)
    assert made.store.kind == "converted"
    with TileStore.load(made.tile_store) as store:
        assert difference(level_picture(store, 0), PICTURE) < 3


def test_the_pyramid_file_is_right_for_other_readers(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", compression="deflate", tile=(256, 256), metadata=None,
                     resolution=(20000, 20000), resolutionunit="CENTIMETER", iccprofile=SRGB)  # fmt: skip
    pyramid = prepared(path, tmp_path).tile_store / "pyramid.tif"
    assert difference(pyvips.Image.new_from_file(str(pyramid)).numpy(), PICTURE) < 3
    with openslide.OpenSlide(pyramid) as slide:
        assert slide.level_dimensions == ((1500, 1100), (750, 550), (375, 275))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-4)
        assert difference(np.asarray(slide.read_region((0, 0), 1, (750, 550)))[..., :3], halved(PICTURE)) < 3
    with tifffile.TiffFile(pyramid) as file:
        assert bytes(file.pages[0].tags[34675].value) == SRGB


@pytest.mark.parametrize("profile", [b"no profile", b"\0" * (5 << 20)])
def test_a_bogus_colour_profile_is_left_out(tmp_path: Path, profile: bytes) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, PICTURE, photometric="rgb", compression="deflate", tile=(256, 256), metadata=None, iccprofile=profile
    )
    made = prepared(path, tmp_path)
    assert not made.properties.icc
    with tifffile.TiffFile(made.tile_store / "pyramid.tif") as file:
        assert 34675 not in file.pages[0].tags


@pytest.mark.parametrize(("how", "corrupt"), [("zero length", 0), ("garbage", 1), ("cut", 1)])
def test_a_broken_tile_is_marked_and_counted_and_its_neighbours_stay(tmp_path: Path, how: str, corrupt: int) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE)
    spoil_tile(path, 7, how=how)  # column 1, row 1 of 6 columns
    made = prepared(path, tmp_path)
    assert (made.missing_tiles, made.corrupt_tiles) == (1, corrupt)
    with TileStore.load(made.tile_store) as store:
        broken, neighbour = store.tile(0, 1, 1), store.tile(0, 2, 1)
        assert (broken.missing, neighbour.missing) == (True, False)
        picture = decoded(broken.data)
        assert picture.shape == (256, 256, 3)
        assert 60 < picture.mean() < 230
        assert picture.std() > 10  # hatched: not a plain colour that could be taken for glass or tissue
        assert difference(decoded(neighbour.data), PICTURE[256:512, 512:768]) < 2.5
        half = level_picture(store, 1)
        assert difference(half[128:256, 128:256], halved(PICTURE)[128:256, 128:256]) > 20
        assert difference(half[128:256, 256:384], halved(PICTURE)[128:256, 256:384]) < 4
        assert store.descriptor()["missing_tiles"] == 1


def test_a_broken_tile_is_found_also_when_low_resolutions_come_from_the_file(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE, levels=2)
    spoil_tile(path, 7, how="cut")
    assert prepared(path, tmp_path).corrupt_tiles == 1


def test_outside_of_a_level_is_a_key_error(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE)
    with TileStore.load(prepared(path, tmp_path).tile_store) as store:
        for place in ((0, 6, 0), (0, 0, 5), (0, -1, 0), (9, 0, 0), (-1, 0, 0)):
            with pytest.raises(KeyError):
                store.tile(*place)


def test_etags_differ_between_tiles_and_stay_between_loads(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE)
    folder = prepared(path, tmp_path).tile_store
    with TileStore.load(folder) as first, TileStore.load(folder) as second:
        tags = [first.tile(0, col, 0).etag for col in range(6)]
        assert len(set(tags)) == 6
        assert tags == [second.tile(0, col, 0).etag for col in range(6)]
        assert tags[0].startswith('"')


def test_slide_and_store_can_be_moved_together(tmp_path: Path) -> None:
    home = tmp_path / "laboratory"
    home.mkdir()
    path = write_svs(home / "slide.svs", PICTURE)
    prepared(path, home)
    home.rename(tmp_path / "elsewhere")
    with TileStore.load(tmp_path / "elsewhere" / "store") as store:
        assert difference(decoded(store.tile(0, 0, 0).data), PICTURE[:256, :256]) < 2.5


def test_a_changed_or_missing_slide_file_is_noticed(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE)
    folder = prepared(path, tmp_path).tile_store
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(SourceChanged):
        TileStore.load(folder)
    path.unlink()
    with pytest.raises(SourceChanged):
        TileStore.load(folder)


def test_a_store_without_its_index_is_unfinished(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", PICTURE)
    folder = prepared(path, tmp_path).tile_store
    (folder / "index.json").unlink()
    with pytest.raises(TileStoreDamaged):
        TileStore.load(folder)
