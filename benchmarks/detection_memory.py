"""Peak memory of detection on a very large slide: 100,000 x 200,000 px at 0.25 um/px.

    python benchmarks/detection_memory.py [--width 100000] [--height 200000] [--tissue-mm2 40] [--model M] [--engine E]
    python benchmarks/detection_memory.py --slide FILE ...        (such as those of detection_slides.py: more tissue, larger windows)

The slide is a BigTIFF whose tiles all point at one of PICTURES JPEGs of tissue-like noise or at one of glass: some megabytes on
disk, as many tiles as a real one. Each profile runs in a process of its own. What is printed is the highest sum of the resident sets of the
detecting process, of the decoder and of its warden, with the memory through which they share pixels counted once.
"""

import argparse
import itertools
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

LIMIT_MB = 1500
MPP = 0.25
TILE = 256
PICTURES = 1500
"""With far fewer the file would claim more than it can hold, and be refused."""
PROFILES = ("standard", "fast")
ENGINES = ("auto", "torch", "openvino", "openvino-int8")
"""As the detector's own, which this process does not import: what it needs would be counted."""
_LONG8, _SHORT, _LONG, _RATIONAL = 16, 3, 4, 5


# -- the slide -----------------------------------------------------------------------------------------------------------


def write_sparse_slide(path: Path, *, width: int, height: int, tissue_mm2: float) -> None:
    """Levels of factor 2 down to one tile; tissue in round pieces of about 10 mm2, spread over the whole glass."""
    pieces = max(1, round(tissue_mm2 / 10))
    radius = np.sqrt(tissue_mm2 / pieces / np.pi) * 1000 / MPP
    across = max(1, round(np.sqrt(pieces * width / height)))
    down = math.ceil(pieces / across)
    centres = [((n % across + 0.5) * width / across, (n // across + 0.5) * height / down) for n in range(pieces)]
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        tiles = [_put(file, jpeg) for jpeg in (_glass(), *_tissue())]
        link, side = 8, 1
        while True:
            level = (math.ceil(width / side), math.ceil(height / side))
            cols, rows = (math.ceil(n / TILE) for n in level)
            kind = _tissue_tiles(cols, rows, centres, radius / side, side)
            directory = _directory(file, *level, kind, tiles, mpp=MPP * side)
            file.seek(link)
            file.write(struct.pack("<Q", directory))
            file.seek(0, os.SEEK_END)
            link = file.tell() - 8
            if cols == rows == 1:
                return
            side *= 2


def _tissue_tiles(
    cols: int, rows: int, centres: list[tuple[float, float]], radius: float, side: int
) -> NDArray[np.int64]:
    """(rows, cols): 0 for glass; where the middle of a tile lies in a piece of tissue, the number of its picture."""
    y, x = np.mgrid[0:rows, 0:cols] * TILE + TILE / 2
    inside = [(x - cx / side) ** 2 + (y - cy / side) ** 2 <= radius**2 for cx, cy in centres]
    pictures = 1 + np.arange(rows * cols).reshape(rows, cols) % PICTURES
    return np.where(np.any(inside, axis=0), pictures, 0)


def _directory(
    file: Any, width: int, height: int, kind: NDArray[np.int64], tiles: list[tuple[int, int]], *, mpp: float
) -> int:
    """Writes arrays and directory; its last 8 bytes are the link to the next one. Returns its place."""
    places, sizes = (np.array(values, np.uint64)[kind.ravel()] for values in zip(*tiles, strict=True))
    count = len(places)
    inline = count == 1  # a single value stands in the entry itself
    place_of_offsets = int(places[0]) if inline else _put(file, places.tobytes())[0]
    place_of_sizes = int(sizes[0]) if inline else _put(file, sizes.tobytes())[0]
    bits = struct.unpack("<Q", struct.pack("<HHHH", 8, 8, 8, 0))[0]
    per_cm = struct.unpack("<Q", struct.pack("<II", round(10_000 / mpp * 1000), 1000))[0]
    entries = [
        (254, _LONG, 1, int(mpp != MPP)),
        (256, _LONG, 1, width),
        (257, _LONG, 1, height),
        (258, _SHORT, 3, bits),
        (259, _SHORT, 1, 7),
        (262, _SHORT, 1, 6),
        (277, _SHORT, 1, 3),
        (282, _RATIONAL, 1, per_cm),
        (283, _RATIONAL, 1, per_cm),
        (284, _SHORT, 1, 1),
        (296, _SHORT, 1, 3),
        (322, _LONG, 1, TILE),
        (323, _LONG, 1, TILE),
        (324, _LONG8, count, place_of_offsets),
        (325, _LONG8, count, place_of_sizes),
        (530, _SHORT, 2, struct.unpack("<Q", struct.pack("<HHHH", 2, 2, 0, 0))[0]),
    ]
    packed = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
    return _put(file, struct.pack("<Q", len(entries)) + packed + struct.pack("<Q", 0))[0]


def _put(file: Any, data: bytes) -> tuple[int, int]:
    file.seek(0, os.SEEK_END)
    place = file.tell()
    file.write(data)
    return place, len(data)


def _glass() -> bytes:
    return _jpeg(np.full((TILE, TILE, 3), 243, np.uint8))


def _tissue() -> Iterator[bytes]:
    noise = np.random.default_rng(0).normal(0, 22, (TILE, TILE, 3))
    rgb = np.clip(np.array([150, 90, 150]) + noise, 0, 255).astype(np.uint8)
    for number in range(PICTURES):
        yield _jpeg(np.roll(rgb, (number * 7, number * 13), axis=(0, 1)))


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    return bytes(simplejpeg.encode_jpeg(rgb, quality=80, colorspace="RGB", colorsubsampling="420"))


# -- its memory ----------------------------------------------------------------------------------------------------------


class Watch(threading.Thread):
    """The highest resident set of this process and all below it, looked at every 20 ms; memory they share counts once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self.at_peak: list[float] = []
        """Own memory of the detector, the decoder's warden and the decoder at that moment, then the shared one."""
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.02):
            sets = [resident_mb(pid) for pid in (os.getpid(), *descendants(os.getpid()))]
            seen = [*(own for own, _ in sets), max(shared for _, shared in sets)]
            if sum(seen) > self.peak_mb:
                self.peak_mb, self.at_peak = sum(seen), seen

    def stop(self) -> None:
        self._done.set()
        self.join()


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except OSError:  # it has just ended
            continue
        for child in children:
            yield child
            yield from descendants(child)


def resident_mb(pid: int) -> tuple[float, float]:
    """(own, shared) memory; nothing for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss")}
    return sizes.get("RssAnon", 0.0) + sizes.get("RssFile", 0.0), sizes.get("RssShmem", 0.0)


def detect_once(slide: Path, profile: str, model_folder: Path | None, engine_name: str) -> dict[str, Any]:
    from analysis.detector.card import default_model_folder
    from analysis.detector.engine import open_engine
    from analysis.detector.infer import detect
    from analysis.detector.weights import load_model
    from slides.wsi.sandbox import open_pixels

    model = load_model(model_folder or default_model_folder())
    before, _ = resident_mb(os.getpid())
    watch = Watch()
    watch.start()
    started, cpu = time.monotonic(), time.process_time()
    with open_pixels(slide) as source:
        engine = open_engine(model, engine_name)
        found = detect(source, model, profile=profile, engine=engine)
        size = [source.width, source.height]
    spent, cpu = time.monotonic() - started, time.process_time() - cpu
    watch.stop()
    return {
        "profile": profile,
        "engine": engine.name,
        "slide": slide.name,
        "slide_px": size,
        "tissue_mm2": round(found.tissue.mm2, 1),
        "status": found.status,
        "programs_mb": round(before),
        "at_peak_mb": [round(mb) for mb in watch.at_peak],
        "peak_mb": round(watch.peak_mb),
        "limit_mb": LIMIT_MB,
        "cpu_s": round(cpu, 1),
        "wall_s": round(spent, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=100_000)
    parser.add_argument("--height", type=int, default=200_000)
    parser.add_argument("--tissue-mm2", type=float, default=40.0)
    parser.add_argument("--slide", type=Path, action="append", default=[], help="instead of the sparse one")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    parser.add_argument("--profile", choices=PROFILES, action="append")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(detect_once(options.one, options.profile[0], options.model, options.engine)))
        return 0
    within = True
    with tempfile.TemporaryDirectory() as folder:
        slides = options.slide or [Path(folder) / "sparse.tif"]
        if not options.slide:
            write_sparse_slide(slides[0], width=options.width, height=options.height, tissue_mm2=options.tissue_mm2)
        for slide, profile in itertools.product(slides, options.profile or PROFILES):
            call = [sys.executable, __file__, "--one", str(slide), "--profile", profile, "--engine", options.engine]
            call += ["--model", str(options.model)] if options.model else []
            answer = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(answer.splitlines()[-1])
            within = within and found["peak_mb"] <= LIMIT_MB
            print(json.dumps(found, indent=1), flush=True)
    print("within the limit" if within else f"ABOVE the limit of {LIMIT_MB} MB")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
