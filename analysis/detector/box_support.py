"""What the box tower says of each candidate: its strongest box whose centre lies in the candidate.

The towers cost nearly half as much as the rest of the network, and a box counts only where the map has found a
candidate. So they run once the map is whole, on a field around each of the strongest candidates. The field is placed by the
candidate and by the network's coarsest stride alone: how the tissue was cut into windows changes nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import shapely
from numpy.typing import NDArray

from analysis.detector.detection import LesionFinding
from analysis.detector.engine import Engine
from analysis.detector.lesions import candidates
from analysis.detector.pixel_source import PixelSource, Wanted
from analysis.detector.reading_plan import WINDOW_ALIGN_PX
from analysis.detector.side_by_side import side_by_side

MARGIN_PX = 96
"""Tissue around the candidate that its field shows at least."""
LARGEST_SIDE_PX = 768
"""Of a larger candidate the middle is shown: a box is found by the network where its centre lies."""


def with_boxes(
    source: PixelSource,
    engine: Engine,
    lesions: tuple[LesionFinding, ...],
    *,
    mpp: float,
    least_score: float,
    on_progress: Callable[[str, float], None],
    before_each: Callable[[], None],
) -> tuple[LesionFinding, ...]:
    """The same lesions in the same order, the candidates of `least_score` with a `box_score` (None where no box supports
    them).

    `lesions` are sorted, strongest first. `mpp` is what the network reads; `before_each` may raise to stop.
    """
    if not engine.has_towers:
        return lesions
    looked: list[LesionFinding] = []
    chosen = candidates(lesions, least_score=least_score)
    fields = [_field(source, lesion, mpp) for lesion in chosen]
    source.prefetch(fields)

    def calls() -> Iterator[Callable[[], float | None]]:
        for lesion, field in zip(chosen, fields, strict=True):
            before_each()
            yield partial(_score, source, engine, lesion, field, source.read_at_mpp(*field).rgb)

    with ThreadPoolExecutor(engine.workers, thread_name_prefix="boxes") as pool:
        for score in side_by_side(pool, calls(), at_once=engine.workers):
            looked.append(dataclasses.replace(chosen[len(looked)], box_score=score))
            on_progress("boxes", len(looked) / len(chosen))
    return (*looked, *lesions[len(chosen) :])


def _field(source: PixelSource, lesion: LesionFinding, mpp: float) -> Wanted:
    """The candidate and MARGIN_PX around it, widened to the coarsest stride's own grid."""
    (left, width), (top, height) = (
        _side(lesion.bbox0[axis], lesion.bbox0[axis + 2], _per_level0(source, axis, mpp)) for axis in (0, 1)
    )
    x0, y0 = left / _per_level0(source, 0, mpp), top / _per_level0(source, 1, mpp)
    return x0, y0, width, height, mpp


def _side(low0: float, high0: float, per_level0: float) -> tuple[int, int]:
    """First px and number of px along one axis, multiples of WINDOW_ALIGN_PX."""
    low, high = low0 * per_level0 - MARGIN_PX, high0 * per_level0 + MARGIN_PX
    if high - low > LARGEST_SIDE_PX - WINDOW_ALIGN_PX:
        middle = (low + high) / 2
        start = round((middle - LARGEST_SIDE_PX / 2) / WINDOW_ALIGN_PX) * WINDOW_ALIGN_PX
        return start, LARGEST_SIDE_PX
    start = math.floor(low / WINDOW_ALIGN_PX) * WINDOW_ALIGN_PX
    return start, math.ceil((high - start) / WINDOW_ALIGN_PX) * WINDOW_ALIGN_PX


def _per_level0(source: PixelSource, axis: int, mpp: float) -> float:
    """Pixels of `mpp` per level-0 pixel."""
    scale = (source.mpp_x, source.mpp_y)[axis]
    assert scale
    return scale / mpp


def _score(
    source: PixelSource, engine: Engine, lesion: LesionFinding, field: Wanted, rgb: NDArray[np.uint8]
) -> float | None:
    boxes = engine.boxes(rgb)
    x0, y0, _, _, mpp = field
    x = x0 + (boxes[:, 0] + boxes[:, 2]) / 2 / _per_level0(source, 0, mpp)
    y = y0 + (boxes[:, 1] + boxes[:, 3]) / 2 / _per_level0(source, 1, mpp)
    shape = shapely.Polygon(lesion.outline[0], lesion.outline[1:])
    supporting = boxes[shapely.contains_xy(shape, x, y), 4]
    return round(float(supporting.max()), 4) if len(supporting) else None
