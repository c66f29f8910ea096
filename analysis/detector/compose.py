"""Compose annotated slides of real tissue: `python -m analysis.detector.compose FOLDER [--slides N] [--lesions macro,micro,itc]`.

Writes, as CAMELYON16 comes: NAME.tif (pyramid with scale), NAME.xml (ASAP outlines, for slides with lesions),
reference.csv; and NAME.json with where the tissue is from. Every figure measured on such slides is to be called
"composed": texture is real, anatomy is not.
"""

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.detector.annotations import write_asap
from analysis.detector.composing.composed_slide import LONGEST_UM, ComposedSlide, NoRoom, SlidePlan, compose_slide
from analysis.detector.composing.outlines import load_outlines
from analysis.detector.composing.slide_file import write_pyramid
from analysis.detector.composing.tissue_pool import PoolTooSmall, build_pools
from analysis.detector.patch_file import PatchFileError, load_patches
from analysis.detector.reference_data import ReferenceDataMissing, reference_data_folder

PATCH_MPP = 0.97
DESCRIPTION = "metdet composed node slide: real CAMELYON16 tissue (CC0) quilted under real lesion outlines; the anatomy is not real"
SOURCES = {
    "tissue": "CAMELYON16 challenge (Radboudumc, UMC Utrecht) through PatchCamelyon, CC0 1.0; Ehteshami Bejnordi et al., JAMA 2017",
    "outlines": "CAMELYON16 lesion outlines, CC0 1.0, as published in baidu-research/NCRF (Apache-2.0)",
}


@dataclass(frozen=True)
class Request:
    folder: Path
    slides: int
    normal: int
    lesions: tuple[str, ...]
    nodes: int
    width: int
    height: int
    fold: int
    outlines: str
    stain: str
    seed: int
    quality: int
    prefix: str


def compose_folder(request: Request, *, data: Path, say: object = print) -> list[Path]:
    """Raises NoRoom, PoolTooSmall. The same request gives the same slides."""
    patches = load_patches(data / "pcam_patches.npz")
    hard = load_patches(data / "pcam_hard_negatives.npz")
    if request.fold >= 0:
        patches, hard = patches.where(patches.fold == request.fold), hard.where(hard.fold == request.fold)
    outlines = load_outlines(data / "camelyon16_lesion_polygons.npz", split=request.outlines)
    stains = ["brown", "purple"] if request.stain == "both" else [request.stain]
    pools = [build_pools(patches, hard, stain=stain) for stain in stains]
    request.folder.mkdir(parents=True, exist_ok=True)
    rows, written = [], []
    for number in range(request.slides):
        rng = np.random.default_rng([request.seed, number])
        has_lesions = number >= request.normal
        plan = SlidePlan(
            request.width, request.height, request.nodes, request.lesions if has_lesions else (), PATCH_MPP
        )
        pool = pools[number % len(pools)]
        slide = compose_slide(plan, pools=pool, outlines=outlines, rng=rng)
        name = f"{request.prefix}_{number + 1:03d}"
        written.append(_write(request, slide, name, stain=pool.stain))
        rows.append(
            {
                "image": f"{name}.tif",
                "type": "tumor" if slide.lesions else "normal",
                "class": slide_class(slide),
                "center": pool.stain,
            }
        )
        if callable(say):
            say(
                f"{name}.tif: {', '.join(f'{le.size_class} {le.longest_mm:.2f} mm' for le in slide.lesions) or 'no lesion'}"
            )
    with (request.folder / "reference.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "type", "class", "center"])
        writer.writeheader()
        writer.writerows(rows)
    return written


def slide_class(slide: ComposedSlide) -> str:
    """The class of the largest lesion, or negative."""
    classes = {lesion.size_class for lesion in slide.lesions}
    return next((c for c in ("macro", "micro", "itc") if c in classes), "negative")


def _write(request: Request, slide: ComposedSlide, name: str, *, stain: str) -> Path:
    path = request.folder / f"{name}.tif"
    write_pyramid(path, slide.rgb, mpp=slide.mpp, description=DESCRIPTION, quality=request.quality)
    if slide.lesions:
        write_asap(request.folder / f"{name}.xml", [lesion.polygon for lesion in slide.lesions])
    note = {
        "composed": True,
        "sources": SOURCES,
        "seed": request.seed,
        "fold": request.fold,
        "outline_split": request.outlines,
        "stain": stain,
        "mpp": slide.mpp,
        "lesions": [
            {
                "size_class": lesion.size_class,
                "longest_diameter_mm": lesion.longest_mm,
                "bbox0": [round(v, 1) for v in lesion.polygon.bounds],
                "outline_from": lesion.source_outline,
            }
            for lesion in slide.lesions
        ],
    }
    (request.folder / f"{name}.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.detector.compose", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--slides", type=int, default=1)
    parser.add_argument("--normal", type=int, default=0, help="how many of them (the first ones) carry no lesion")
    parser.add_argument("--lesions", default="macro,micro,itc", help="classes of the lesions of each other slide")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--width", type=int, default=7168, help="px of 0.97 um")
    parser.add_argument("--height", type=int, default=5120)
    parser.add_argument(
        "--fold", type=int, default=4, help="use only patches of this fold (-1: all); 4 is never trained on"
    )
    parser.add_argument("--outlines", choices=("train", "valid"), default="valid")
    parser.add_argument("--stain", choices=("brown", "purple", "both"), default="both")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quality", type=int, default=80, help="JPEG")
    parser.add_argument("--prefix", default="composed")
    options = vars(parser.parse_args(arguments))
    options["lesions"] = tuple(word for word in options["lesions"].split(",") if word)
    unknown = set(options["lesions"]) - set(LONGEST_UM)
    if unknown or options["slides"] < 1 or options["nodes"] < 1 or min(options["width"], options["height"]) < 256:
        wrong = (
            f"unknown lesion class {sorted(unknown)[0]!r}"
            if unknown
            else "slides, nodes and canvas must be positive (256 px at least)"
        )
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    try:
        compose_folder(Request(**options), data=reference_data_folder())
    except (NoRoom, PoolTooSmall, PatchFileError, ReferenceDataMissing, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
