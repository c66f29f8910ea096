import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slides.wsi.geometry import Level
from slides.wsi.pixels import Pixels
from slides.wsi.resample import level_for, read_scaled

from .made_slides import tissue_picture

PICTURE = tissue_picture(300, 260)


class ArrayLevels:
    """A LevelSource over arrays."""

    def __init__(self, *arrays: np.ndarray, bad: tuple[slice, slice] | None = None) -> None:
        self.arrays = arrays
        self.bad = bad
        full = arrays[0].shape[1]
        self.levels = tuple(
            Level(index, array.shape[1], array.shape[0], round(full / array.shape[1]), 64, 64)
            for index, array in enumerate(arrays)
        )

    def read_level(self, level_index: int, x: int, y: int, width: int, height: int) -> Pixels:
        array = self.arrays[level_index]
        margin = 2000
        padded = np.pad(array, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
        failed = np.zeros(padded.shape[:2], bool)
        if self.bad:
            failed[margin:-margin, margin:-margin][self.bad] = True
        cut = np.s_[y + margin : y + margin + height, x + margin : x + margin + width]
        return Pixels(padded[cut].copy(), failed[cut].copy())

    def close(self) -> None: ...


def area_mean(array: np.ndarray, x0: float, y0: float, size: float) -> np.ndarray:
    """Mean over a square by counting a thousand points a side pixel: the slow truth."""
    steps = np.linspace(0, size, 401)[:-1] + size / 800
    cols, rows = np.floor(x0 + steps).astype(int), np.floor(y0 + steps).astype(int)
    return array[np.ix_(rows, cols)].astype(float).mean(axis=(0, 1))


def test_whole_pixels_pass_through_unchanged() -> None:
    pixels = read_scaled(ArrayLevels(PICTURE), x0=10, y0=20, width=50, height=40, pixel0_x=1, pixel0_y=1)
    assert np.array_equal(pixels.rgb, PICTURE[20:60, 10:60])


def test_an_even_ratio_is_the_mean_of_its_block() -> None:
    pixels = read_scaled(ArrayLevels(PICTURE), x0=8, y0=4, width=20, height=10, pixel0_x=4, pixel0_y=4)
    block = PICTURE[4:44, 8:88].reshape(10, 4, 20, 4, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(pixels.rgb - block).max() <= 0.51


@pytest.mark.parametrize("ratio", [1.0288, 1.5, 2.37, 4.1])
def test_an_odd_ratio_is_the_exact_area_mean(ratio: float) -> None:
    pixels = read_scaled(ArrayLevels(PICTURE), x0=12.3, y0=7.9, width=24, height=18, pixel0_x=ratio, pixel0_y=ratio)
    for row, col in ((0, 0), (5, 11), (17, 23)):
        truth = area_mean(PICTURE, 12.3 + col * ratio, 7.9 + row * ratio, ratio)
        assert np.abs(pixels.rgb[row, col] - truth).max() < 1.5


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 59), ratio=st.floats(0.6, 4.2))
def test_values_do_not_depend_on_where_a_region_is_cut(cut: int, ratio: float) -> None:
    source = ArrayLevels(PICTURE)
    whole = read_scaled(source, x0=0, y0=0, width=60, height=8, pixel0_x=ratio, pixel0_y=ratio)
    left = read_scaled(source, x0=0, y0=0, width=cut, height=8, pixel0_x=ratio, pixel0_y=ratio)
    right = read_scaled(source, x0=cut * ratio, y0=0, width=60 - cut, height=8, pixel0_x=ratio, pixel0_y=ratio)
    joined = np.concatenate([left.rgb, right.rgb], axis=1).astype(int)
    assert np.abs(joined - whole.rgb).max() <= 1


def test_no_value_of_a_large_region_falls_on_the_other_side_of_a_half() -> None:
    """Of a million noisy pixels some lie so near to a half that the grouping of a sum in 32 bits decides."""
    noise = np.random.default_rng(5).integers(0, 256, (1100, 1100, 3), dtype=np.uint8)
    source, ratio = ArrayLevels(noise), 1.0 / 0.97
    reads = []
    for shift in (0, 64, 192):
        start = -shift * ratio
        reads.append(
            read_scaled(
                source, x0=start, y0=start, width=1000 + shift, height=1000 + shift, pixel0_x=ratio, pixel0_y=ratio
            ).rgb[shift:, shift:]
        )
    assert np.array_equal(reads[0], reads[1])
    assert np.array_equal(reads[0], reads[2])


def test_the_nearest_finer_level_is_read() -> None:
    levels = [Level(i, 1000 >> 2 * i, 1000 >> 2 * i, float(4**i), 64, 64) for i in range(4)]
    assert level_for(levels, 8.0).index == 1
    assert level_for(levels, 16.0).index == 2
    assert level_for(levels, 15.98).index == 2  # rounding of mpp must not cost a sixteenfold read
    assert level_for(levels, 0.5).index == 0


def test_the_coordinate_is_that_of_level_0_at_every_level() -> None:
    half = PICTURE.reshape(130, 2, 150, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    fine = read_scaled(ArrayLevels(PICTURE), x0=40, y0=60, width=30, height=30, pixel0_x=2, pixel0_y=2)
    coarse = read_scaled(ArrayLevels(PICTURE, half), x0=40, y0=60, width=30, height=30, pixel0_x=2, pixel0_y=2)
    assert np.abs(fine.rgb.astype(int) - coarse.rgb).max() <= 1


@pytest.mark.parametrize("ratio", [1, 2, 2.5])
def test_a_pixel_is_failed_when_any_part_of_it_failed(ratio: float) -> None:
    source = ArrayLevels(PICTURE, bad=np.s_[40:41, 60:61])
    pixels = read_scaled(source, x0=0, y0=0, width=100, height=80, pixel0_x=ratio, pixel0_y=ratio)
    assert pixels.failed.sum() == 1
    assert pixels.failed[int(40 / ratio), int(60 / ratio)]


def test_outside_of_the_slide_is_white_and_not_failed() -> None:
    pixels = read_scaled(ArrayLevels(PICTURE), x0=-50, y0=-50, width=20, height=20, pixel0_x=2, pixel0_y=2)
    assert (pixels.rgb == 255).all()
    assert not pixels.failed.any()
