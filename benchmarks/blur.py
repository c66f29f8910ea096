"""How sharp tissue is, and what blur leaves of it: where the limits of `slides/wsi/focus.py` come from.

python benchmarks/blur.py [--patches 500] prints the mean square of the Laplacian (as focus.py takes it) of CAMELYON16
patches that hold tissue, at 1.0 and 2.0 um/px, as they are and blurred by some um (sigma), and which share of them lies
below the limit there. The patches are those of the reference data folder.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from analysis.detector.patch_file import PatchFileError, load_patches  # noqa: E402
from analysis.detector.reference_data import ReferenceDataMissing, reference_data_folder  # noqa: E402
from analysis.detector.training.augmentation import rescale  # noqa: E402
from slides.wsi.focus import STAINED_GREEN, cell_sharpness, floor_at  # noqa: E402

PATCH_MPP = 0.97
SPACINGS_UM = (1.0, 2.0)
SIGMAS_UM = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
LEAST_STAINED = 0.5
SEED = 0


def stained_patches(count: int) -> NDArray[np.uint8]:
    """(n, 96, 96, 3): drawn among the patches of which at least half is stained tissue."""
    patches = load_patches(reference_data_folder("") / "pcam_patches.npz")
    stained = (patches.rgb[..., 1] < STAINED_GREEN).mean(axis=(1, 2)) >= LEAST_STAINED
    chosen = np.random.default_rng(SEED).permutation(np.flatnonzero(stained))[:count]
    rgb: NDArray[np.uint8] = patches.rgb[np.sort(chosen)]
    return rgb


def sharpness(rgb: NDArray[np.uint8], *, mpp: float, sigma_um: float) -> NDArray[np.float32]:
    """Mean square of the Laplacian of each patch (n,), without its rim."""
    px = sigma_um / PATCH_MPP
    blurred = np.stack([gaussian_filter(one, (px, px, 0)) for one in rgb]) if px else rgb
    side = round(rgb.shape[1] * PATCH_MPP / mpp / 8) * 8
    read = rescale(blurred, factor=PATCH_MPP / mpp, side=side)
    cell = 8
    return np.array([(cell_sharpness(one, cell)[1:-1, 1:-1] ** 2).mean() for one in read], np.float32)


def measure(count: int) -> list[dict[str, Any]]:
    rgb = stained_patches(count)
    rows = []
    for mpp in SPACINGS_UM:
        for sigma in SIGMAS_UM:
            values = sharpness(rgb, mpp=mpp, sigma_um=sigma)
            low, middle, high = (round(float(v)) for v in np.percentile(values, [5, 50, 95]))
            below = round(float((values < floor_at(mpp)).mean()), 3)
            rows.append(
                {
                    "mpp": mpp,
                    "sigma_um": sigma,
                    "n": len(rgb),
                    "p5": low,
                    "p50": middle,
                    "p95": high,
                    "below_floor": below,
                }
            )
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        rows = measure(options.patches)
    except (ReferenceDataMissing, PatchFileError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    names = list(rows[0])
    print(" | ".join(names))
    for row in rows:
        print(" | ".join(str(row[name]) for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
