"""Candidates are looked at again: eight flips and turns averaged, at the finest useful spacing.

There is no network of its own for 0.5 um/px yet, so the network that reads verifies: the pixels are read at 0.5 um/px where
the slide has them and averaged to the spacing that the network knows. What the second look adds is the average over the
eight orientations and a field that is centred on the candidate; and, where the model has one, the word of another network
on the same field (`look.py`). Most candidates are nothing: two orientations say so, and the other six are saved. Deterministic.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from analysis.detector.calibration import logit, sigmoid
from analysis.detector.detection import LesionFinding, Point
from analysis.detector.engine import Engine
from analysis.detector.lesions import SCORE_CELLS, candidates
from analysis.detector.pixel_source import PixelSource, Wanted
from analysis.detector.reading_plan import MAP_MPP
from analysis.detector.side_by_side import side_by_side
from analysis.detector.turning import WAYS, turn, turn_back
from slides.wsi.resample import block_mean

FINE_MPP = 0.5
FIELD_UM = 256.0
JUDGED_UM = 128.0
"""Only the middle of the field counts: beyond it the network sees the field's edge."""
CLOSER_RIM_UM = 32.0
"""What one that looks closer sees around that: hardly less than the patches that it learnt from show around their centre, and
half of the work of a whole field."""
GLANCE_CELLS = round(JUDGED_UM / MAP_MPP)
GLANCES_AT_ONCE = 4
"""Four cost what three cost one by one."""
AT_ONCE = 2
"""Ways up. As many each time: an engine prepares itself anew for another number."""
IN_TURN = WAYS[:AT_ONCE], WAYS[AT_ONCE:]
"""Which ways up are seen first, and which only then."""


def look_again(
    source: PixelSource,
    engine: Engine,
    lesions: tuple[LesionFinding, ...],
    *,
    mpp: float,
    least_score: float,
    on_progress: Callable[[str, float], None],
    before_each: Callable[[], None],
    give_up_score: float = 0.0,
    closer: bool = True,
) -> tuple[LesionFinding, ...]:
    """The same lesions, strongest first by both looks together; only the candidates of `least_score` are looked at again.

    `mpp` is what the network reads; `before_each` may raise to stop. `closer`: whether a network that looks closer is asked,
    too, if there is one.

    The score of a candidate becomes the mean in log odds of the first look and of each network's second. What is not looked
    at again keeps its score. Where that mean is below `give_up_score` after the first two ways up, it stays at them.
    """
    chosen = candidates(lesions, least_score=least_score)
    fields = [_field(source, lesion, mpp=mpp) for lesion in chosen]
    source.prefetch(fields)
    looked: list[LesionFinding] = []
    asked = [each for each in engine.lookers if closer or each.zoom == 1]

    def calls() -> Iterator[Callable[[], float]]:
        for lesion, field in zip(chosen, fields, strict=True):
            before_each()
            rgb = source.read_at_mpp(*field).rgb
            yield partial(_score, source, asked, lesion, rgb, mpp=mpp, give_up_score=give_up_score)

    with ThreadPoolExecutor(engine.workers, thread_name_prefix="second-look") as pool:
        for again in side_by_side(pool, calls(), at_once=engine.workers):
            lesion = chosen[len(looked)]
            score = all_looks(lesion.score, again, networks=len(asked))
            looked.append(dataclasses.replace(lesion, score=score, second_look=round(again, 4)))
            on_progress("second look", len(looked) / len(chosen))
    everything = [*looked, *lesions[len(chosen) :]]
    everything.sort(key=lambda lesion: (-lesion.score, lesion.peak[1], lesion.peak[0]))
    return tuple(dataclasses.replace(lesion, rank=rank) for rank, lesion in enumerate(everything, start=1))


def all_looks(first: float, second: float, *, networks: int) -> float:
    """Mean in log odds of the first look and of the second ones of so many networks, whose mean is `second`."""
    return round(sigmoid((logit(first) + networks * logit(second)) / (1 + networks)), 4)


def second_score(source: PixelSource, engine: Engine, lesion: LesionFinding, *, mpp: float) -> float:
    """Mean probability of the lesion's strongest cells near its peak, as `lesions.py` scores, over eight orientations; of
    several networks the mean in log odds."""
    rgb = source.read_at_mpp(*_field(source, lesion, mpp=mpp)).rgb
    return _score(source, engine.lookers, lesion, rgb, mpp=mpp)


def glance(
    source: PixelSource,
    engine: Engine,
    places: Sequence[Point],
    *,
    mpp: float,
    on_progress: Callable[[str, float], None],
    before_each: Callable[[], None],
) -> list[NDArray[np.float32]]:
    """What the network says around each place (level-0 px), seen once, the way the slide lies: GLANCE_CELLS of MAP_MPP in each
    direction, the place in the middle of them, between two cells."""
    fields = [_around(source, place, side=_side(mpp), mpp=mpp) for place in places]
    source.prefetch(fields)
    said: list[NDArray[np.float32]] = []

    def calls() -> Iterator[Callable[[], NDArray[np.float32]]]:
        for first in range(0, len(fields), GLANCES_AT_ONCE):
            before_each()
            some = [source.read_at_mpp(*field).rgb for field in fields[first : first + GLANCES_AT_ONCE]]
            yield partial(_seen_once, some, engine)

    with ThreadPoolExecutor(engine.workers, thread_name_prefix="glance") as pool:
        for some in side_by_side(pool, calls(), at_once=engine.workers):
            said.extend(some)
            on_progress("glance", len(said) / len(fields))
    return said


