import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slides.wsi.geometry import Level, content_size, true_downsample


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ((49152, 110592), 2.0),
        ((24576, 55296), 4.0),
        ((12288, 27648), 8.0),
        ((6144, 13824), 16.0),
        ((3072, 7168), 32.0),
        ((1536, 3584), 64.0),
        ((1024, 2048), 128.0),
    ],
)
def test_levels_padded_to_whole_tiles_get_their_true_ratio(level: tuple[int, int], expected: float) -> None:
    full = (97792, 221184)
    assert true_downsample(full=full, level=level, tile=(512, 512)) == expected


def test_a_width_ratio_of_57_is_64_when_padding_explains_it() -> None:
    full = (94003, 117504)
    level = (math.ceil(94003 / 64 / 512) * 512, math.ceil(117504 / 64 / 512) * 512)
    assert full[0] / level[0] < 62
    assert true_downsample(full=full, level=level, tile=(512, 512)) == 64.0


def test_partial_last_tiles_do_not_bend_the_ratio() -> None:
    assert true_downsample(full=(46000, 32914), level=(2875, 2057)) == 16.0
    assert true_downsample(full=(4443, 3567), level=(2221, 1783)) == 2.0


def test_a_level_of_one_padded_tile_is_coarser_than_the_one_before() -> None:
    level = {"full": (3000, 3000), "level": (256, 256), "tile": (256, 256)}
    assert true_downsample(**level, finer=8.0) == 16.0
    assert true_downsample(**level, finer=16.0) == 32.0


def test_an_uncommon_ratio_is_kept() -> None:
    assert true_downsample(full=(9000, 6000), level=(3000, 2000)) == 3.0
    assert true_downsample(full=(10000, 10000), level=(7000, 7000)) == pytest.approx(1.4286, abs=1e-3)


@given(
    width=st.integers(17_000, 200_000),
    height=st.integers(17_000, 200_000),
    power=st.integers(0, 5),
    rounding=st.sampled_from(["floor", "ceil", "padded"]),
)
def test_any_way_to_round_a_halved_level_gives_its_power_of_two(
    width: int, height: int, power: int, rounding: str
) -> None:
    ratio, tile = 2**power, 256
    sizes = {
        "floor": (width // ratio, height // ratio),
        "ceil": (-(-width // ratio), -(-height // ratio)),
        "padded": (-(-width // ratio // tile) * tile, -(-height // ratio // tile) * tile),
    }
    assert true_downsample(full=(width, height), level=sizes[rounding], tile=(tile, tile)) == ratio


def test_content_leaves_the_padding_out() -> None:
    assert content_size(full=(1000, 700), level=(512, 512), downsample=2.0) == (500, 350)
    assert Level(0, 500, 350, 2.0, 256, 256).cols == 2
