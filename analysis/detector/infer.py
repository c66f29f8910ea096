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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.detector import box_support, drift, scan, second_look
from analysis.detector.assessment import judge
from analysis.detector.calibration import calibrated
from analysis.detector.card import ModelRefused, default_model_folder
from analysis.detector.detection import Detection, LesionFinding, TissueSummary, detection_to_json
from analysis.detector.engine import ENGINES, Engine, EngineUnavailable, open_engine
from analysis.detector.lesions import SCORE_CELLS, LesionRules, find_lesions
from analysis.detector.pixel_source import PixelSource
from analysis.detector.reading import PROFILES, DetectionCancelled, Maps, SlideReading, probability_of
from analysis.detector.reading_plan import MAP_MPP, Grid
from analysis.detector.weights import LoadedModel, load_model
from slides.wsi.errors import SlideRefused, WsiError
from slides.wsi.focus import Focus, find_blur
from slides.wsi.morphology import diamond, grown
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

TISSUE_RIM_CELLS = 2
"""The map counts this far beyond the tissue mask; further out (glass, ink) it is zero."""


class ScaleUnknown(ValueError):
    """The slide has no usable um per pixel: nothing is measured by guessing."""


class Look(Protocol):
    """A closer look at the candidates among the lesions: `box_support.with_boxes`, `second_look.look_again`."""

    def __call__(
        self,
        source: PixelSource,
        engine: Engine,
        lesions: tuple[LesionFinding, ...],
        *,
        mpp: float,
        least_score: float,
        on_progress: Callable[[str, float], None],
        before_each: Callable[[], None],
    ) -> tuple[LesionFinding, ...]: ...


def _no_progress(stage: str, fraction: float) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class _Overview:
    """The slide at MAP_MPP, on the grid."""

    tissue: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    rgb: NDArray[np.uint8]


def detect(
    source: PixelSource,
    model: LoadedModel,
    *,
    profile: str = "standard",
    on_progress: Callable[[str, float], None] = _no_progress,
    should_stop: Callable[[], bool] = _never,
    checkpoint_dir: Path | None = None,
    engine: Engine | None = None,
    grid_shift_px: int = 0,
    margin_px: int = 0,
    largest_window_px: int = 0,
) -> Detection:
    """Raises ScaleUnknown, DetectionCancelled, ValueError for an unknown profile, and what the source raises when it dies.

    With `checkpoint_dir` finished blocks are kept there; the same call after a kill goes on and gives the same result.
    `engine` is what runs the network (by default the fastest at hand, one worker for each core). The result does not
    depend on how the tissue is cut into windows: `grid_shift_px` (a multiple of 64) moves the cuts, `margin_px` (a
    multiple of 32; 0: as the model says) and `largest_window_px` (0: what suits the slide) set the windows' size.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    if not source.mpp_x or not source.mpp_y:
        raise ScaleUnknown("the scale of this slide (um per pixel) is not known; enter it first, it is never guessed")
    started = time.monotonic()
    grid = Grid.of(width=source.width, height=source.height, mpp_x=source.mpp_x, mpp_y=source.mpp_y)
    on_progress("tissue", 0.0)
    overview = _find_tissue(source, grid)
    tissue_seconds = time.monotonic() - started
    engine = engine or open_engine(model)
    run = SlideReading(
        source,
        model,
        engine,
        grid,
        profile=profile,
        on_progress=on_progress,
        should_stop=should_stop,
        checkpoint_dir=checkpoint_dir,
        shift_px=grid_shift_px,
        margin_px=margin_px,
        largest_window_px=largest_window_px,
    )
    wanted = overview.tissue | overview.failed
    run.read_tissue(wanted)
    maps = run.maps
    maps.failed |= wanted & ~maps.read
    near_tissue = grown(overview.tissue, diamond(TISSUE_RIM_CELLS))
    p = probability_of(np.where(near_tissue & ~maps.failed, maps.probability, np.uint16(0)))
    measured = time.monotonic()
    on_progress("lesions", 0.0)
    read = model.config.read
    lesions = find_lesions(p, grid=grid, rules=LesionRules.of(read))
    on_progress("lesions", 1.0)
    seconds = {"read": tissue_seconds + run.clock.read, "network": run.clock.network}
    seconds["lesions"] = time.monotonic() - measured

    def believed(found: tuple[LesionFinding, ...]) -> tuple[LesionFinding, ...]:
        if engine.scanner is engine or not found:  # there is no second opinion to ask, or nothing to ask for
            return found

        def scanned(cells: scan.Place) -> NDArray[np.float32]:
            return probability_of(maps.scanned[cells])

        return scan.capped(found, scanned, grid=grid, most_above=read.most_above_scan)

    lesions = believed(lesions)
    again = partial(second_look.look_again, give_up_score=read.give_up_score, closer=profile != "fast")
    looks: dict[str, tuple[Look, float]] = {"second_look": (again, read.candidate_score)} if read.second_look else {}
    looks["boxes"] = box_support.with_boxes, max(read.candidate_score, read.box_score)
    for name, (look, least_score) in looks.items():
        looked = time.monotonic()
        lesions = look(
            source,
            engine,
            lesions,
            mpp=read.mpp,
            least_score=least_score,
            on_progress=on_progress,
            before_each=run.stop_if_cancelled,
        )
        lesions = believed(lesions)
        seconds[name] = time.monotonic() - looked
    blur = find_blur(maps.sharpness, maps.read, overview.rgb, mpp=run.first_mpp)
    found = _result(p, lesions, wanted, maps, overview, blur, grid, model, run, seconds)
    found.seconds["total"] = time.monotonic() - started
    return calibrated(found, card=model.card, read=vars(read))


def _find_tissue(source: PixelSource, grid: Grid) -> _Overview:
    overview = source.thumbnail_at_mpp(MAP_MPP)
    rgb, failed = _fit(overview.rgb, grid), _fit(overview.failed, grid).astype(bool)
    return _Overview(tissue_mask(rgb, MAP_MPP) & ~failed, failed, rgb)


def _fit(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Cut to the grid or go on with the last row and column: an overview may be one cell off by rounding."""
    cut = array[: grid.rows, : grid.cols]
    if cut.shape[:2] == (grid.rows, grid.cols):
        return cut
    missing = [(0, grid.rows - cut.shape[0]), (0, grid.cols - cut.shape[1])] + [(0, 0)] * (array.ndim - 2)
    return np.pad(cut, missing, mode="edge")


