"""How fast a slide becomes viewable, and how fast the detector reads it, against `vips tiffsave` and OpenSlide in the same run.

    python benchmarks/ingest.py [--slide FILE] [--side 12000]

Without --slide a tiled JPEG pyramid is made from the tissue-like picture of the tests. CPU seconds of this process and its children;
ratios over 1 mean faster than the peer. Run it on a quiet machine.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as in the child; must be set before NumPy is loaded

import numpy as np
import openslide
import pyvips
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slides.wsi import sandbox, tiff_walk
from slides.wsi.convert import plan_pyramid, write_pyramid
from slides.wsi.reader import open_slide
from slides.wsi.tiff_pyramid import levels_of
from slides.wsi.tile_index import index_tiles


def cpu_and_wall(act: Callable[[], object]) -> tuple[float, float]:
    def used() -> float:
        return sum(
            u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )

    cpu, wall = used(), time.monotonic()
    act()
    return used() - cpu, time.monotonic() - wall


def made_slide(path: Path, side: int) -> Path:
    """Level 0 as 256-pixel JPEG tiles with factor-2 levels, from noisy pink blobs on white (a third of it tissue)."""
    random = np.random.default_rng(7)
    patch = random.normal(0, 14, (1024, 1024, 3))
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    tissue = ((x - 0.35) ** 2 + (y - 0.4) ** 2 < 0.06) | ((x - 0.75) ** 2 + (y - 0.7) ** 2 < 0.03)
    repeat = -(-side // 1024)
    noise = np.tile(patch, (repeat, repeat, 1))[:side, :side].astype(np.int16)
    rgb = np.where(tissue[..., None], np.array([190, 110, 165], np.int16) + noise, np.array([243, 242, 244], np.int16))
    image = pyvips.Image.new_from_array(rgb.clip(0, 255).astype(np.uint8))
    image.tiffsave(str(path), compression="jpeg", Q=80, tile=True, tile_width=256, tile_height=256, pyramid=True,
                   xres=4000, yres=4000, resunit="cm")  # fmt: skip
    return path


def report(name: str, ours: tuple[float, float], peer: tuple[float, float] | None = None, note: str = "") -> None:
    ratio = f"{peer[0] / ours[0]:6.2f} x" if peer else " " * 8
    print(f"{name:44} {ours[0]:8.2f} CPU s {ours[1]:8.2f} s  {ratio}  {note}")


def index_time(slide: Path) -> None:
    def act() -> None:
        descriptor = os.open(slide, os.O_RDONLY)
        index_tiles(descriptor, levels_of(tiff_walk.walk(slide)), file=0)
        os.close(descriptor)

    tiles = sum(level.level.cols * level.level.rows for level in levels_of(tiff_walk.walk(slide)))
    report("walk and index all tiles", cpu_and_wall(act), note=f"{tiles:,} tiles")


def pyramid_time(slide: Path, work: Path) -> None:
    """The same pixels through both, one after the other, twice; the better of each."""

    def ours() -> None:
        with open_slide(slide) as reader:
            write_pyramid(reader.source, plan_pyramid(reader.source.levels[:1], 1), work / "ours.tif")

    def peer() -> None:
        image = pyvips.Image.new_from_file(str(slide), access="sequential")
        image.tiffsave(str(work / "peer.tif"), compression="jpeg", Q=85, tile=True, tile_width=512, tile_height=512,
                       pyramid=True, bigtiff=True)  # fmt: skip

    mine, theirs = (min(cpu_and_wall(act) for _ in range(2)) for act in (ours, peer))
    sizes = [(work / name).stat().st_size / 2**20 for name in ("ours.tif", "peer.tif")]
    report(
        "convert to a pyramid",
        mine,
        theirs,
        f"peer vips tiffsave {theirs[0]:.2f} CPU s; {sizes[0]:.0f} and {sizes[1]:.0f} MiB",
    )


def prepare_time(slide: Path, work: Path) -> None:
    folders = work / "store", work / "associated"
    for folder in folders:
        folder.mkdir()
    kinds: list[str] = []
    spent = cpu_and_wall(lambda: kinds.append(sandbox.prepare(slide, folders[0], associated_dir=folders[1]).store.kind))
    report("prepare in the sandbox, all of it", spent, note=kinds[0])


def start_time(slide: Path) -> None:
    """What every preparation and detection pays once."""

    def act() -> None:
        with sandbox.open_pixels(slide):
            pass

    report("start of a child that reads pixels", cpu_and_wall(act))


def read_time(slide: Path, mpp: float) -> None:
    """Every window of 1024 pixels of the slide at 2 um, from our reader and by OpenSlide from the level nearest to it."""
    with tifffile.TiffFile(slide) as file:
        height, width = file.pages[0].shape[:2]
    step = 1024 * 2.0 / mpp
    windows = [(x, y) for y in np.arange(0, height, step) for x in np.arange(0, width, step)]
    mm2 = width * height * (mpp / 1000) ** 2
    passes = 10

    def ours() -> None:
        for _ in range(passes):  # opened anew, so that nothing is in a cache
            with open_slide(slide, mpp_override=(mpp, mpp)) as reader:
                for x, y in windows:
                    reader.read_at_mpp(x, y, 1024, 1024, 2.0)

    def peer() -> None:
        for _ in range(passes):
            with openslide.OpenSlide(slide) as opened:
                level = opened.get_best_level_for_downsample(2.0 / mpp * 1.005)
                size = round(step / opened.level_downsamples[level])
                for x, y in windows:
                    np.asarray(opened.read_region((int(x), int(y)), level, (size, size)).convert("RGB"))

    mine, theirs = cpu_and_wall(ours), cpu_and_wall(peer)
    report(f"read all at 2 um, {passes} times", mine, theirs, f"{passes * mm2 / mine[0]:.0f} mm2 per CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--side", type=int, default=12000)
    parser.add_argument("--mpp", type=float, default=0.25)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        slide = arguments.slide or made_slide(work / "made.tif", arguments.side)
        with tifffile.TiffFile(slide) as file:
            print(
                f"{slide.name}: {file.pages[0].shape[1]} x {file.pages[0].shape[0]}, {slide.stat().st_size / 2**20:.0f} MiB"
            )
        index_time(slide)
        prepare_time(slide, work)
        pyramid_time(slide, work)
        start_time(slide)
        read_time(slide, arguments.mpp)


if __name__ == "__main__":
    main()
