"""What the map of the scan is good for: where `fast` reads, and how far a find may be believed.

A network of its own scans at a coarse spacing (`training/scan_network.py`). It errs in other places than the network that
reads: on composed validation slides each true find above the threshold has the scan's support, of the false ones half.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.detector.calibration import logit, sigmoid
from analysis.detector.configuration import ReadConfig
from analysis.detector.detection import LesionFinding
from analysis.detector.engine import Engine
from analysis.detector.lesions import LesionRules, cells_of, find_foci
from analysis.detector.pixel_source import PixelSource
from analysis.detector.reading_plan import Grid
from analysis.detector.second_look import glance, strongest
from slides.wsi.morphology import grown, square

RIM_CELLS = 8
"""What is read around the finds of the scan at first; where one reaches further, more is read. With 4 cells two windows of three
were for that, each for a few cells."""

Probabilities = NDArray[np.float32]
Cells = NDArray[np.bool_]
Place = tuple[slice, slice]
"""Rows and columns of the map."""


def where_to_read(
    p: Probabilities,
    source: PixelSource,
    engine: Engine,
    *,
    grid: Grid,
    rules: ReadConfig,
    on_progress: Callable[[str, float], None],
    before_each: Callable[[], None],
) -> tuple[Cells, Probabilities]:
    """Cells (rows, cols) in and around the finds of the scan that a glance at the reading's spacing confirms; and what is to be
    believed of those that are not read: what the glance said around each find, elsewhere the scan, made so weak that it is
    no find by itself."""
    foci = find_foci(p, rules=LesionRules(seed=rules.scan_score, grow=rules.scan_grow_probability))
    foci = [focus for focus in foci if focus.score >= rules.scan_score]
    corners = [focus.peak_corner for focus in foci]
    places = [(col * grid.cell_x0, row * grid.cell_y0) for row, col in corners]
    seen = glance(source, engine, places, mpp=rules.mpp, on_progress=on_progress, before_each=before_each)
    scores = [strongest(cells) for cells in seen]
    kept = [focus for focus, score in zip(foci, scores, strict=True) if score >= rules.glance_score]
    believed, glanced = p * np.float32(rules.grow_probability), np.zeros(p.shape, bool)
    for focus, score in zip(foci, scores, strict=True):
        mine = focus.of(believed)
        mine[focus.shape] = np.minimum(mine[focus.shape], score)
    for (row, col), cells in zip(corners, seen, strict=True):
        _lay(cells, believed, glanced, row=row, col=col)
    return _widened(cells_of(kept, p.shape) & (p >= rules.scan_score), RIM_CELLS), believed


def _lay(cells: NDArray[np.float32], onto: Probabilities, laid: Cells, *, row: int, col: int) -> None:
    """`cells` with their middle at the upper left corner of a cell of `onto`; where another glance is `laid` already, the more
    counts."""
    half = len(cells) // 2
    top, left = max(row - half, 0), max(col - half, 0)
    place = np.s_[top : row + half, left : col + half]
    target = onto[place]
    given = cells[top - row + half :, left - col + half :][: target.shape[0], : target.shape[1]]
    target[:] = np.where(laid[place], np.maximum(target, given), given)
    laid[place] = True


def beyond(p: Probabilities, measured: Cells, tissue: Cells, *, rules: ReadConfig) -> Cells:
    """Cells of `tissue` not measured yet that a find of the `measured` ones goes on into, and what surrounds them."""
    foci = find_foci(p, rules=LesionRules.of(rules), measured=measured)
    candidates = [focus for focus in foci if focus.score >= rules.candidate_score]
    reached = _widened(cells_of(candidates, p.shape), 1) & tissue & ~measured
    return _widened(reached, RIM_CELLS) & tissue & ~measured


def _widened(cells: Cells, rim: int) -> Cells:
    return grown(cells, square(rim))


def capped(
    lesions: Sequence[LesionFinding], scanned: Callable[[Place], Probabilities], *, grid: Grid, most_above: float
) -> tuple[LesionFinding, ...]:
    """The same lesions, strongest first; none is believed by more than `most_above`, in log odds, than the scan believes in
    its place. `scanned`: what the scan says there."""
    believed = [dataclasses.replace(le, score=_at_most(le, scanned, grid, most_above)) for le in lesions]
    believed.sort(key=lambda lesion: (-lesion.score, lesion.peak[1], lesion.peak[0]))
    return tuple(dataclasses.replace(lesion, rank=rank) for rank, lesion in enumerate(believed, start=1))


def _at_most(lesion: LesionFinding, scanned: Callable[[Place], Probabilities], grid: Grid, most_above: float) -> float:
    left, top = _floor(lesion.bbox0[0] / grid.cell_x0), _floor(lesion.bbox0[1] / grid.cell_y0)
    right, bottom = math.ceil(lesion.bbox0[2] / grid.cell_x0 - 1e-6), math.ceil(lesion.bbox0[3] / grid.cell_y0 - 1e-6)
    said = strongest(scanned(np.s_[top:bottom, left:right]))
    return min(lesion.score, round(sigmoid(logit(said) + most_above), 4))


def _floor(value: float) -> int:
    return math.floor(value + 1e-6)
