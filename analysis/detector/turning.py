"""The eight turns and flips of a square."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def turn(array: NDArray[np.generic], which: int) -> NDArray[np.generic]:
    """One of the eight turns and flips of the square (0 = none) on the first two axes."""
    out = np.rot90(array, which % 4, axes=(0, 1))
    return out[:, ::-1] if which >= 4 else out


def turn_back(array: NDArray[Any], which: int) -> NDArray[Any]:
    """What `turn` made `array` of."""
    return np.rot90(array[:, ::-1] if which >= 4 else array, -(which % 4), axes=(0, 1))