def _pixels(rgb: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(n, 3), as rgb[where], by places, which is sooner done."""
    return rgb.reshape(-1, 3).take(np.flatnonzero(where), axis=0)


def _result(
    p: NDArray[np.float32],
    lesions: tuple[LesionFinding, ...],
    wanted: NDArray[np.bool_],
    maps: Maps,
    overview: _Overview,
    blur: Focus,
    grid: Grid,
    model: LoadedModel,
    run: SlideReading,
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
        drift.stain_statistics(_pixels(overview.rgb, overview.tissue)),
        features,
        drift.reference_for(model.card, run.profile),
    )
    return Detection(
        status=status,
        status_reason=reason,
        slide_score=None if status == "cannot_assess" else slide_score(p, lesions),
        tissue=tissue,
        lesions=lesions,
        heatmap=_as_heatmap(p),
        heatmap_mpp=MAP_MPP,
        heatmap_x0=0.0,
        heatmap_y0=0.0,
        heatmap_cell_px0=(grid.cell_x0, grid.cell_y0),
        seconds=seconds,
        model={
            "version": model.version,
            "sha256": model.sha256,
            "profile": run.profile,
            "engine": run.engine.name,
        },
        drift=values,
        drift_words=words,
        features=features,
        quality={"blurred": round(blur.blurred_share, 4), "tissue_share": round(share, 4)},
    )


def _as_heatmap(p: NDArray[np.float32]) -> NDArray[np.uint8]:
    scaled = p * np.float32(255)
    return np.rint(scaled, out=scaled).astype(np.uint8)


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
    try:
        detection, shape = _detect_file(options)
    except (ModelRefused, EngineUnavailable, ScaleUnknown, SlideRefused, WsiError) as problem:
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
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="windows computed at once, each by one thread (default: one for each core)",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto", help="what runs the network (default: the fastest installed)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _detect_file(options: argparse.Namespace) -> tuple[Detection, tuple[int, int, tuple[float, float]]]:
    from slides.wsi.sandbox import open_pixels  # starts a child process: only when there is a slide to read

    model = load_model(options.model or default_model_folder())
    engine = open_engine(model, options.engine, workers=options.threads)
    override = (options.mpp, options.mpp) if options.mpp else None
    with open_pixels(options.slide, mpp_override=override) as source:
        report = _no_progress if options.quiet else _show_progress
        found = detect(
            source,
            model,
            profile=options.profile,
            on_progress=report,
            checkpoint_dir=options.checkpoint,
            engine=engine,
        )
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
