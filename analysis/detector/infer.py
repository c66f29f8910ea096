"""Read a slide: `python -m analysis.detector.infer SLIDE --json OUT.json --heatmap OUT.png [--profile fast]`.

Tissue mask, windows over tissue, network, whole-slide map, metastases. Every tissue cell is either read or counted
as failed; a slide that was not read well enough is never given a score that could be taken for "negative".
"""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation

from analysis.detector import drift, second_look
from analysis.detector.assessment import judge
from analysis.detector.block_store import Arrays, BlockStore
from analysis.detector.boxes import decode_boxes, suppress
from analysis.detector.calibration import calibrated
from analysis.detector.card import ModelRefused, default_model_folder
from analysis.detector.detection import Detection, LesionFinding, TissueSummary, detection_to_json
from analysis.detector.focus import Focus, cell_sharpness, find_blur
from analysis.detector.lesions import SCORE_CELLS, LesionRules, find_lesions
from analysis.detector.network.detector import NetworkOutput, to_input
from analysis.detector.pixel_source import PixelSource, Wanted
from analysis.detector.reading_plan import CORE_PX, MAP_MPP, MARGIN_PX, Grid, Window, plan_windows
from analysis.detector.weights import LoadedModel, load_model
from slides.wsi.errors import SlideRefused, WsiError
from slides.wsi.tissue import tissue_mask

__all__ = [
    "Detection",
    "DetectionCancelled",
    "LesionFinding",
    "ScaleUnknown",
    "cut_fields",
    "detect",
    "detection_to_json",
]

PROFILES = ("standard", "fast")
TISSUE_RIM_CELLS = 2
"""The map counts this far beyond the tissue mask; further out (glass, ink) it is zero."""
SUSPICION_RIM_CELLS = 16
WINDOWS_PER_BLOCK = 8
_PARTS = ("p", "failed", "boxes", "sharpness", "features")
"""What is kept of a window."""
PROBABILITY_STEPS = 65535
"""The map is kept in 16 bits until lesions are measured; the published heatmap has 8."""


class DetectionCancelled(Exception):
    """`should_stop` said so; finished blocks stay in the checkpoint folder."""


class ScaleUnknown(ValueError):
    """The slide has no usable um per pixel: nothing is measured by guessing."""


def _no_progress(stage: str, fraction: float) -> None:
    pass


def _never() -> bool:
    return False


@dataclass
class _Maps:
    """What a run has found so far, on the grid of the slide."""

    probability: NDArray[np.uint16]
    read: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    sharpness: NDArray[np.float16]
    """Of the first pass over the slide (`focus.cell_sharpness`)."""
    boxes_um: list[NDArray[np.float32]] = field(default_factory=list)
    features: list[NDArray[np.float32]] = field(default_factory=list)
    """Of each window of the first pass (`drift.feature_sum`)."""


@dataclass(frozen=True)
class _Overview:
    """The slide at MAP_MPP, on the grid."""

    tissue: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    rgb: NDArray[np.uint8]


@dataclass
class _Clock:
    read: float = 0.0
    network: float = 0.0


