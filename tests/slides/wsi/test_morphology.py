"""Masks are made wider exactly as scipy does it."""

import numpy as np
import pytest
from scipy import ndimage as ndi

from slides.wsi.morphology import diamond, disc, grown, square

SHAPES = [
    (1, 1),
    (1, 40),
    (40, 1),
    (3, 5),
    (37, 61),
    (9, 64),
    (9, 65),
    (12, 200),
]  # about one word of 64 cells, and more


def masks(shape: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    some = [rng.random(shape) < share for share in (0.0, 0.01, 0.2, 1.0)]
    corners = np.zeros(shape, bool)
    corners[0, 0] = corners[-1, -1] = True
    return [*some, corners]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [1, 2, 3, 7, 8, 25, 60, 130])
def test_a_disc_is_what_lies_within_its_radius(shape: tuple[int, int], radius: int) -> None:
    for mask in masks(shape):
        # a row of glass more than the radius away, so that an empty mask has a distance, too
        around = np.pad(mask, radius + 1)
        near = (ndi.distance_transform_edt(~around) <= radius)[radius + 1 : -radius - 1, radius + 1 : -radius - 1]
        assert np.array_equal(grown(mask, disc(radius)), near if mask.any() else mask)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [1, 2, 4, 9, 50])
def test_squares_and_diamonds_are_dilations_repeated(shape: tuple[int, int], reach: int) -> None:
    for mask in masks(shape):
        assert np.array_equal(grown(mask, square(reach)), ndi.binary_dilation(mask, np.ones((3, 3)), reach))
        assert np.array_equal(grown(mask, diamond(reach)), ndi.binary_dilation(mask, iterations=reach))


def test_the_mask_that_is_given_stays_as_it_is() -> None:
    mask = masks((37, 61))[2]
    before = mask.copy()
    grown(mask, disc(5))
    assert np.array_equal(mask, before)


def test_nothing_is_gained_by_a_reach_of_nothing() -> None:
    mask = masks((37, 61))[2]
    assert np.array_equal(grown(mask, [0]), mask)


def test_a_mask_without_cells_stays_empty() -> None:
    for shape in ((0, 5), (5, 0)):
        assert grown(np.zeros(shape, bool), disc(3)).shape == shape
