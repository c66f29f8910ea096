"""From the whole-slide probability map to metastases."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from scipy.spatial import ConvexHull, QhullError

from analysis.detector.configuration import ReadConfig
from analysis.detector.detection import LesionFinding, Point
from analysis.detector.outline_tracing import mask_polygon
from analysis.detector.reading_plan import MAP_MPP, Grid
from analysis.metrics.staging import size_class
from slides.wsi.morphology import grown

JOIN_UM = 75.0
"""Foci nearer than this are one metastasis, as the CAMELYON evaluation counts them."""
BRIDGE_UM = 150.0
"""How far apart they may be where weak tissue joins them (`LesionRules.bridge`)."""
MIN_DIAMETER_UM = 25.0
BORDERLINE_PROBABILITIES = (0.3, 0.5, 0.7)
SCORE_CELLS = 16
"""The score is the mean probability of this many strongest cells (about 1,000 um2): one bright cell is no metastasis."""
MOST_CANDIDATES = 50
_EIGHT = np.ones((3, 3), int)
AnyCell = TypeVar("AnyCell", bound=np.generic)


@dataclass(frozen=True)
class LesionRules:
    seed: float
    """A lesion must reach this probability somewhere ..."""
    grow: float
    """... and extends as far as this one."""
    join_um: float = JOIN_UM
    bridge: float = 1.0
    """Foci nearer than BRIDGE_UM are one metastasis, too, where what lies between them has this probability; 1: never."""

    @classmethod
    def of(cls, read: ReadConfig) -> "LesionRules":
        return cls(seed=read.seed_probability, grow=read.grow_probability, bridge=read.bridge_probability)


def find_lesions(p: NDArray[np.float32], *, grid: Grid, rules: LesionRules) -> tuple[LesionFinding, ...]:
    """p (rows, cols) in 0..1 on `grid`. Strongest first; no box has been looked for yet (`box_support.py`)."""
    found = [_measure(focus, grid=grid, rules=rules) for focus in find_foci(p, rules=rules)]
    found.sort(key=lambda lesion: (-lesion.score, lesion.peak[1], lesion.peak[0]))
    return tuple(replace(lesion, rank=rank) for rank, lesion in enumerate(found, start=1))


def find_foci(
    p: NDArray[np.float32], *, rules: LesionRules, measured: NDArray[np.bool_] | None = None
) -> list["Focus"]:
    """Lesions before they are measured, which costs more than finding them. Cells that are not `measured` (None: all are) count
    as 0."""
    joined = _one_metastasis(p, rules=rules, measured=measured)
    if not joined.any():
        return []
    where = _filled(joined)
    labels, _ = label(joined[where], structure=_EIGHT)
    row0, col0 = (part.start for part in where)
    found = []
    for number, (rows, cols) in enumerate(find_objects(labels), start=1):
        place = np.s_[row0 + rows.start : row0 + rows.stop, col0 + cols.start : col0 + cols.stop]
        said = p[place] if measured is None else np.where(measured[place], p[place], np.float32(0))
        focus = Focus(said, labels[rows, cols] == number, row0=place[0].start, col0=place[1].start)
        if focus.inside.max() >= rules.seed and focus.diameter_um >= MIN_DIAMETER_UM:
            found.append(focus)
    return found


def cells_of(foci: Iterable["Focus"], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """On a map of this shape."""
    cells = np.zeros(shape, bool)
    for focus in foci:
        mine = focus.of(cells)
        mine |= focus.shape
    return cells


def candidates(lesions: Iterable[LesionFinding], *, least_score: float) -> list[LesionFinding]:
    """Those that are worth a closer look: of `least_score`, at most MOST_CANDIDATES. `lesions` strongest first."""
    return [lesion for lesion in lesions if lesion.score >= least_score][:MOST_CANDIDATES]


@dataclass(frozen=True)
class Focus:
    """One lesion cut out of the map: its rectangle and the cells in it that belong to the lesion."""

    p: NDArray[np.float32]
    shape: NDArray[np.bool_]
    row0: int
    col0: int

    @cached_property
    def inside(self) -> NDArray[np.float32]:
        return np.where(self.shape, self.p, np.float32(0))

    @property
    def diameter_um(self) -> float:
        """Of the circle of the same area."""
        return 2 * math.sqrt(float(self.shape.sum()) / math.pi) * MAP_MPP

    @cached_property
    def score(self) -> float:
        return round(float(np.sort(self.p[self.shape])[-SCORE_CELLS:].mean()), 4)

    @cached_property
    def peak_corner(self) -> tuple[int, int]:
        """Row and column of the strongest cell: of its upper left corner on the map."""
        row, col = np.unravel_index(int(self.inside.argmax()), self.inside.shape)
        return self.row0 + int(row), self.col0 + int(col)

    def peak(self, grid: Grid) -> Point:
        """Level-0 px of the middle of the strongest cell."""
        row, col = self.peak_corner
        return (col + 0.5) * grid.cell_x0, (row + 0.5) * grid.cell_y0

    def of(self, cells: NDArray[AnyCell]) -> NDArray[AnyCell]:
        """The rectangle of `shape` of another map (rows, cols), not copied."""
        rows, cols = self.shape.shape
        return cells[self.row0 : self.row0 + rows, self.col0 : self.col0 + cols]


def _one_metastasis(
    p: NDArray[np.float32], *, rules: LesionRules, measured: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Cells of `grow`, with what joins those of one metastasis."""

    def at_least(probability: float) -> NDArray[np.bool_]:
        cells: NDArray[np.bool_] = p >= probability
        return cells if measured is None else cells & measured

    seen = at_least(rules.grow)
    joined = _closed(seen, um=rules.join_um)
    if rules.bridge < rules.grow:
        joined |= _closed(seen, um=BRIDGE_UM) & at_least(rules.bridge)
    return joined


