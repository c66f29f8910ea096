"""One place of a slide has one colour: as tile, on the thumbnail, and as the detector reads it."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from slides.wsi import colour, sandbox
from slides.wsi.tile_store import COLOUR_BYTES, COLOUR_CELLS, COLOUR_NAME, TileStore

from .colour_kinds import (
    KINDS,
    SERVED_AS_THEY_ARE,
    ciede2000,
    colours_of,
    differences,
    patch_means,
    scanner_profile,
    write_kind,
)
from .made_slides import Rgb, decoded

Prepare = Callable[..., sandbox.PreparedSlide]

# Of the 34 pairs that Sharma, Wu and Dalal published to test implementations: L, a, b, L, a, b, difference.
PUBLISHED = np.array(
    [(50, 2.6772, -79.7751, 50, 0, -82.7485, 2.0425), (50, 3.1571, -77.2803, 50, 0, -82.7485, 2.8615),
     (50, 2.8361, -74.0200, 50, 0, -82.7485, 3.4412), (50, -1.3802, -84.2814, 50, 0, -82.7485, 1.0000),
     (50, 0, 0, 50, -1, 2, 2.3669), (50, 2.49, -0.001, 50, -2.49, 0.0009, 7.1792),
     (50, 2.49, -0.001, 50, -2.49, 0.0011, 7.2195), (50, -0.001, 2.49, 50, 0.0009, -2.49, 4.8045),
     (50, -0.001, 2.49, 50, 0.0011, -2.49, 4.7461), (50, 2.5, 0, 50, 0, -2.5, 4.3065),
     (50, 2.5, 0, 73, 25, -18, 27.1492), (50, 2.5, 0, 61, -5, 29, 22.8977), (50, 2.5, 0, 56, -27, -3, 31.9030),
     (50, 2.5, 0, 58, 24, 15, 19.4535), (50, 2.5, 0, 50, 3.1736, 0.5854, 1.0000),
     (60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644),
     (63.0109, -31.0961, -5.8663, 62.8187, -29.7946, -4.0864, 1.2630),
     (35.0831, -44.1164, 3.7933, 35.0232, -40.0716, 1.5901, 1.8645),
     (22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373),
     (36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146),
     (90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441),
     (90.9257, -0.5406, -0.9208, 88.6381, -0.8985, -0.7239, 1.5381),
     (6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377),
     (2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082)]
)  # fmt: skip


def test_the_measure_gives_the_published_differences() -> None:
    assert ciede2000(PUBLISHED[:, :3], PUBLISHED[:, 3:6]) == pytest.approx(PUBLISHED[:, 6], abs=5e-5)
    assert ciede2000(PUBLISHED[:, 3:6], PUBLISHED[:, :3]) == pytest.approx(PUBLISHED[:, 6], abs=5e-5)


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    def make(kind: str, *, icc: bytes = b"") -> sandbox.PreparedSlide:
        folder = tmp_path / f"{kind} {len(icc)}".replace(":", "-")
        for name in ("store", "associated"):
            (folder / name).mkdir(parents=True)
        path = write_kind(folder / "slide.svs", kind, icc=icc)
        return sandbox.prepare(path, folder / "store", associated_dir=folder / "associated")

    return make


def served(made: sandbox.PreparedSlide) -> Rgb:
    """Level 0 as a viewer puts it together, decoded by Pillow (libjpeg's own rules of colour, as browsers follow them)."""
    with TileStore.load(made.tile_store) as store:
        level = store.levels[0]
        rows = [
            np.concatenate([_by_pillow(store.tile(0, col, row).data) for col in range(level.cols)], axis=1)
            for row in range(level.rows)
        ]
        return np.concatenate(rows)[: level.height, : level.width]


def _by_pillow(data: bytes) -> Rgb:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("icc", [b"", scanner_profile()], ids=["no profile", "profile"])
def test_tile_thumbnail_and_detector_see_one_colour(prepare: Prepare, kind: str, icc: bytes) -> None:
    made = prepare(kind, icc=icc)
    assert (made.store.kind == "pass_through") == (kind in SERVED_AS_THEY_ARE)
    source = made.tile_store.parent / "slide.svs"
    seen = {"tile": served(made), "thumbnail": decoded(made.thumbnail.read_bytes())}
    ways = {"detector on the store": made.tile_store} | ({} if icc else {"detector on the file": None})
    for name, store in ways.items():
        with sandbox.open_pixels(source, mpp_override=(0.5, 0.5), store=store) as pixels:
            seen[name] = pixels.read_at_mpp(0, 0, 384, 256, 1.0).rgb
    with TileStore.load(made.tile_store) as store:
        if len(store.levels) > 1:
            seen["half-size tile"] = _by_pillow(store.tile(1, 0, 0).data)[
                : store.levels[1].height, : store.levels[1].width
            ]
    for name, picture in seen.items():
        found = differences(patch_means(picture), colours_of(kind))
        assert found.mean() < 3, (name, found.round(1))
        assert found.max() < 5, (name, found.round(1))


@pytest.mark.parametrize(
    ("kind", "compression", "photometric", "subsampling"),
    [("JPEG RGB", 7, 2, None), ("JPEG YCbCr 4:2:0", 7, 6, (2, 2)), ("JPEG YCbCr 4:4:4", 7, 6, (1, 1)),
     ("JPEG grey", 7, 1, None), ("JPEG 2000 33003", 33003, 2, None), ("JPEG 2000 33005", 33005, 2, None)],
)  # fmt: skip
def test_the_kinds_are_what_their_names_say(
    tmp_path: Path, kind: str, compression: int, photometric: int, subsampling: tuple[int, int] | None
) -> None:
    with tifffile.TiffFile(write_kind(tmp_path / "slide.svs", kind, icc=scanner_profile())) as file:
        page = file.pages[0]
        assert (page.compression, page.photometric) == (compression, photometric)
        assert subsampling is None or page.subsampling == subsampling
        assert page.iccprofile == scanner_profile()


def test_a_profile_changes_no_stored_pixel(prepare: Prepare) -> None:
    with_profile, without = prepare("deflate", icc=scanner_profile()), prepare("deflate")
    assert (served(with_profile) == served(without)).all()
    assert with_profile.thumbnail.read_bytes() == without.thumbnail.read_bytes()


def corrected(table: bytes, rgb: Rgb) -> Rgb:
    """As frontend/src/viewer/colour.ts does it."""
    cells = np.frombuffer(table, np.uint8).reshape(COLOUR_CELLS, COLOUR_CELLS, COLOUR_CELLS, 3).astype(int)
    r, g, b = np.moveaxis(rgb >> 3, -1, 0)
    change = cells[r, g, b] - (np.stack([r, g, b], axis=-1).astype(int) * 8 + 4)
    return (rgb + change).clip(0, 255).astype(np.uint8)


def test_the_table_does_what_the_profile_says(prepare: Prepare) -> None:
    made = prepare("deflate", icc=scanner_profile())
    with TileStore.load(made.tile_store) as store:
        said, table = store.descriptor()["colour"], store.colour_table()
    assert said == {"profile": "sRGB built-in", "changes": True}
    assert len(table) == COLOUR_BYTES
    rgb = np.random.default_rng(3).integers(0, 256, (200, 200, 3), np.uint8)
    rgb[:24, 0] = colours_of("deflate")
    wanted = ImageCms.profileToProfile(
        Image.fromarray(rgb), ImageCms.ImageCmsProfile(io.BytesIO(scanner_profile())), ImageCms.createProfile("sRGB")
    )
    wanted = np.asarray(wanted)
    assert differences(rgb[:24, 0], wanted[:24, 0]).mean() > 4, "the profile changes what is seen"
    assert differences(corrected(table, rgb)[:24, 0], wanted[:24, 0]).max() < 1.5
    left = differences(corrected(table, rgb), wanted)
    assert left.mean() < 0.5
    assert np.quantile(left, 0.999) < 3


def test_srgb_is_a_profile_that_changes_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert colour.write_colour_table(srgb, tmp_path) == {"profile": "sRGB built-in", "changes": False}


@pytest.mark.parametrize("icc", [b"", b"no profile", b"\0" * 200, "grey"], ids=["none", "words", "zeros", "not RGB"])
def test_what_is_no_rgb_profile_makes_no_table(tmp_path: Path, icc: bytes | str) -> None:
    if icc == "grey":
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert isinstance(icc, bytes)
    assert colour.write_colour_table(icc, tmp_path) is None
    assert not (tmp_path / COLOUR_NAME).exists()


def test_a_slide_without_profile_says_so(prepare: Prepare) -> None:
    made = prepare("JPEG RGB")
    assert json.loads((made.tile_store / "index.json").read_text())["colour"] is None
    with TileStore.load(made.tile_store) as store:
        assert store.descriptor()["colour"] is None
        with pytest.raises(KeyError):
            store.colour_table()
