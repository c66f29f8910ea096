"""A whole slide composed of real tissue: nodes with sinus-like islands, fat around them, lesions with exact outlines."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from shapely import affinity
from shapely.geometry import MultiPolygon

from analysis.detector.composing.edges import lay, soft_edge
from analysis.detector.composing.outlines import LesionOutline, lesion_mask, smooth_blob
from analysis.detector.composing.sheets import TissueSource
from analysis.detector.composing.tags import TagMap
from analysis.detector.composing.tissue_pool import GLASS_RGB
from analysis.detector.lesions import longest_diameter_um
from analysis.detector.outline_tracing import mask_polygon
from analysis.detector.reading_plan import MAP_MPP
from analysis.metrics.staging import size_class

LONGEST_UM = {"itc": (60.0, 170.0), "micro": (300.0, 1600.0), "macro": (2150.0, 3600.0)}
"""Sizes far from the borders of the classes, as a demonstration wants them."""
WHOLE_RANGE_UM = {"itc": (50.0, 195.0), "micro": (205.0, 1950.0), "macro": (2020.0, 3600.0)}
"""Sizes up to the borders, as a benchmark needs them."""
DECOY_TAGS = {"other_normal": "hard_negative", "pale_normal": "pale_normal", "lymphoid": "blend_only"}
"""Tag of a decoy by the tissue it is filled with; lymphoid in lymphoid differs by nothing but the blending."""
_TRIES = 60
_COARSE = 8
_SPECK_PX = 12
_GAP_PX = 160
"""Between two lesions: more than the 75 um within which foci count as one."""


class NoRoom(ValueError):
    """A node or lesion of the wanted size does not fit; a larger canvas or fewer of them is needed."""


@dataclass(frozen=True)
class PlacedLesion:
    size_class: str
    longest_mm: float
    polygon: MultiPolygon
    """Px of the slide. Where the soft edge cut a thin neck, a lesion has several parts, close to each other."""
    source_outline: str
    """Slide from which the outline is."""


@dataclass(frozen=True)
class Decoy:
    """Normal tissue laid under a lesion's outline in a lesion's way: the blending alone shall say nothing."""

    tissue: str
    size_class: str
    """That a lesion of its size would have."""


@dataclass(frozen=True)
class PlacedDecoy:
    tissue: str
    longest_mm: float
    bbox: tuple[int, int, int, int]
    """left, top, right, bottom in px of the slide."""


@dataclass
class ComposedSlide:
    rgb: NDArray[np.uint8]  # (H, W, 3)
    mpp: float
    tumour: NDArray[np.bool_]  # (H, W)
    tags: TagMap
    nodes: list[NDArray[np.bool_]] = field(default_factory=list)
    lesions: list[PlacedLesion] = field(default_factory=list)
    decoys: list[PlacedDecoy] = field(default_factory=list)
    taken: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    """(H, W) where a lesion or a decoy lies."""


@dataclass(frozen=True)
class SlidePlan:
    """What is wanted: canvas in px, the lesions by class and the decoys; nodes share the canvas side by side."""

    width: int
    height: int
    nodes: int
    lesions: tuple[str, ...]
    mpp: float
    longest_um: Mapping[str, tuple[float, float]] = field(default_factory=lambda: LONGEST_UM)
    decoys: tuple[Decoy, ...] = ()
    fat_lobules: int = 0
    """Pieces of fat beside the nodes."""


def compose_slide(
    plan: SlidePlan, *, tissue: TissueSource, outlines: list[LesionOutline], rng: np.random.Generator
) -> ComposedSlide:
    """Raises NoRoom when the lesions do not fit; a decoy that does not fit is left out."""
    canvas = (plan.height, plan.width)
    slide = ComposedSlide(
        rgb=np.full((*canvas, 3), GLASS_RGB, np.uint8),
        mpp=plan.mpp,
        tumour=np.zeros(canvas, bool),
        tags=TagMap.of(width=plan.width, height=plan.height, mpp=plan.mpp),
        taken=np.zeros(canvas, bool),
    )
    for _ in range(plan.fat_lobules):
        _lay_fat(slide, tissue, rng)
    boxes = _node_boxes(plan, rng)
    for top, left, height, width in boxes:
        _lay_node(slide, tissue, top, left, height, width, rng)
    by_size = sorted(plan.lesions, key=("macro", "micro", "itc").index)
    for kind in by_size:
        _lay_lesion(slide, kind, plan, tissue, outlines, rng)
    for decoy in sorted(plan.decoys, key=lambda d: ("macro", "micro", "itc").index(d.size_class)):
        _lay_decoy(slide, decoy, plan, tissue, outlines, rng)
    return slide


def _node_boxes(plan: SlidePlan, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """top, left, height, width: one strip of the canvas for each node."""
    strip = plan.width // plan.nodes
    boxes = []
    for i in range(plan.nodes):
        width = int(strip * rng.uniform(0.80, 0.94))
        height = int(plan.height * rng.uniform(0.62, 0.92))
        left = i * strip + int(rng.integers(0, strip - width + 1))
        boxes.append((int(rng.integers(0, plan.height - height + 1)), left, height, width))
    return boxes


def _blend(
    slide: ComposedSlide,
    mask: NDArray[np.bool_],
    filling: NDArray[np.uint8],
    top: int,
    left: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Lay `filling` over the slide where `mask`, with a soft edge; returns the weight."""
    weight = soft_edge(mask, rng=rng)
    lay(slide.rgb[top : top + mask.shape[0], left : left + mask.shape[1]], filling, weight)
    return weight


