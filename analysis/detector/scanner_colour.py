"""Which scanner a patch comes from, by the colour of its tissue.

The column `stain` of a patch file may have been found from the darkest pixels, which pale tissue does not have: of the
patches called brown in the CAMELYON16 set one in ten, mostly fat and connective tissue, has the magenta of the other
scanner. A training on one scanner then lacks its fat, and is judged on fat of that very scanner as if it were the other's.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.detector.patch_file import PatchSet

TISSUE_DENSITY = 0.1
"""Least optical density in green, above that of the glass, of a pixel that is tissue."""
INK = 40
"""What is darker than this in all colours is ink or a fold."""
GLASS = 200
"""Mean of a patch's brightest pixels from which on they are glass."""
NO_GLASS = np.array([240.0, 240.0, 240.0], np.float32)
APART = 3.0
"""Median deviations between the middles of two stains from which on colour tells them apart."""
LEAST_TISSUE = 0.01
"""Share of the pixels below which a patch says nothing of its colour."""


def told_by_colour(patches: PatchSet) -> PatchSet:
    """The same patches, each with the stain whose colour it has."""
    return replace(patches, stain=scanners_by_colour(patches))


def scanners_by_colour(patches: PatchSet) -> NDArray[np.str_]:
    """(n,) for each patch the stain whose patches have its colour, by the medians of those that are called so.

    A patch nearly without tissue keeps the stain that it came with; so do all where there is one stain alone, or where
    their colours do not differ.
    """
    named = np.unique(patches.stain)
    if len(named) < 2:
        return patches.stain.copy()
    hue = np.array([hue_of(rgb) for rgb in patches.rgb])
    clear = ~np.isnan(hue)
    known = [name for name in named if (clear & (patches.stain == name)).any()]
    if len(known) < 2:
        return patches.stain.copy()
    middle = np.array([np.median(hue[clear & (patches.stain == name)]) for name in known])
    distance = np.abs(hue[:, None] - middle)
    deviation = np.median(distance[clear, [known.index(name) for name in patches.stain[clear]]])
    if np.diff(np.sort(middle)).min() < APART * deviation:
        return patches.stain.copy()
    nearest = np.array(known)[np.where(clear[:, None], distance, 0).argmin(axis=1)]
    found: NDArray[np.str_] = np.where(clear, nearest, patches.stain)
    return found


def hue_of(rgb: NDArray[np.uint8]) -> float:
    """(h, w, 3) -> optical density of blue for one of green, over the tissue; NaN where there is hardly any.

    Red for one of green would say how much haematoxylin there is for the eosin: the kind of tissue, not the scanner.
    """
    pixels = rgb.reshape(-1, 3).astype(np.float32)
    brightness = pixels.mean(axis=1)
    brightest = pixels[brightness >= np.quantile(brightness, 0.99)].mean(axis=0)
    glass = brightest if brightest.mean() > GLASS else NO_GLASS
    density = np.log((glass + 1) / (pixels + 1)).clip(0)
    tissue = (density[:, 1] > TISSUE_DENSITY) & (pixels.max(axis=1) > INK)
    if tissue.mean() < LEAST_TISSUE:
        return float("nan")
    _, green, blue = density[tissue].sum(axis=0, dtype=np.float64)
    return float(blue / green)
