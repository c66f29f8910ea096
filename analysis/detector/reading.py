"""Reading the tissue of one slide window by window: what the network says, on the whole-slide map.

Pixels come in plan order from the source, which decodes ahead; windows are computed side by side, each by one thread;
what they say is kept in plan order again. So the result does not depend on how many threads there are.
"""

import itertools
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.detector import drift, scan
from analysis.detector.block_store import Arrays, BlockStore
from analysis.detector.configuration import DetectorConfig
from analysis.detector.engine import Engine
from analysis.detector.pixel_source import PixelSource, Wanted
from analysis.detector.reading_plan import Grid, Window, plan_windows
from analysis.detector.side_by_side import side_by_side
from analysis.detector.weights import LoadedModel
from slides.wsi.focus import cell_sharpness
from slides.wsi.pixels import Pixels

PROFILES = ("standard", "fast")
WINDOWS_PER_BLOCK = 4
PROBABILITY_STEPS = 65535
"""The map is kept in 16 bits until lesions are measured; the published heatmap has 8."""
USUAL_MARGIN_PX = {16: (192, 128), 32: (384, 256)}
"""By the backbone's stride: how far from a cut window the dense map still differs by 1e-3, and by 0.02 (for the scan),
as `python -m analysis.detector.influence` measures. In floats 160 px are enough at stride 16; in 8 bits what is left of
the cut there is now and then rounded up to a step, and at 192 px nothing of it is left."""
_KEPT = ("p", "failed")
"""What is kept of a window ..."""
_KEPT_AT_FIRST = (*_KEPT, "sharpness", "features")
"""... and of those of the first pass over the slide."""


class DetectionCancelled(Exception):
    """`should_stop` said so; finished blocks stay in the checkpoint folder."""


@dataclass
class Maps:
    """What a run has found so far, on the grid of the slide."""

    probability: NDArray[np.uint16]
    read: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    scanned: NDArray[np.uint16]
    """What the scan says; certain where it could not see, for then nothing speaks against a find. (0, 0) without a scan."""
    sharpness: NDArray[np.float16]
    """Of the first pass over the slide (`focus.cell_sharpness`)."""
    features: list[NDArray[np.float32]] = field(default_factory=list)
    """Of each window of the first pass (`drift.feature_sum`)."""

    @classmethod
    def empty(cls, grid: Grid, *, scans: bool) -> "Maps":
        shape = (grid.rows, grid.cols)
        scanned = np.zeros(shape if scans else (0, 0), np.uint16)
        return cls(
            np.zeros(shape, np.uint16),
            np.zeros(shape, bool),
            np.zeros(shape, bool),
            scanned,
            np.zeros(shape, np.float16),
        )


@dataclass
class Clock:
    """Seconds: `read` spent waiting for pixels, `network` summed over the workers."""

    read: float = 0.0
    network: float = 0.0


def margins_px(config: DetectorConfig) -> tuple[int, int]:
    """At the reading and at the scanning spacing."""
    usual = USUAL_MARGIN_PX[config.network.backbone_stride]
    return config.read.margin_px or usual[0], config.read.scan_margin_px or usual[1]