def _lay_fat(slide: ComposedSlide, tissue: TissueSource, rng: np.random.Generator) -> None:
    height, width = (int(v / slide.mpp) for v in rng.uniform(500, 1500, 2))
    height, width = min(height, slide.tumour.shape[0]), min(width, slide.tumour.shape[1])
    top = int(rng.integers(0, slide.tumour.shape[0] - height + 1))
    left = int(rng.integers(0, slide.tumour.shape[1] - width + 1))
    shape = smooth_blob(height=height, width=width, roughness=0.5, rng=rng)
    _blend(slide, shape, tissue.fill("fat", height=height, width=width, rng=rng, where=shape), top, left, rng)
    slide.tags.add(("tissue", "fat"), shape, top=top, left=left)


def _lay_node(
    slide: ComposedSlide, tissue: TissueSource, top: int, left: int, height: int, width: int, rng: np.random.Generator
) -> None:
    whole = smooth_blob(height=height, width=width, roughness=0.25, rng=rng)
    _blend(slide, whole, tissue.fill("fat", height=height, width=width, rng=rng, where=whole), top, left, rng)
    rim_y, rim_x = int(height * rng.uniform(0.04, 0.08)), int(width * rng.uniform(0.04, 0.08))
    inner = np.zeros_like(whole)
    blob = smooth_blob(height=height - 2 * rim_y, width=width - 2 * rim_x, roughness=0.18, rng=rng)
    inner[rim_y : rim_y + blob.shape[0], rim_x : rim_x + blob.shape[1]] = blob
    inner &= whole
    lymphoid = tissue.fill("lymphoid", height=height, width=width, rng=rng, where=inner)
    weight = _blend(slide, inner, lymphoid, top, left, rng)
    slide.tags.add(("tissue", "fat"), whole, top=top, left=left)
    slide.tags.remove(("fat",), inner, top=top, left=left)
    node = np.zeros(slide.tumour.shape, bool)
    node[top : top + height, left : left + width] = weight > 0.5
    slide.nodes.append(node)
    for _ in range(int(rng.integers(4, 9))):
        _lay_island(slide, node, tissue, rng)


def _lay_island(slide: ComposedSlide, node: NDArray[np.bool_], tissue: TissueSource, rng: np.random.Generator) -> None:
    """Normal tissue that classifiers take for tumour: sinuses, stroma, germinal centres."""
    height, width = (int(v) for v in rng.integers(120, 620, 2))
    shape = smooth_blob(height=height, width=width, roughness=0.4, rng=rng)
    place = _place(shape, inside=node, free_of=None, rng=rng, least_inside=0.8)
    if place is not None:
        filling = tissue.fill("other_normal", height=height, width=width, rng=rng, where=shape)
        _blend(slide, shape, filling, *place, rng)
        slide.tags.add(("hard_negative",), shape, top=place[0], left=place[1])


def _shape_of(
    kind: str, plan: SlidePlan, outlines: list[LesionOutline], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], LesionOutline] | None:
    """A real outline brought to a size of its class; None when this draw is of no use."""
    low, high = plan.longest_um[kind]
    alike = [o for o in outlines if low * 0.5 <= o.longest_um <= high * 2.5] or outlines
    outline = alike[int(rng.integers(len(alike)))]
    wanted = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if wanted / plan.mpp > max(plan.width, plan.height):
        return None
    mask = lesion_mask(outline, longest_um=wanted, mpp=plan.mpp, rng=rng)
    longest = longest_diameter_um(mask) / MAP_MPP * plan.mpp
    if size_class(longest / 1000) != kind or not low <= longest <= high * 1.3 or mask.mean() < 0.2:
        return None
    return np.pad(mask, 12), outline


