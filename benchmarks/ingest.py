"""How fast a slide becomes viewable, and how fast the detector reads it, against `vips tiffsave` and OpenSlide in the same run.

    python benchmarks/ingest.py [--slide FILE] [--side 12000]
    python benchmarks/ingest.py --large 60000      first look, check of every tile, memory; no peers
    python benchmarks/ingest.py --large 100000 --one-level

Without --slide a tiled JPEG pyramid is made from the tissue-like picture of the tests. --large: the tiles are cut from the
demo slide, a third of them tissue, as Aperio lays them out (levels of 1, 4, 16); --one-level leaves the small levels out.
CPU seconds of this process and its children; ratios over 1 mean faster than the peer, in CPU time and in wall time.
Memory is the sum of the proportional set sizes of this process's children. Run it on a quiet machine.
"""

import argparse
import hashlib
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slides.wsi import sandbox

if any(os.environ.get(name) != value for name, value in sandbox.ENVIRONMENT.items()):
    # as in the child; the allocator and NumPy look at these when a process starts
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | sandbox.ENVIRONMENT)

import numpy as np
import openslide
import pyvips
import simplejpeg
import tifffile

from slides.wsi import tiff_walk
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


def real_tiles(random: np.random.Generator) -> tuple[list[bytes], list[bytes]]:
    """JPEG tiles of 256 px of the demo slide: with tissue, and of glass."""
    tissue: list[bytes] = []
    glass: list[bytes] = []
    with openslide.OpenSlide(Path(__file__).resolve().parents[1] / "demo" / "composed_node.tif") as slide:
        width, height = slide.dimensions
        while len(tissue) < 300 or len(glass) < 30:
            place = int(random.integers(0, width - 256)), int(random.integers(0, height - 256))
            rgb = np.ascontiguousarray(np.asarray(slide.read_region(place, 0, (256, 256)))[..., :3])
            kind = tissue if rgb[..., 1].mean() < 215 else glass
            kind.append(simplejpeg.encode_jpeg(rgb, quality=80, colorspace="RGB", colorsubsampling="420"))
    return tissue, glass