class SlideReading:
    def __init__(
        self,
        source: PixelSource,
        model: LoadedModel,
        engine: Engine,
        grid: Grid,
        *,
        profile: str,
        on_progress: Callable[[str, float], None],
        should_stop: Callable[[], bool],
        checkpoint_dir: Path | None,
        shift_px: int = 0,
        margin_px: int = 0,
        largest_window_px: int = 0,
    ) -> None:
        """`largest_window_px` 0: what each network's memory allows."""
        self.source, self.engine, self.grid, self.profile = source, engine, grid, profile
        self.rules = model.config.read
        # what a network of its own says of the coarse picture is worth knowing to `standard`, too
        self.scans = profile == "fast" or engine.scanner is not engine
        self.maps = Maps.empty(grid, scans=self.scans)
        self.on_progress, self.should_stop = on_progress, should_stop
        self.shift_px = shift_px
        readers = {"scanning": engine.scanner, "reading": engine}
        self.largest_px = {
            stage: largest_window_px or grid.largest_window_px(one.bytes_per_px, held_bytes=engine.held_bytes)
            for stage, one in readers.items()
        }
        reading, scanning = margins_px(model.config)
        self.margin_px, self.scan_margin_px = margin_px or reading, margin_px or scanning
        self.clock = Clock()
        plan = {
            **model.reads_by,
            "engine": engine.name,
            "profile": profile,
            "read": vars(self.rules),
            "slide": [source.width, source.height, source.mpp_x, source.mpp_y],
            "quickhash": str(getattr(source.properties, "quickhash", "")) if hasattr(source, "properties") else "",
            "windows": [*self.largest_px.values(), self.margin_px, self.scan_margin_px, shift_px, WINDOWS_PER_BLOCK],
        }
        self.store = BlockStore(checkpoint_dir, plan=plan)

    @property
    def first_mpp(self) -> float:
        """The spacing at which all of the tissue is read."""
        return self.rules.mpp if self.profile == "standard" else self.rules.scan_mpp

    def stop_if_cancelled(self) -> None:
        if self.should_stop():
            raise DetectionCancelled("the run was cancelled")

    def read_tissue(self, tissue: NDArray[np.bool_]) -> None:
        """`standard` reads all of `tissue` (rows, cols) at `mpp`; `fast` scans it and reads what a glance does not clear."""
        with ThreadPoolExecutor(self.engine.workers, thread_name_prefix="network") as pool:
            if self.scans:
                self._pass("scanning", tissue, pool, first=self.profile == "fast", scanning=True)
            if self.profile == "fast":
                self._read_where_needed(tissue, pool)
            else:
                self._pass("reading", tissue, pool, first=True)

    def _read_where_needed(self, tissue: NDArray[np.bool_], pool: ThreadPoolExecutor) -> None:
        """Around what scan and glance find, then on until no find reaches the edge of what was read."""
        wanted, believed = scan.where_to_read(
            probability_of(self.maps.scanned),
            self.source,
            self.engine,
            grid=self.grid,
            rules=self.rules,
            on_progress=self.on_progress,
            before_each=self.stop_if_cancelled,
        )
        believed[~tissue] = 0
        believed *= PROBABILITY_STEPS
        self.maps.probability = np.rint(believed, out=believed).astype(np.uint16)
        del believed  # a map of floats: of a large slide some 80 MB
        measured = np.zeros(tissue.shape, bool)
        wanted &= tissue
        for turn in itertools.count():
            if not wanted.any():
                return
            self._pass("reading", wanted, pool, first=False, part=f"-{turn}" if turn else "")
            measured |= wanted
            p = probability_of(self.maps.probability)
            wanted = scan.beyond(p, measured, tissue, rules=self.rules)

    def _pass(
        self,
        stage: str,
        wanted: NDArray[np.bool_],
        pool: ThreadPoolExecutor,
        *,
        first: bool,
        scanning: bool = False,
        part: str = "",
    ) -> None:
        """Windows over `wanted`. A later pass overwrites what an earlier one said of these cells. `part` names one of
        several passes of a stage."""
        engine = self.engine.scanner if scanning else self.engine
        windows = plan_windows(
            wanted,
            mpp=self.rules.scan_mpp if scanning else self.rules.mpp,
            margin_px=self.scan_margin_px if scanning else self.margin_px,
            shift_px=self.shift_px,
            largest_px=self.largest_px["scanning" if scanning else "reading"],
        )
        blocks = [windows[i : i + WINDOWS_PER_BLOCK] for i in range(0, len(windows), WINDOWS_PER_BLOCK)]
        # a block is of these windows: where others were planned once (by another release, in the middle of a run) it is not used
        names = [f"{stage}{part}-{i:05d}-{zlib.crc32(repr(block).encode()):08x}" for i, block in enumerate(blocks)]
        stored = [self.store.get(name) for name in names]
        missing = [w for block, known in zip(blocks, stored, strict=True) if known is None for w in block]
        answers = self._answers(missing, pool, engine, first=first)
        kept = _KEPT_AT_FIRST if first else _KEPT
        done = 0
        for i, (block, known) in enumerate(zip(blocks, stored, strict=True)):
            parts: Arrays = known if known is not None else {}
            for n, window in enumerate(block):
                if known is None:
                    parts |= {f"{n}.{key}": value for key, value in next(answers).items()}
                else:
                    self.stop_if_cancelled()
                self._keep(window, {key: parts[f"{n}.{key}"] for key in kept}, wanted, first=first, scanning=scanning)
                done += 1
                self.on_progress(stage, done / len(windows))
            if known is None:
                self.store.put(names[i], parts)
        engine.rest()  # what comes next, other windows or the maps of a large slide, needs the memory

    def _answers(
        self, windows: list[Window], pool: ThreadPoolExecutor, engine: Engine, *, first: bool
    ) -> Iterator[Arrays]:
        """In the order of `windows`, a few of them computed at once."""
        self.source.prefetch(self._wanted_pixels(w) for w in windows)
        for parts, seconds in side_by_side(pool, self._calls(windows, engine, first=first), at_once=engine.workers):
            self.clock.network += seconds
            yield parts

    def _calls(
        self, windows: list[Window], engine: Engine, *, first: bool
    ) -> Iterator[Callable[[], tuple[Arrays, float]]]:
        for window in windows:
            self.stop_if_cancelled()
            before = time.monotonic()
            pixels = self.source.read_at_mpp(*self._wanted_pixels(window))
            self.clock.read += time.monotonic() - before
            yield partial(self._answer, window, pixels, engine, first=first)

    def _wanted_pixels(self, window: Window) -> Wanted:
        assert self.source.mpp_x
        assert self.source.mpp_y
        x0, y0 = window.left_px * window.mpp / self.source.mpp_x, window.top_px * window.mpp / self.source.mpp_y
        return x0, y0, window.width_px, window.height_px, window.mpp

    def _answer(self, window: Window, pixels: Pixels, engine: Engine, *, first: bool) -> tuple[Arrays, float]:
        """Of the core's cells: p (rows, cols) 16 bit, failed; at first sharpness; features. And its seconds."""
        started = time.monotonic()
        side = window.cells_per_side
        reading = engine.read(pixels.rgb[None], margin_px=window.margin_px)
        p = np.rint(_core(window, _per_cell(reading.probability[0], side / engine.dense_stride)) * PROBABILITY_STEPS)
        shape = (window.row1 - window.row0, window.col1 - window.col0)
        failed = np.zeros(shape, bool)
        if pixels.failed.any():
            failed = _core(window, _per_cell(_without_margin(pixels.failed, window), side) > 0)
        parts = {"p": p.astype(np.uint16), "failed": failed}
        if first:
            parts["sharpness"] = _sharpness(window, pixels.rgb)
            parts["features"] = drift.feature_sum(reading.features[0])
        return parts, time.monotonic() - started

    def _keep(self, window: Window, parts: Arrays, wanted: NDArray[np.bool_], *, first: bool, scanning: bool) -> None:
        core = np.s_[window.row0 : window.row1, window.col0 : window.col1]
        # only wanted cells: what else a window happens to show depends on where the cuts lie
        mine = wanted[core]
        if scanning:
            seen = np.where(parts["failed"], PROBABILITY_STEPS, parts["p"])
            self.maps.scanned[core] = np.where(mine, seen, self.maps.scanned[core])
        if first or not scanning:
            self.maps.probability[core] = np.where(mine, parts["p"], self.maps.probability[core])
            self.maps.failed[core] = np.where(mine, parts["failed"], self.maps.failed[core])
            self.maps.read[core] |= mine & ~parts["failed"]
        if first:
            self.maps.sharpness[core] = np.where(mine, parts["sharpness"], self.maps.sharpness[core])
            self.maps.features.append(parts["features"])