def _lay_lesion(
    slide: ComposedSlide,
    kind: str,
    plan: SlidePlan,
    tissue: TissueSource,
    outlines: list[LesionOutline],
    rng: np.random.Generator,
) -> None:
    for _ in range(_TRIES):
        drawn = _shape_of(kind, plan, outlines, rng)
        if drawn is None:
            continue
        shape, outline = drawn
        node = slide.nodes[int(rng.integers(len(slide.nodes)))]
        place = _place(shape, inside=node, free_of=slide.tumour, rng=rng, least_inside=0.97)
        if place is None:
            continue
        filling = tissue.fill("tumour", height=shape.shape[0], width=shape.shape[1], rng=rng, where=shape)
        weight = soft_edge(shape, rng=rng)
        solid = weight > 0.5
        top, left = place
        final = longest_diameter_um(solid) / MAP_MPP * slide.mpp / 1000
        if plan.longest_um is not LONGEST_UM and size_class(final) != kind:  # the soft edge took it over the border
            continue
        lay(slide.rgb[top : top + shape.shape[0], left : left + shape.shape[1]], filling, weight)
        slide.tumour[top : top + solid.shape[0], left : left + solid.shape[1]] |= solid
        slide.taken[top : top + solid.shape[0], left : left + solid.shape[1]] |= solid
        polygon = affinity.translate(_all_parts(solid), left, top)
        slide.lesions.append(PlacedLesion(size_class(final), round(final, 4), polygon, outline.slide))
        return
    raise NoRoom(f"a lesion of class {kind} does not fit on a canvas of {slide.rgb.shape[1]} x {slide.rgb.shape[0]} px")


def _all_parts(solid: NDArray[np.bool_]) -> MultiPolygon:
    """Every 8-connected part that is more than a speck: tumour without an outline would be truth withheld."""
    labels, _ = label(solid, structure=np.ones((3, 3), int))
    parts = []
    for number, place in enumerate(find_objects(labels), start=1):
        part = labels[place] == number
        if part.sum() >= _SPECK_PX:
            parts.append(mask_polygon(part, col0=place[1].start, row0=place[0].start, simplify=1.0))
    return MultiPolygon(parts)


def _lay_decoy(
    slide: ComposedSlide,
    decoy: Decoy,
    plan: SlidePlan,
    tissue: TissueSource,
    outlines: list[LesionOutline],
    rng: np.random.Generator,
) -> None:
    for _ in range(_TRIES // 4):
        drawn = _shape_of(decoy.size_class, plan, outlines, rng)
        if drawn is None:
            continue
        shape, _outline = drawn
        node = slide.nodes[int(rng.integers(len(slide.nodes)))]
        place = _place(shape, inside=node, free_of=slide.taken, rng=rng, least_inside=0.97)
        if place is None:
            continue
        top, left = place
        height, width = shape.shape
        filling = tissue.fill(decoy.tissue, height=height, width=width, rng=rng, where=shape)
        solid = _blend(slide, shape, filling, top, left, rng) > 0.5
        slide.taken[top : top + height, left : left + width] |= solid
        slide.tags.add((DECOY_TAGS[decoy.tissue],), solid, top=top, left=left)
        longest = longest_diameter_um(solid) / MAP_MPP * slide.mpp / 1000
        slide.decoys.append(PlacedDecoy(decoy.tissue, round(longest, 4), (left, top, left + width, top + height)))
        return


def _place(
    shape: NDArray[np.bool_],
    *,
    inside: NDArray[np.bool_],
    free_of: NDArray[np.bool_] | None,
    rng: np.random.Generator,
    least_inside: float,
) -> tuple[int, int] | None:
    """A place (top, left) where `shape` lies in `inside` and keeps its distance from `free_of`; None after some tries."""
    ys, xs = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top_range, left_range = (ys[0], ys[-1] + 1 - shape.shape[0]), (xs[0], xs[-1] + 1 - shape.shape[1])
    if top_range[1] <= top_range[0] or left_range[1] <= left_range[0]:
        return None
    area = shape.sum()
    coarse = shape[::_COARSE, ::_COARSE]
    nearly = (least_inside - 0.05) * coarse.sum()
    for _ in range(_TRIES):
        top, left = int(rng.integers(*top_range)), int(rng.integers(*left_range))
        window = np.s_[top : top + shape.shape[0], left : left + shape.shape[1]]
        if (inside[window][::_COARSE, ::_COARSE] & coarse).sum() < nearly:
            continue
        if (inside[window] & shape).sum() < least_inside * area:
            continue
        if free_of is not None:
            wide = np.s_[
                max(top - _GAP_PX, 0) : top + shape.shape[0] + _GAP_PX,
                max(left - _GAP_PX, 0) : left + shape.shape[1] + _GAP_PX,
            ]
            if free_of[wide].any():
                continue
        return top, left
    return None