def large_slide(path: Path, side: int, *, downsamples: tuple[int, ...]) -> Path:
    """Tiles at random from the demo slide, tissue inside of two ellipses; the content of levels does not agree."""
    random = np.random.default_rng(7)
    tissue, glass = real_tiles(random)

    def tiles(count: int) -> Iterator[bytes]:
        for row in range(count):
            for col in range(count):
                x, y = col / count, row / count
                inside = (x - 0.35) ** 2 + (y - 0.4) ** 2 < 0.06 or (x - 0.75) ** 2 + (y - 0.7) ** 2 < 0.03
                kind = tissue if inside else glass
                yield kind[int(random.integers(len(kind)))]

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for downsample in downsamples:
            size = side // downsample
            file.write(
                tiles(-(-size // 256)), shape=(size, size, 3), dtype=np.uint8, tile=(256, 256), compression="jpeg",
                photometric="ycbcr", subsampling=(2, 2), metadata=None, subfiletype=int(downsample > 1),
                description=f"Aperio Image Library v12\r\n{side}x{side} (256x256) JPEG/YCC Q=80|AppMag = 40|MPP = 0.25",
            )  # fmt: skip
    return path


class Memory:
    """The most that this process's children held together, by their proportional set sizes, seen 20 times a second."""

    def __init__(self) -> None:
        self.most_mib = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            self.most_mib = max(self.most_mib, sum(map(pss_mib, descendants(os.getpid()))))

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def report(name: str, ours: tuple[float, float], peer: tuple[float, float] | None = None, note: str = "") -> None:
    ratio = f"{peer[0] / ours[0]:6.2f} x CPU {peer[1] / ours[1]:6.2f} x wall" if peer else " " * 25
    print(f"{name:44} {ours[0]:8.2f} CPU s {ours[1]:8.2f} s  {ratio}  {note}", flush=True)


def index_time(slide: Path) -> None:
    def act() -> None:
        descriptor = os.open(slide, os.O_RDONLY)
        index_tiles(descriptor, levels_of(tiff_walk.walk(slide)), file=0)
        os.close(descriptor)

    tiles = sum(level.level.cols * level.level.rows for level in levels_of(tiff_walk.walk(slide)))
    report("walk and index all tiles", cpu_and_wall(act), note=f"{tiles:,} tiles")


def stored_as(slide: Path, work: Path, compression: str) -> Path:
    """The same pixels in tiles that browsers do not show: what conversion is for."""
    path = work / f"{compression}.tif"
    pyvips.Image.new_from_file(str(slide)).tiffsave(
        str(path), compression=compression, tile=True, tile_width=256, tile_height=256, predictor="horizontal",
        xres=4000, yres=4000, resunit="cm",
    )  # fmt: skip
    return path


def pyramid_time(slide: Path, work: Path, *, name: str = "JPEG") -> None:
    """The same pixels through both, one after the other, three times; the best of each."""

    def ours() -> None:
        with open_slide(slide) as reader:
            write_pyramid(reader.source, plan_pyramid(reader.source.levels[:1], 1), work / "ours.tif")

    def peer() -> None:
        image = pyvips.Image.new_from_file(str(slide), access="sequential")
        image.tiffsave(str(work / "peer.tif"), compression="jpeg", Q=85, tile=True, tile_width=512, tile_height=512,
                       pyramid=True, bigtiff=True)  # fmt: skip

    runs = [(cpu_and_wall(ours), cpu_and_wall(peer)) for _ in range(3)]
    mine, theirs = ((min(run[who][0] for run in runs), min(run[who][1] for run in runs)) for who in (0, 1))
    with tifffile.TiffFile(slide) as file:
        megapixels = file.pages[0].shape[0] * file.pages[0].shape[1] / 1e6
    sizes = [(work / name).stat().st_size / 2**20 for name in ("ours.tif", "peer.tif")]
    report(
        f"convert {name} tiles to a pyramid",
        mine,
        theirs,
        f"{megapixels / mine[0]:.0f} Mpx per CPU s, {megapixels / mine[1]:.0f} Mpx/s; vips tiffsave "
        f"{megapixels / theirs[0]:.0f} and {megapixels / theirs[1]:.0f}; {sizes[0]:.0f} and {sizes[1]:.0f} MiB",
    )


def prepare_time(slide: Path, work: Path) -> None:
    folders = work / "store", work / "associated"
    for folder in folders:
        folder.mkdir()
    kinds: list[str] = []
    spent = cpu_and_wall(lambda: kinds.append(sandbox.prepare(slide, folders[0], associated_dir=folders[1]).store.kind))
    report("prepare in the sandbox, all of it", spent, note=kinds[0])


def _append_to(made: list[sandbox.PreparedSlide], act: Callable[[], sandbox.PreparedSlide]) -> None:
    made.append(act())


def large_times(slide: Path, work: Path) -> None:
    """As the two jobs of the product do it, without the database."""
    for name, options in (
        ("first look: the slide is viewable", {"first_look_above": 2**27}),
        ("check of every tile, overview levels, blur", {"in_background": True}),
    ):
        folders = work / "store", work / "associated"
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        made: list[sandbox.PreparedSlide] = []

        act = partial(sandbox.prepare, slide, folders[0], associated_dir=folders[1], **options)
        with Memory() as memory:
            spent = cpu_and_wall(partial(_append_to, made, act))
        size = sum(file.stat().st_size for file in folders[0].iterdir()) / 2**20
        report(
            name, spent, note=f"checked: {made[-1].checked}; {memory.most_mib:.0f} MiB of memory, {size:.0f} MiB stored"
        )
        if made[-1].checked:
            return


def hash_time(slide: Path) -> None:
    report("SHA-256 of the file (imports alone)", cpu_and_wall(lambda: hashlib.sha256(slide.read_bytes()).hexdigest()))


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
    parser.add_argument("--large", type=int, metavar="SIDE")
    parser.add_argument("--one-level", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if arguments.large:
            downsamples = (1,) if arguments.one_level else (1, 4, 16)
            slide = large_slide(work / "large.svs", arguments.large, downsamples=downsamples)
            print(
                f"{arguments.large} x {arguments.large}, levels {downsamples}, {slide.stat().st_size / 2**20:.0f} MiB"
            )
            hash_time(slide)
            index_time(slide)
            large_times(slide, work)
            return
        slide = arguments.slide or made_slide(work / "made.tif", arguments.side)
        with tifffile.TiffFile(slide) as file:
            print(
                f"{slide.name}: {file.pages[0].shape[1]} x {file.pages[0].shape[0]}, {slide.stat().st_size / 2**20:.0f} MiB"
            )
        index_time(slide)
        prepare_time(slide, work)
        pyramid_time(slide, work)
        for compression in ("deflate", "lzw"):
            pyramid_time(stored_as(slide, work, compression), work, name=compression)
        start_time(slide)
        read_time(slide, arguments.mpp)


if __name__ == "__main__":
    main()
