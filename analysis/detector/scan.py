"""What the map of the scan is good for: where `fast` reads, and how far a find may be believed.

A network of its own scans at a coarse spacing (`training/scan_network.py`). It errs in other places than the network that
reads: on composed validation slides each true find above the threshold has the scan's support, of the false ones half.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.detector.calibration import logit, sigmoid
from analysis.detector.configuration import ReadConfig
from analysis.detector.detection import LesionFinding, Point
from analysis.detector.engine import Engine
from analysis.detector.lesions import Focus, LesionRules, cells_of, find_foci
from analysis.detector.pixel_source import PixelSource
from analysis.detector.reading_plan import Grid
from analysis.detector.second_look import glance, strongest
from slides.wsi.morphology import grown, square

RIM_CELLS = 8
"""What is read around the finds of the scan at first; where one reaches further, more is read. With 4 cells two windows of three
were for that, each for a few cells."""

SURE = 0.8
"""A find of the scan of this score is glanced at, whatever surrounds it, and read where it is part of a confirmed one ..."""
AROUND_CELLS = 64
"""... and a weaker one where it stands out of what lies within this distance (0.5 mm), in all four directions."""

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
    no find by itself.

    Of a confirmed find those parts are read that the scan is sure of, and of the others those that a glance confirms, too: from
    a metastasis weaker tissue may lead to others, and much of that need not be read."""
    look = partial(glance, source, engine, mpp=rules.mpp, on_progress=on_progress, before_each=before_each)
    glances = _Glances(look, grid, p * np.float32(rules.grow_probability))
    whole = glances.confirmed(_finds(p, p, rules=rules, grow=rules.scan_grow_probability), rules.glance_score)
    peaks = {find.peak_corner for find in whole}
    within = np.where(cells_of(whole, p.shape), p, np.float32(0))
    parts = _finds(within, p, rules=rules, grow=rules.scan_score)

    def sure(part: Focus) -> bool:
        return part.score >= SURE or part.peak_corner in peaks

    others = glances.confirmed([part for part in parts if not sure(part)], rules.glance_score)
    kept = cells_of([*filter(sure, parts), *others], p.shape) & (p >= rules.scan_score)
    for peak in peaks:  # of a part that is no find by itself, too
        kept[peak] = True
    return _widened(kept, RIM_CELLS), glances.believed()


class _Glances:
    """Places glanced at, and what is to be believed of the map after that."""

    def __init__(
        self, look: Callable[[Sequence[Point]], list[Probabilities]], grid: Grid, unseen: Probabilities
    ) -> None:
        """`unseen`: what is to be believed where no glance falls; it is written on."""
        self.look, self.grid, self.map = look, grid, unseen
        self.said: list[tuple[tuple[int, int], Probabilities]] = []

    def confirmed(self, finds: Sequence[Focus], least: float) -> list[Focus]:
        """Those in which a glance at the strongest place finds at least that much."""
        corners = [find.peak_corner for find in finds]
        seen = self.look([(col * self.grid.cell_x0, row * self.grid.cell_y0) for row, col in corners])
        self.said += zip(corners, seen, strict=True)
        scores = [strongest(cells) for cells in seen]
        for find, score in zip(finds, scores, strict=True):
            mine = find.of(self.map)
            mine[find.shape] = np.minimum(mine[find.shape], score)
        return [find for find, score in zip(finds, scores, strict=True) if score >= least]

    def believed(self) -> Probabilities:
        glanced = np.zeros(self.map.shape, bool)
        for (row, col), cells in self.said:
            _lay(cells, self.map, glanced, row=row, col=col)
        return self.map


def _finds(p: Probabilities, around: Probabilities, *, rules: ReadConfig, grow: float) -> list[Focus]:
    """Finds of the scan in `p` that are worth a glance: `around` says what surrounds them."""
    found = find_foci(p, rules=LesionRules(seed=rules.scan_score, grow=grow))
    return [focus for focus in found if focus.score >= rules.scan_score and _stands_out(focus, around, rules)]


def _stands_out(focus: Focus, p: Probabilities, rules: ReadConfig) -> bool:
    """The scan believes in it more than in the tissue around it, or that much that this does not matter: a metastasis may
    fill all of that."""
    if focus.score >= SURE:
        return True
    row, col = focus.peak_corner
    around = p[max(row - AROUND_CELLS, 0) : row + AROUND_CELLS, max(col - AROUND_CELLS, 0) : col + AROUND_CELLS]
    tissue = around[(around > 0) & (around < 1)]  # 1: it could not see there
    return not tissue.size or logit(focus.score) - logit(float(tissue.mean())) >= rules.scan_stands_out


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
