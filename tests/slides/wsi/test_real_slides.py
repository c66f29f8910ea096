"""Each reference file becomes a ready slide or is refused for the right reason."""

from pathlib import Path

import pytest

from slides.wsi import sandbox
from slides.wsi.check import describe_in_words
from slides.wsi.errors import RefusalCode, SlideRefused
from slides.wsi.tile_store import TileStore

from .made_slides import decoded

READY = {
    "CMU-1-Small-Region.svs": ("pass_through", "ok", (2220, 2967)),
    "TCGA-CR-7395-01A-01-TS1.svs": ("converted", "missing", (4443, 3567)),
    "cytomine_flat_rgb.tiff": ("converted", "missing", (896, 862)),
    "highdicom_sm_image.dcm": ("converted", "ok", (50, 50)),
    "large_image_orient6.tif": ("converted", "implausible", (180, 120)),
    "large_image_yb10kx5k.zstd.tiff": ("converted", "implausible", (10000, 5000)),
    "openslide_boxes.tiff": ("converted", "implausible", (300, 250)),
    "openslide_dicom_series": ("converted", "ok", (16, 16)),
    "openslide_small.svs": ("pass_through", "ok", (16, 16)),
    "panimg_no_dzi_lzw_grey.tif": ("converted", "ok", (3072, 3968)),
    "panimg_valid_tiff.tif": ("converted", "implausible", (205, 205)),
    "panimg_wsi_full_with_bot.dcm": ("converted", "implausible", (154, 290)),
    "panimg_wsi_sparse_no_bot.dcm": ("converted", "implausible", (154, 290)),
    "qupath_cells.ome.tif": ("converted", "ok", (93, 131)),
}
REFUSED = {
    "highdicom_sm_image_jpegls.dcm": RefusalCode.UNSUPPORTED_FORMAT,
    "pathml_small_dicom.dcm": RefusalCode.INCOMPLETE,
    "pathml_small_vectra_fluorescence.qptiff": RefusalCode.NOT_BRIGHTFIELD,
}


def test_every_reference_file_is_expected_here(reference_slides: Path) -> None:
    assert {path.name for path in reference_slides.iterdir()} == READY.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", READY)
def test_it_becomes_ready(name: str, reference_slides: Path, places: tuple[Path, Path]) -> None:
    kind, scale_state, size = READY[name]
    prepared = sandbox.prepare(reference_slides / name, places[0], associated_dir=places[1])
    assert (prepared.store.kind, prepared.properties.scale_state) == (kind, scale_state)
    assert (prepared.properties.width, prepared.properties.height) == size
    assert (prepared.quality.tissue_mm2 is None) == (scale_state != "ok")
    assert (prepared.missing_tiles, prepared.corrupt_tiles) == (0, 0)
    assert max(decoded(prepared.thumbnail.read_bytes()).shape) <= 1024
    with TileStore.load(places[0]) as store:
        assert (store.levels[0].width, store.levels[0].height) == size
        for level in store.levels:
            for col, row in {(0, 0), (level.cols - 1, 0), (level.cols - 1, level.rows - 1)}:
                tile = store.tile(level.index, col, row)
                assert not tile.missing
                assert decoded(tile.data).shape == (level.tile_height, level.tile_width, 3)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_right_reason(name: str, reference_slides: Path, places: tuple[Path, Path]) -> None:
    with pytest.raises(SlideRefused) as refused:
        sandbox.prepare(reference_slides / name, places[0], associated_dir=places[1])
    assert refused.value.code is REFUSED[name]
    words = describe_in_words(reference_slides / name)
    assert (words["state"], words["code"]) == ("quarantined", REFUSED[name].value)


def test_label_and_macro_go_to_their_own_folder(reference_slides: Path, places: tuple[Path, Path]) -> None:
    store, associated = places
    prepared = sandbox.prepare(reference_slides / "CMU-1-Small-Region.svs", store, associated_dir=associated)
    assert {path.name for path in associated.iterdir()} == {"label.png", "macro.png"}
    assert set(prepared.associated) == {"label", "macro"}
    assert not list(store.glob("*.png"))


def test_check_names_the_scale_and_what_the_tiles_become(reference_slides: Path) -> None:
    words = describe_in_words(reference_slides / "TCGA-CR-7395-01A-01-TS1.svs")
    assert (words["state"], words["tiles"], words["scale_state"]) == ("ready", "converted", "missing")
    assert "JPEG 2000" in words["tiles_reason"]
    assert "operator must enter it" in words["reason"]
    assert [level["downsample"] for level in words["levels"]] == [1.0, 2.0]