def _filled(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that holds all of what is true in it: something is."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def _closed(mask: NDArray[np.bool_], *, um: float) -> NDArray[np.bool_]:
    """Morphological closing by half of `um`: nearer foci get a bridge, holes wider than that stay."""
    near = _nearer_than(um / 2 / MAP_MPP)
    reach = len(near) - 1
    if not reach or not mask.any():
        return mask.copy()
    cut = _filled(mask)
    widened = grown(np.pad(mask[cut], 2 * reach), near)  # so that the edge of the cut-out is as far as bare tissue
    out = mask.copy()
    out[cut] |= ~grown(~widened, near)[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    return out


def _nearer_than(radius: float) -> list[int]:
    """Half widths (`morphology.grown`) of all cells whose centres lie nearer than `radius` cells."""
    reach = math.ceil(radius) - 1
    return [math.ceil(math.sqrt(radius * radius - d * d)) - 1 for d in range(reach + 1)]


def _measure(focus: Focus, *, grid: Grid, rules: LesionRules) -> LesionFinding:
    longest = longest_diameter_um(focus.shape) / 1000
    own = size_class(longest)
    # drawn at a higher probability, and closed again, it lies within the hull of what it is: no class is above its own
    higher = () if own == size_class(0) else BORDERLINE_PROBABILITIES
    classes = {_class_at(focus, probability, rules) for probability in higher}
    polygon = mask_polygon(focus.shape, col0=focus.col0, row0=focus.row0, simplify=0.7)
    x0, y0 = grid.cell_x0, grid.cell_y0
    rows, cols = focus.shape.shape
    return LesionFinding(
        rank=0,
        score=focus.score,
        peak=focus.peak(grid),
        outline=[_ring(ring.coords, grid) for ring in (polygon.exterior, *polygon.interiors)],
        bbox0=(focus.col0 * x0, focus.row0 * y0, (focus.col0 + cols) * x0, (focus.row0 + rows) * y0),
        longest_diameter_mm=round(longest, 4),
        ellipse_major_mm=round(ellipse_major_um(focus.shape) / 1000, 4),
        area_mm2=round(float(focus.shape.sum()) * MAP_MPP**2 / 1e6, 6),
        size_class=own,
        borderline=bool(classes - {own, None}),
        mean_p=round(float(focus.p[focus.shape].mean()), 4),
        peak_p=round(float(focus.inside.max()), 4),
        box_score=None,
    )


def _class_at(focus: Focus, probability: float, rules: LesionRules) -> str | None:
    """The size class if the edge were drawn at `probability`; None when nothing is left there."""
    mask = _closed((focus.p >= probability) & focus.shape, um=rules.join_um)
    labels, n = label(mask, structure=_EIGHT)
    if not n:
        return None
    return size_class(max(longest_diameter_um(labels[s] == i) for i, s in enumerate(find_objects(labels), 1)) / 1000)


def longest_diameter_um(shape: NDArray[np.bool_]) -> float:
    """Greatest distance between two points of the cells (maximum Feret diameter)."""
    rows = np.flatnonzero(shape.any(axis=1))
    if not len(rows):
        return 0.0
    # the hull is spanned by the first and the last cell of each row
    first = shape[rows].argmax(axis=1)
    last = shape.shape[1] - shape[rows][:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([first, rows], axis=1), np.stack([last, rows], axis=1)])
    corners = np.concatenate([ends, ends + np.array([0, 1])])
    try:
        hull = corners[ConvexHull(corners).vertices]
    except QhullError:
        hull = corners
    gaps = hull[:, None, :].astype(np.float64) - hull[None, :, :]
    return float(np.sqrt((gaps**2).sum(axis=-1).max())) * MAP_MPP


def ellipse_major_um(shape: NDArray[np.bool_]) -> float:
    """Major axis of the ellipse with the same second moments: the length the CAMELYON evaluation uses."""
    ys, xs = np.nonzero(shape)
    if not len(ys):
        return 0.0
    x, y = xs - xs.mean(), ys - ys.mean()
    # no matrix product: of many cells that wakes the other threads of the library, which then wait actively for 30 ms
    cov = np.array([[(x * x).mean(), (x * y).mean()], [(x * y).mean(), (y * y).mean()]]) + np.eye(2) / 12
    return 4 * math.sqrt(float(np.linalg.eigvalsh(cov)[-1])) * MAP_MPP


def _ring(coords: Iterable[tuple[float, ...]], grid: Grid) -> list[Point]:
    points = [(round(c[0] * grid.cell_x0, 1), round(c[1] * grid.cell_y0, 1)) for c in coords]
    return points[:-1]