def probability_of(steps: NDArray[np.uint16]) -> NDArray[np.float32]:
    p = steps.astype(np.float32)
    p /= np.float32(PROBABILITY_STEPS)
    return p


def _core(window: Window, cells: NDArray[Any]) -> NDArray[Any]:
    """`cells`: what the window holds without its margin. It begins on the stride's grid, the core perhaps later."""
    row = window.row0 - round((window.top_px + window.margin_px) / window.cells_per_side)
    col = window.col0 - round((window.left_px + window.margin_px) / window.cells_per_side)
    return cells[row : row + window.row1 - window.row0, col : col + window.col1 - window.col0]


def _without_margin(pixels: NDArray[Any], window: Window) -> NDArray[Any]:
    m = window.margin_px
    return pixels[m : window.height_px - m, m : window.width_px - m]


def _sharpness(window: Window, rgb: NDArray[np.uint8]) -> NDArray[np.float16]:
    # one cell more on each side: the outermost pixels have no Laplacian
    side = round(window.cells_per_side)
    m = window.margin_px - side
    cells = cell_sharpness(rgb[m : window.height_px - m, m : window.width_px - m], side)[1:-1, 1:-1]
    return _core(window, cells).astype(np.float16)


def _per_cell(values: NDArray[Any], side: float) -> NDArray[np.float32]:
    """Means over squares of `side` values; where a cell is smaller than a value, the value it lies in."""
    if side < 1:
        n = round(1 / side)
        return values.repeat(n, axis=0).repeat(n, axis=1).astype(np.float32)
    n = round(side)
    h, w = values.shape[0] // n, values.shape[1] // n
    out: NDArray[np.float32] = values[: h * n, : w * n].astype(np.float32).reshape(h, n, w, n).mean(axis=(1, 3))
    return out