def detect(
    source: PixelSource,
    model: LoadedModel,
    *,
    profile: str = "standard",
    on_progress: Callable[[str, float], None] = _no_progress,
    should_stop: Callable[[], bool] = _never,
    checkpoint_dir: Path | None = None,
    grid_shift_px: int = 0,
    margin_px: int = MARGIN_PX,
) -> Detection:
    """Raises ScaleUnknown, DetectionCancelled, ValueError for an unknown profile, and what the source raises when it dies.

    With `checkpoint_dir` finished blocks are kept there; the same call after a kill goes on and gives the same result.
    `grid_shift_px` moves the grid of tiles (multiples of 64); the result does not depend on it.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    if not source.mpp_x or not source.mpp_y:
        raise ScaleUnknown("the scale of this slide (um per pixel) is not known; enter it first, it is never guessed")
    started, clock = time.monotonic(), _Clock()
    grid = Grid.of(width=source.width, height=source.height, mpp_x=source.mpp_x, mpp_y=source.mpp_y)
    on_progress("tissue", 0.0)
    overview = _find_tissue(source, grid)
    clock.read += time.monotonic() - started
    maps = _Maps(
        probability=np.zeros((grid.rows, grid.cols), np.uint16),
        read=np.zeros((grid.rows, grid.cols), bool),
        failed=np.zeros((grid.rows, grid.cols), bool),
        sharpness=np.zeros((grid.rows, grid.cols), np.float16),
    )
    run = _Run(
        source, model, grid, maps, clock, on_progress, should_stop, checkpoint_dir, profile, grid_shift_px, margin_px
    )
    wanted = overview.tissue | overview.failed
    run.read_slide(wanted)
    maps.failed |= wanted & ~maps.read
    near_tissue = binary_dilation(overview.tissue, iterations=TISSUE_RIM_CELLS)
    p = np.where(near_tissue & ~maps.failed, maps.probability, 0).astype(np.float32) / np.float32(PROBABILITY_STEPS)
    measured = time.monotonic()
    on_progress("lesions", 0.0)
    lesions = _lesions_of(p, maps, grid, model)
    on_progress("lesions", 1.0)
    seconds = {"read": clock.read, "network": clock.network, "lesions": time.monotonic() - measured}
    if model.config.read.second_look:
        looked = time.monotonic()
        lesions = second_look.look_again(
            source, model, lesions, on_progress=on_progress, before_each=run.stop_if_cancelled
        )
        seconds["second_look"] = time.monotonic() - looked
    blur = find_blur(maps.sharpness, maps.read, overview.rgb, mpp=run.first_mpp)
    found = _result(p, lesions, wanted, maps, overview, blur, grid, model, profile, seconds)
    found.seconds["total"] = time.monotonic() - started
    return calibrated(found, card=model.card, read=vars(model.config.read))


class _Run:
    """Reading one slide window by window."""

    def __init__(
        self,
        source: PixelSource,
        model: LoadedModel,
        grid: Grid,
        maps: _Maps,
        clock: _Clock,
        on_progress: Callable[[str, float], None],
        should_stop: Callable[[], bool],
        checkpoint_dir: Path | None,
        profile: str,
        shift_px: int,
        margin_px: int,
    ) -> None:
        self.source, self.model, self.grid, self.maps, self.clock = source, model, grid, maps, clock
        self.on_progress, self.should_stop = on_progress, should_stop
        self.profile, self.shift_px, self.margin_px = profile, shift_px, margin_px
        plan = {
            "model": model.sha256,
            "profile": profile,
            "slide": [source.width, source.height, source.mpp_x, source.mpp_y],
            "quickhash": str(getattr(source.properties, "quickhash", "")) if hasattr(source, "properties") else "",
            "windows": [CORE_PX, margin_px, shift_px, WINDOWS_PER_BLOCK],
        }
        self.store = BlockStore(checkpoint_dir, plan=plan)

    @property
    def first_mpp(self) -> float:
        """The spacing at which all of the tissue is read."""
        read = self.model.config.read
        return read.mpp if self.profile == "standard" else read.scan_mpp

    def stop_if_cancelled(self) -> None:
        if self.should_stop():
            raise DetectionCancelled("the run was cancelled")

    def read_slide(self, tissue: NDArray[np.bool_]) -> None:
        rules = self.model.config.read
        if self.profile == "standard":
            self._pass("reading", tissue, mpp=rules.mpp)
            return
        self._pass("scanning", tissue, mpp=rules.scan_mpp)
        suspicious = self.maps.probability >= rules.suspicious_probability * PROBABILITY_STEPS
        close = binary_dilation(suspicious & tissue, structure=np.ones((3, 3)), iterations=SUSPICION_RIM_CELLS) & tissue
        self._pass("reading", close, mpp=rules.mpp, again=True)

    def _pass(self, stage: str, wanted: NDArray[np.bool_], *, mpp: float, again: bool = False) -> None:
        """Windows over `wanted`; a second pass (`again`) overwrites what the first one said of these cells."""
        core = CORE_PX if mpp == self.model.config.read.mpp else CORE_PX * 2 // 3
        windows = plan_windows(wanted, mpp=mpp, shift_px=self.shift_px, margin_px=self.margin_px, core_px=core)
        blocks = [windows[i : i + WINDOWS_PER_BLOCK] for i in range(0, len(windows), WINDOWS_PER_BLOCK)]
        if again and blocks:
            self.maps.boxes_um = [self._boxes_outside(boxes, wanted) for boxes in self.maps.boxes_um]
        stored = [self.store.get(f"{stage}-{i:05d}") for i in range(len(blocks))]
        missing = [w for block, known in zip(blocks, stored, strict=True) if known is None for w in block]
        self.source.prefetch(self._wanted_pixels(w) for w in missing)
        done = 0
        for i, (block, known) in enumerate(zip(blocks, stored, strict=True)):
            parts: Arrays = known if known is not None else {}
            for n, window in enumerate(block):
                self.stop_if_cancelled()
                if known is None:
                    parts |= {f"{n}.{key}": value for key, value in self._read_window(window).items()}
                self._keep(window, {key: parts[f"{n}.{key}"] for key in _PARTS}, wanted, first=not again)
                done += 1
                self.on_progress(stage, done / len(windows))
            if known is None:
                self.store.put(f"{stage}-{i:05d}", parts)

    def _wanted_pixels(self, window: Window) -> Wanted:
        assert self.source.mpp_x
        assert self.source.mpp_y
        x0, y0 = window.left_px * window.mpp / self.source.mpp_x, window.top_px * window.mpp / self.source.mpp_y
        return x0, y0, window.width_px, window.height_px, window.mpp

    def _read_window(self, window: Window) -> Arrays:
        """p (rows, cols) 16 bit and failed (rows, cols) of the core's cells; boxes (n, 5) in um whose centre it owns."""
        t0 = time.monotonic()
        pixels = self.source.read_at_mpp(*self._wanted_pixels(window))
        t1 = time.monotonic()
        self.clock.read += t1 - t0
        with torch.inference_mode():
            network = self.model.network
            pyramid, tumour, distance = network.trunk(to_input(pixels.rgb[None]))
            out = NetworkOutput(tumour, distance, network.towers(pyramid), network.config.heads)
            p = torch.sigmoid(out.tumour_logit[0, 0]).numpy()
            boxes = decode_boxes(out)
        side = window.cells_per_side
        inner = self._core_of(window, _cell_mean(p, side / 4))
        failed = self._core_of(window, _cell_mean(pixels.failed, side) > 0)
        self.clock.network += time.monotonic() - t1
        return {
            "p": np.rint(inner * PROBABILITY_STEPS).astype(np.uint16),
            "failed": failed,
            "boxes": self._owned_boxes(window, boxes),
            "sharpness": self._core_of(window, cell_sharpness(pixels.rgb, round(side))).astype(np.float16),
            "features": drift.feature_sum(pyramid[2][0].numpy()),
        }

    def _core_of(self, window: Window, cells: NDArray[Any]) -> NDArray[Any]:
        side = window.cells_per_side
        row = window.row0 - round(window.top_px / side)
        col = window.col0 - round(window.left_px / side)
        return cells[row : row + window.row1 - window.row0, col : col + window.col1 - window.col0]

    def _owned_boxes(self, window: Window, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        offset = np.array([window.left_px, window.top_px] * 2, np.float32)
        in_um = boxes.copy()
        in_um[:, :4] = (boxes[:, :4] + offset) * window.mpp
        x, y = (in_um[:, 0] + in_um[:, 2]) / 2 / MAP_MPP, (in_um[:, 1] + in_um[:, 3]) / 2 / MAP_MPP
        owned = (x >= window.col0) & (x < window.col1) & (y >= window.row0) & (y < window.row1)
        return in_um[owned]

    def _keep(self, window: Window, parts: Arrays, wanted: NDArray[np.bool_], *, first: bool) -> None:
        core = np.s_[window.row0 : window.row1, window.col0 : window.col1]
        # only wanted cells: what else a window happens to show depends on where the grid lies
        mine = wanted[core]
        self.maps.probability[core] = np.where(mine, parts["p"], self.maps.probability[core])
        self.maps.failed[core] = np.where(mine, parts["failed"], self.maps.failed[core])
        self.maps.read[core] |= mine & ~parts["failed"]
        self.maps.boxes_um.append(parts["boxes"].astype(np.float32))
        if first:
            self.maps.sharpness[core] = np.where(mine, parts["sharpness"], 0)
            self.maps.features.append(parts["features"])

    @staticmethod
    def _boxes_outside(boxes: NDArray[np.float32], wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
        cols = ((boxes[:, 0] + boxes[:, 2]) / 2 / MAP_MPP).astype(int).clip(0, wanted.shape[1] - 1)
        rows = ((boxes[:, 1] + boxes[:, 3]) / 2 / MAP_MPP).astype(int).clip(0, wanted.shape[0] - 1)
        outside: NDArray[np.float32] = boxes[~wanted[rows, cols]]
        return outside


def _cell_mean(values: NDArray[Any], side: float) -> NDArray[np.float32]:
    """Means over squares of `side` (a whole number) cells."""
    n = round(side)
    h, w = values.shape[0] // n, values.shape[1] // n
    out: NDArray[np.float32] = values[: h * n, : w * n].astype(np.float32).reshape(h, n, w, n).mean(axis=(1, 3))
    return out


def _find_tissue(source: PixelSource, grid: Grid) -> _Overview:
    overview = source.thumbnail_at_mpp(MAP_MPP)
    rgb, failed = _fit(overview.rgb, grid), _fit(overview.failed, grid).astype(bool)
    return _Overview(tissue_mask(rgb, MAP_MPP) & ~failed, failed, rgb)


def _fit(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Cut to the grid or go on with the last row and column: an overview may be one cell off by rounding."""
    cut = array[: grid.rows, : grid.cols]
    missing = [(0, grid.rows - cut.shape[0]), (0, grid.cols - cut.shape[1])] + [(0, 0)] * (array.ndim - 2)
    return np.pad(cut, missing, mode="edge")


def _lesions_of(p: NDArray[np.float32], maps: _Maps, grid: Grid, model: LoadedModel) -> tuple[LesionFinding, ...]:
    boxes = suppress(np.concatenate([np.zeros((0, 5), np.float32), *maps.boxes_um]))
    read = model.config.read
    return find_lesions(
        p, grid=grid, rules=LesionRules(seed=read.seed_probability, grow=read.grow_probability), boxes_um=boxes
    )


def _result(
    p: NDArray[np.float32],
    lesions: tuple[LesionFinding, ...],
    wanted: NDArray[np.bool_],
    maps: _Maps,
    overview: _Overview,
    blur: Focus,
    grid: Grid,
    model: LoadedModel,
    profile: str,
    seconds: dict[str, float],
) -> Detection:
    cells = int(wanted.sum())
    failed = float((maps.failed & wanted).sum() / cells) if cells else 0.0
    tissue = TissueSummary(mm2=round(cells * MAP_MPP**2 / 1e6, 4), analysed=1 - failed if cells else 0.0, failed=failed)
    share = float(overview.tissue.mean())
    status, reason = judge(
        tissue, blurred=blur.blurred_share, tissue_share=share, slide_mm2=overview.tissue.size * MAP_MPP**2 / 1e6
    )
    features = drift.mean_features(maps.features)
    values, words = drift.drift_of(
        drift.stain_statistics(overview.rgb[overview.tissue]), features, drift.reference_for(model.card, profile)
    )
    return Detection(
        status=status,
        status_reason=reason,
        slide_score=None if status == "cannot_assess" else slide_score(p, lesions),
        tissue=tissue,
        lesions=lesions,
        heatmap=np.rint(p * 255).astype(np.uint8),
        heatmap_mpp=MAP_MPP,
        heatmap_x0=0.0,
        heatmap_y0=0.0,
        heatmap_cell_px0=(grid.cell_x0, grid.cell_y0),
        seconds=seconds,
        model={"version": model.version, "sha256": model.sha256, "profile": profile},
        drift=values,
        drift_words=words,
        features=features,
        quality={"blurred": round(blur.blurred_share, 4), "tissue_share": round(share, 4)},
    )


def slide_score(p: NDArray[np.float32], lesions: Iterable[LesionFinding]) -> float:
    """The strongest lesion's score; without a lesion the mean of the strongest cells, which is below any lesion's seed."""
    best = max((lesion.score for lesion in lesions), default=None)
    if best is not None:
        return best
    flat = p.ravel()
    n = min(SCORE_CELLS, flat.size)
    return round(float(np.partition(flat, flat.size - n)[-n:].mean()), 4) if n else 0.0


def cut_fields(
    source: PixelSource, lesions: Iterable[LesionFinding], *, max_fields: int = 24, side_px: int = 512, mpp: float = 0.5
) -> list[bytes]:
    """JPEG of the field around each lesion's peak, in the order of the lesions, for the gallery."""
    assert source.mpp_x
    assert source.mpp_y
    fields = []
    for lesion in list(lesions)[:max_fields]:
        half = side_px * mpp / 2
        x0, y0 = lesion.peak[0] - half / source.mpp_x, lesion.peak[1] - half / source.mpp_y
        pixels = source.read_at_mpp(x0, y0, side_px, side_px, mpp)
        buffer = io.BytesIO()
        Image.fromarray(pixels.rgb).save(buffer, "JPEG", quality=85)
        fields.append(buffer.getvalue())
    return fields


# -- command line --------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if not options.slide.is_file():
        print(f"error: there is no slide at {options.slide}", file=sys.stderr)
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        detection, shape = _detect_file(options)
    except (ModelRefused, ScaleUnknown, SlideRefused, WsiError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    width, height, mpp = shape
    document = detection_to_json(detection, options.slide.name, width, height, mpp)
    if options.json:
        write_whole(options.json, (json.dumps(document, indent=1) + "\n").encode())
    if options.heatmap:
        buffer = io.BytesIO()
        Image.fromarray(detection.heatmap).save(buffer, "PNG")
        write_whole(options.heatmap, buffer.getvalue())
    if not options.json:
        print(json.dumps(document, indent=1))
    print(_summary(detection), file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.detector.infer",
        description="Find metastases on one slide. Exit code 0: done (see `status` in the JSON); 2: the slide or model is refused.",
    )
    parser.add_argument("slide", type=Path, metavar="SLIDE")
    parser.add_argument(
        "--json", type=Path, metavar="OUT.json", help="where the result goes (default: standard output)"
    )
    parser.add_argument("--heatmap", type=Path, metavar="OUT.png", help="grey image, one pixel per 8 um, 255 = certain")
    parser.add_argument("--profile", choices=PROFILES, default="standard")
    parser.add_argument("--model", type=Path, help="folder of a model version (default: the shipped one)")
    parser.add_argument("--mpp", type=float, metavar="UM", help="um per level-0 pixel, for a slide that does not say")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help="keep finished blocks here and go on from them"
    )
    parser.add_argument("--threads", type=int, default=0, help="threads of the network (default: all cores)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _detect_file(options: argparse.Namespace) -> tuple[Detection, tuple[int, int, tuple[float, float]]]:
    from slides.wsi.sandbox import open_pixels  # starts a child process: only when there is a slide to read

    model = load_model(options.model or default_model_folder())
    override = (options.mpp, options.mpp) if options.mpp else None
    with open_pixels(options.slide, mpp_override=override) as source:
        report = _no_progress if options.quiet else _show_progress
        found = detect(source, model, profile=options.profile, on_progress=report, checkpoint_dir=options.checkpoint)
        assert source.mpp_x
        assert source.mpp_y
        return found, (source.width, source.height, (source.mpp_x, source.mpp_y))


def _show_progress(stage: str, fraction: float) -> None:
    end = "\n" if fraction >= 1 else ""
    print(f"\r{stage} {fraction:4.0%}", end=end, file=sys.stderr, flush=True)


def _summary(detection: Detection) -> str:
    tissue = f"{detection.tissue.mm2:.1f} mm2 of tissue, {detection.seconds['total']:.1f} s"
    return f"{detection.status}: {len(detection.lesions)} lesions, slide score {detection.slide_score}, {tissue}"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


if __name__ == "__main__":
    sys.exit(main())
