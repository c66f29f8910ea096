"""The eight turns and flips of a square, and in which order a candidate is seen so."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

WAYS = (0, 6, 1, 2, 3, 4, 5, 7)
"""Ways up (quarter turns, from 4 on of the mirror image) in the order in which they are looked at, where not all are."""


def turn(array: NDArray[np.generic], which: int) -> NDArray[np.generic]:
    """One of the eight turns and flips of the square (0 = none) on the first two axes."""
    out = np.rot90(array, which % 4, axes=(0, 1))
    return out[:, ::-1] if which >= 4 else out


def turn_back(array: NDArray[Any], which: int) -> NDArray[Any]:
    """What `turn` made `array` of."""
    return np.rot90(array[:, ::-1] if which >= 4 else array, -(which % 4), axes=(0, 1))
