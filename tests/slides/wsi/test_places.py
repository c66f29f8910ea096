"""Every pixel of every level lies where it belongs: shown by a pattern that names its own place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from slides.wsi.reader import SlideReader, open_slide
from tests.slides.corpus import vendor_files

from .made_slides import Rgb, halved

WIDTH, HEIGHT, SIDE = 1010, 770, 10


def crosses() -> Rgb:
    """White, with a black square of 10 x 10 pixels every 100; the colour of the square to its right numbers it."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for row in range(HEIGHT // 100 + 1):
        for col in range(WIDTH // 100 + 1):
            y, x = row * 100, col * 100
            picture[y : y + SIDE, x : x + SIDE] = 0
            picture[y : y + SIDE, x + SIDE : x + 2 * SIDE] = (20 * row, 20 * col, 255)
    return picture


def found_at(reader: SlideReader, pixel0: float) -> list[tuple[float, float]]:
    """Where the black squares' corners are, in level-0 pixels, read at `pixel0` level-0 pixels a pixel."""
    properties = reader.properties
    size = int(properties.width / pixel0), int(properties.height / pixel0)
    dark = reader.read_at_downsample(0, 0, *size, pixel0, pixel0).rgb.max(axis=2) < 110
    starts = dark & ~np.pad(dark, ((1, 0), (0, 0)))[:-1] & ~np.pad(dark, ((0, 0), (1, 0)))[:, :-1]
    rows, cols = np.nonzero(starts)
    return [(float(col * pixel0), float(row * pixel0)) for row, col in zip(rows, cols, strict=True)]


def check(path: Path, *, at: tuple[int, int] = (0, 0), scale: tuple[int, int] = (1, 1)) -> None:
    """At full resolution exactly; at lower ones to one pixel of theirs, at the far corner as well."""
    with open_slide(path) as reader:
        last = ((WIDTH - 1) // 100 * 100 + at[0], (HEIGHT - 1) // 100 * 100 + at[1])
        for pixel0 in (1.0, 2.0, 4.0):
            places = found_at(reader, pixel0)
            assert len(places) >= 11 * 8
            nearest = [min(abs(x - at[0]) % 100, 100 - abs(x - at[0]) % 100) for x, _ in places]
            assert max(nearest) <= (0 if pixel0 == 1 else pixel0)
            corner = max(places)
            assert abs(corner[0] - last[0]) <= pixel0
            assert abs(corner[1] - last[1]) <= pixel0


Writer = Callable[[Path], Path]
JPEG = {"compression": "jpeg", "compressionargs": {"level": 98}, "subsampling": (1, 1)}


def pyramid(path: Path, shrinks: list[int], *, padded: bool = False, tile: int = 64, **options: object) -> Path:
    with tifffile.TiffWriter(path) as file:
        for number, shrink in enumerate(shrinks):
            level = crosses()
            for _ in range(shrink.bit_length() - 1):
                level = halved(level)
            if padded and number:
                bottom, right = (-side % tile for side in level.shape[:2])
                level = np.pad(level, ((0, bottom), (0, right), (0, 0)))
            file.write(level, photometric="rgb", tile=(tile, tile), metadata=None, subfiletype=1 if number else 0,
                       **options)  # fmt: skip
    return path


@pytest.mark.parametrize("options", [JPEG, {"compression": "adobe_deflate"}, {}], ids=["jpeg", "deflate", "raw"])
@pytest.mark.parametrize(
    ("shrinks", "padded"),
    [([1], False), ([1, 2, 4], False), ([1, 2, 4, 8], True), ([1, 4], False), ([1, 4], True), ([1, 8], False)],
    ids=["one level", "halves", "padded", "missing level", "padded and missing level", "two missing levels"],
)
def test_squares_lie_where_they_belong(
    tmp_path: Path, shrinks: list[int], padded: bool, options: dict[str, object]
) -> None:
    check(pyramid(tmp_path / "slide.tif", shrinks, padded=padded, **options))


def test_a_level_of_no_whole_ratio_moves_nothing(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "slide.tif"
    small = np.asarray(Image.fromarray(crosses()).resize((606, 462), Image.Resampling.BOX))  # 1 : 1.6667
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate((crosses(), small)):
            file.write(level, photometric="rgb", tile=(64, 64), metadata=None, subfiletype=1 if number else 0, **JPEG)
    check(path)


def test_the_area_of_a_scan_lies_at_its_offset(tmp_path: Path) -> None:
    """Leica: the collection is larger than what was scanned, and its coordinates count."""
    picture = crosses()[:560, :640]
    path = vendor_files.write_scn(tmp_path / "slide.scn", picture)
    with open_slide(path) as reader:
        assert (reader.properties.bounds_x0, reader.properties.bounds_y0) == (100, 80)
        for pixel0 in (1.0, 2.0):
            places = found_at(reader, pixel0)
            assert (100.0, 80.0) in places
            assert all(x % 100 == 0 and (y - 80) % 100 == 0 for x, y in places)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [JPEG, {"compression": "adobe_deflate"}], ids=["jpeg", "deflate"])
def test_a_turned_picture_is_read_upright(tmp_path: Path, orientation: int, options: dict[str, object]) -> None:
    """Stored in each of the eight ways, seen the same."""
    upright = crosses()
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1], 7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]  # fmt: skip
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.ascontiguousarray(stored), photometric="rgb", tile=(64, 64), metadata=None,
                     extratags=[(274, 3, 1, orientation, True)], **options)  # fmt: skip
    with open_slide(path) as reader:
        assert (reader.properties.width, reader.properties.height) == (WIDTH, HEIGHT)
        seen = reader.read_region(0, 0, 0, WIDTH, HEIGHT)
        assert np.abs(seen.astype(int) - upright).mean() < 2
    check(path)


def test_pixels_of_two_sizes_give_square_ones(tmp_path: Path) -> None:
    """0.5 um across, 0.25 down: read at 1 um, the squares of 10 x 10 are 5 x 2.5 and lie at every 50 and 25."""
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, crosses(), photometric="rgb", tile=(64, 64), metadata=None,
                     resolution=(20000, 40000), resolutionunit="CENTIMETER", **JPEG)  # fmt: skip
    with open_slide(path) as reader:
        assert reader.scale == pytest.approx((0.5, 0.25))
        rgb = reader.read_at_mpp(0, 0, WIDTH // 2, HEIGHT // 4, 1.0).rgb
    dark = rgb.max(axis=2) < 110
    assert dark[0:2, 0:5].all()
    assert dark[25:27, 50:55].all()
    assert dark[175:177, 500:505].all()
    assert dark.mean() == pytest.approx(5 * 2.5 / (50 * 25), rel=0.3)
