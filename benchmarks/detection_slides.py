"""Slides for benchmarks/detection.py: real tissue, composed as the product's composer does, at the spacing of a 40x scan.

    python benchmarks/detection_slides.py FOLDER

`node`: about a third of a common node section; `node-on-more-glass`: the same pixels on more than twice the glass;
`section`: 59 mm2 of tissue; `whole-section`: 87 mm2 or more, as much as the slides have that experts were timed on. All at
0.2425 um/px. The patches that the tissue is made of lie at 0.97 um/px: the two finer levels are interpolated from it. Their
JPEG tiles are smaller than a scanner's, so that whoever reads level 0 (the patch pipelines) decodes a little faster than on
a scan; the texture from 0.97 um/px on is real.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from analysis.detector.compose import PATCH_MPP  # noqa: E402
from analysis.detector.composing.composed_slide import SlidePlan, compose_slide  # noqa: E402
from analysis.detector.composing.outlines import load_outlines  # noqa: E402
from analysis.detector.composing.sheets import SheetTissue  # noqa: E402
from analysis.detector.composing.slide_file import TILE_PX  # noqa: E402
from analysis.detector.composing.splits import OUTLINES_OF, load_split, tissue_of  # noqa: E402
from analysis.detector.composing.tissue_pool import GLASS_RGB  # noqa: E402
from analysis.detector.reference_data import reference_data_folder  # noqa: E402

ENLARGED = 4
MPP = PATCH_MPP / ENLARGED
STAIN = "purple"
DESCRIPTION = "metadet composed slide for timing; levels finer than 0.97 um/px are interpolated"


@dataclass(frozen=True)
class TimedSlide:
    """Size in px of PATCH_MPP; `glass` px of it are added on the right and below."""

    name: str
    width: int
    height: int
    nodes: int
    lesions: tuple[str, ...]
    seed: int
    glass: tuple[int, int] = (0, 0)


SLIDES = (
    TimedSlide("node", 10_496, 7_936, 3, ("macro", "micro", "itc"), 1),
    TimedSlide("node-on-more-glass", 10_496, 7_936, 3, ("macro", "micro", "itc"), 1, (5_120, 4_096)),
    TimedSlide("section", 14_848, 12_544, 3, ("macro", "micro", "itc"), 2),
    TimedSlide("whole-section", 19_072, 16_256, 3, ("macro", "micro", "itc"), 3),
)


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.tif"


def compose_timed(folder: Path, *, say: Callable[[str], None]) -> None:
    """Write those of SLIDES that are not there. Raises ReferenceDataMissing, NoRoom."""
    missing = [slide for slide in SLIDES if not path_of(folder, slide.name).is_file()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = reference_data_folder()
    tissue = SheetTissue(tissue_of(load_split(data, "test"), stain=STAIN, widen=True).patches, seed=(7,))
    outlines = load_outlines(data / "camelyon16_lesion_polygons.npz", split=OUTLINES_OF["test"])
    for slide in missing:
        plan = SlidePlan(slide.width, slide.height, slide.nodes, slide.lesions, PATCH_MPP)
        composed = compose_slide(plan, tissue=tissue, outlines=outlines, rng=np.random.default_rng(slide.seed))
        write_enlarged(path_of(folder, slide.name), composed.rgb, glass=slide.glass)
        size = [(n + more) * ENLARGED for n, more in zip((slide.width, slide.height), slide.glass, strict=True)]
        say(f"{slide.name}: {size[0]:,} x {size[1]:,} px, {composed.tags.area_mm2('tissue'):.1f} mm2 composed")


def write_enlarged(path: Path, rgb: np.ndarray, *, glass: tuple[int, int]) -> None:
    """rgb (H, W, 3) at PATCH_MPP, as a pyramid at MPP; streamed, so that level 0 is never in memory."""
    height, width, _ = rgb.shape
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(rgb).data, width, height, 3, "uchar")
    image = image.embed(0, 0, width + glass[0], height + glass[1], extend="background", background=list(GLASS_RGB))
    image = image.resize(ENLARGED, kernel="linear").copy(interpretation="srgb", xres=1000 / MPP, yres=1000 / MPP)
    image.set_type(pyvips.GValue.gstr_type, "image-description", DESCRIPTION)
    unfinished = path.with_suffix(".part.tif")
    image.tiffsave(str(unfinished), tile=True, tile_width=TILE_PX, tile_height=TILE_PX, pyramid=True, bigtiff=True,
                   compression="jpeg", Q=80, resunit="cm", depth="onetile")  # fmt: skip
    os.replace(unfinished, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    compose_timed(parser.parse_args().folder, say=print)
