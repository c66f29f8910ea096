"""What a patch may look like and still be the same patch."""

import numpy as np
from numpy.typing import NDArray

from analysis.detector.training.augmentation import jitter_stain
from tests.analysis.detector.conftest import scanned, tissue_like


def density(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n, h, w, 3) -> (n, 3) mean optical density of each colour."""
    return -np.log((rgb.astype(float) + 1) / 256).mean(axis=(1, 2))


def hues(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n,) blue for one of green: what tells a scanner."""
    found = density(rgb)
    return found[:, 2] / found[:, 1]


def test_mixed_colours_reach_the_hue_of_another_scanner_and_stains_alone_do_not() -> None:
    brown = np.stack([scanned(tissue_like(48, 48, seed=i), "brown") for i in range(200)])
    other = np.quantile(hues(np.stack([scanned(tissue_like(48, 48, seed=i), "purple") for i in range(50)])), 0.9)
    alone, mixed = (
        hues(jitter_stain(brown, strength=0.15, mixing=mixing, rng=np.random.default_rng(1))) for mixing in (0.0, 0.15)
    )
    assert (alone < other).mean() < 0.05
    assert 0.05 < (mixed < other).mean() < 0.5
    assert mixed.std() > 1.5 * alone.std()


def test_without_mixing_nothing_more_is_drawn() -> None:
    """A training of an earlier version, whose configuration does not name it, has the same batches."""
    rgb = np.stack([tissue_like(32, 32, seed=i) for i in range(4)])
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    once = jitter_stain(rgb, strength=0.2, rng=first)
    assert np.array_equal(once, jitter_stain(rgb, strength=0.2, mixing=0.0, rng=second))
    assert first.random() == second.random()


def test_what_is_white_stays_nearly_so() -> None:
    white = np.full((20, 16, 16, 3), 250, np.uint8)
    out = jitter_stain(white, strength=0.15, mixing=0.15, rng=np.random.default_rng(0))
    assert out.mean() > 235
