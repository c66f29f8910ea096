"""How far a trained network looks: `python -m analysis.detector.influence SLIDE [--model FOLDER] [--mpp 1.0]`.

A window is computed whole and with two sides cut off; the distance from the cut beyond which the dense map no longer
differs by more than a tolerance is the margin that windows of this network need (`read.margin_px`, and with a coarser
tolerance at the scanning spacing `read.scan_margin_px`). It is shorter than the receptive field, whose rim weighs
nothing, and differs from one trained network to the next.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.detector.card import ModelRefused, default_model_folder
from analysis.detector.engine import Engine, open_engine
from analysis.detector.pixel_source import PixelSource
from analysis.detector.reading_plan import MAP_MPP, SIZE_ALIGN_PX
from analysis.detector.weights import load_model
from slides.wsi.errors import SlideRefused, WsiError
from slides.wsi.tissue import tissue_mask

TOLERANCE = 1e-3
SCAN_TOLERANCE = 0.02
FURTHEST_PX = 512


def differences(engine: Engine, field: NDArray[np.uint8], *, cut_px: int = 128) -> NDArray[np.float32]:
    """field (side, side, 3), side at least 2 FURTHEST_PX + cut_px and a multiple of 64.

    Returns for each distance from the cut, in steps of SIZE_ALIGN_PX from 0, the largest difference in probability that
    the cut makes at this distance or further in.
    """
    whole = engine.read(field[None]).probability[0]
    part = engine.read(np.ascontiguousarray(field[None, cut_px:, cut_px:])).probability[0]
    # the far sides are the same in both: their own edges do not differ
    stride = engine.dense_stride
    difference = np.abs(whole[cut_px // stride :, cut_px // stride :] - part)
    steps = range(0, FURTHEST_PX // stride + 1, SIZE_ALIGN_PX // stride)
    return np.array([difference[n:, n:].max() for n in steps], np.float32)


def margin_for(worst: NDArray[np.float32], tolerance: float) -> int:
    """`worst` as of `differences`, the largest of several fields. Raises ValueError when the network looks further."""
    near = np.flatnonzero(worst <= tolerance)
    if not len(near):
        raise ValueError(
            f"this network looks further than {FURTHEST_PX} px: its scores depend on where a window is cut"
        )
    return int(near[0]) * SIZE_ALIGN_PX


def fields_of(source: PixelSource, *, mpp: float, count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Places on tissue, drawn at random."""
    assert source.mpp_x
    assert source.mpp_y
    side = 2 * FURTHEST_PX + 128
    tissue = tissue_mask(source.thumbnail_at_mpp(MAP_MPP).rgb, MAP_MPP)
    rows, cols = np.nonzero(tissue)
    if not len(rows):
        raise ValueError("no tissue was found on this slide")
    picked = np.random.default_rng(seed).integers(0, len(rows), count)
    half = side * mpp / 2
    places = [((cols[i] + 0.5) * MAP_MPP - half, (rows[i] + 0.5) * MAP_MPP - half) for i in picked]
    return [source.read_at_mpp(x / source.mpp_x, y / source.mpp_y, side, side, mpp).rgb for x, y in places]


def main(arguments: list[str] | None = None) -> int:
    from slides.wsi.sandbox import open_pixels  # starts a child process

    parser = argparse.ArgumentParser(prog="python -m analysis.detector.influence", description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path, metavar="SLIDE")
    parser.add_argument("--model", type=Path, help="folder of a model version (default: the shipped one)")
    parser.add_argument("--mpp", type=float, default=1.0)
    parser.add_argument("--scan", action="store_true", help="the network that scans for `fast`; with --mpp 2.0")
    parser.add_argument("--fields", type=int, default=24)
    options = parser.parse_args(arguments)
    try:
        engine = open_engine(load_model(options.model or default_model_folder()))
        engine = engine.scanner if options.scan else engine
        with open_pixels(options.slide) as source:
            fields = fields_of(source, mpp=options.mpp, count=options.fields)
        worst = np.max([differences(engine, field) for field in fields], axis=0)
        found = {
            "fields": len(fields),
            "mpp": options.mpp,
            "largest_difference": {n * SIZE_ALIGN_PX: round(float(d), 6) for n, d in enumerate(worst)},
            "margin_px": margin_for(worst, TOLERANCE),
            "scan_margin_px": margin_for(worst, SCAN_TOLERANCE),
        }
    except (ModelRefused, SlideRefused, WsiError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