def _seen_once(fields: Sequence[NDArray[np.uint8]], engine: Engine) -> NDArray[np.float32]:
    """Of fewer than GLANCES_AT_ONCE fields the last one fills up: an engine prepares itself anew for another number."""
    filled = [*fields, *[fields[-1]] * (GLANCES_AT_ONCE - len(fields))]
    return _map_of(np.stack(filled), engine)[: len(fields)]


def _score(
    source: PixelSource,
    lookers: Sequence[Engine],
    lesion: LesionFinding,
    rgb: NDArray[np.uint8],
    *,
    mpp: float,
    give_up_score: float = 0.0,
) -> float:
    """`rgb`: the pixels of `_field`."""
    factor = len(rgb) // _side(mpp)
    field = block_mean(rgb, factor, factor) if factor > 1 else rgb
    shape = _shape_near_peak(source, lesion)
    maps: list[list[NDArray[np.float32]]] = [[] for _ in lookers]
    again = 0.0
    for ways in IN_TURN:
        for some in (ways[i : i + AT_ONCE] for i in range(0, len(ways), AT_ONCE)):
            turned = np.stack([turn(field, way) for way in some])
            for seen, each in zip(maps, lookers, strict=True):
                if len(seen) < each.ways:
                    seen += [turn_back(one, way) for one, way in zip(_map_of(turned, each), some, strict=True)]
        said = [strongest(np.stack(seen).mean(axis=0)[shape]) for seen in maps]
        again = sigmoid(sum(map(logit, said)) / len(said)) if len(said) > 1 else said[0]
        if all_looks(lesion.score, again, networks=len(said)) < give_up_score:
            break
    return again


def strongest(cells: NDArray[np.float32]) -> float:
    """Mean of the strongest cells, as `lesions.py` scores."""
    return float(np.sort(cells, axis=None)[-SCORE_CELLS:].mean())


def _side(mpp: float) -> int:
    """Of a field as the network sees it; a multiple of 64."""
    return round(FIELD_UM / mpp / 64) * 64


def _field(source: PixelSource, lesion: LesionFinding, *, mpp: float) -> Wanted:
    """Around the peak, some whole times finer than `mpp` where the slide has more to show."""
    assert source.mpp_x
    assert source.mpp_y
    fine = mpp > FINE_MPP and max(source.mpp_x, source.mpp_y) <= FINE_MPP * 1.05
    factor = round(mpp / FINE_MPP) if fine else 1
    return _around(source, lesion.peak, side=_side(mpp) * factor, mpp=mpp / factor)


def _around(source: PixelSource, place: Point, *, side: int, mpp: float) -> Wanted:
    assert source.mpp_x
    assert source.mpp_y
    half_um = side * mpp / 2
    x0, y0 = place[0] - half_um / source.mpp_x, place[1] - half_um / source.mpp_y
    return x0, y0, side, side, mpp


def _map_of(fields: NDArray[np.uint8], engine: Engine) -> NDArray[np.float32]:
    """(n, side, side, 3) -> (n, cells, cells) of MAP_MPP, of the middle of each field."""
    per_um = fields.shape[1] / FIELD_UM
    rim = round((FIELD_UM - JUDGED_UM) / 2 * per_um)
    if engine.zoom > 1:
        left_out = rim - round(CLOSER_RIM_UM * per_um)
        fields, rim = (
            fields[:, left_out : fields.shape[1] - left_out, left_out : fields.shape[2] - left_out],
            rim - left_out,
        )
    p = engine.read(fields, margin_px=rim).probability
    cells = round(JUDGED_UM / MAP_MPP)
    per_cell = p.shape[1] // cells
    middle: NDArray[np.float32] = p.reshape(len(p), cells, per_cell, cells, per_cell).mean(axis=(2, 4))
    return middle


def _shape_near_peak(source: PixelSource, lesion: LesionFinding) -> NDArray[np.bool_]:
    """The cells of the lesion in the middle of its field; at least the four around the peak."""
    assert source.mpp_x
    assert source.mpp_y
    n = round(JUDGED_UM / MAP_MPP)
    x0, y0 = (lesion.peak[0] - JUDGED_UM / 2 / source.mpp_x, lesion.peak[1] - JUDGED_UM / 2 / source.mpp_y)
    image = Image.new("1", (n, n))
    draw = ImageDraw.Draw(image)
    for i, ring in enumerate(lesion.outline):
        points = [((x - x0) * source.mpp_x / MAP_MPP, (y - y0) * source.mpp_y / MAP_MPP) for x, y in ring]
        if len(points) >= 3:
            draw.polygon(points, fill=0 if i else 1)
    shape = np.array(image, bool)
    shape[n // 2 - 1 : n // 2 + 1, n // 2 - 1 : n // 2 + 1] = True
    return shape
