"""A whole slide composed of real tissue: nodes with sinus-like islands, fat around them, lesions with exact outlines."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from shapely import affinity
from shapely.geometry import Polygon

from analysis.detector.composing.outlines import LesionOutline, lesion_mask, smooth_blob
from analysis.detector.composing.quilting import quilt
from analysis.detector.composing.tissue_pool import GLASS_RGB, TissuePools
from analysis.detector.lesions import longest_diameter_um
from analysis.detector.outline_tracing import mask_polygon
from analysis.detector.reading_plan import MAP_MPP
from analysis.detector.training.regions import soft_edge
from analysis.metrics.staging import size_class

LONGEST_UM = {"itc": (60.0, 170.0), "micro": (300.0, 1600.0), "macro": (2150.0, 3600.0)}
_TRIES = 60
_GAP_PX = 160
"""Between two lesions: more than the 75 um within which foci count as one."""


class NoRoom(ValueError):
    """A node or lesion of the wanted size does not fit; a larger canvas or fewer of them is needed."""


@dataclass(frozen=True)
class PlacedLesion:
    size_class: str
    longest_mm: float
    polygon: Polygon
    """Level-0 px."""
    source_outline: str
    """Slide from which the outline is."""


@dataclass
class ComposedSlide:
    rgb: NDArray[np.uint8]  # (H, W, 3)
    mpp: float
    tumour: NDArray[np.bool_]  # (H, W)
    nodes: list[NDArray[np.bool_]] = field(default_factory=list)
    lesions: list[PlacedLesion] = field(default_factory=list)


@dataclass(frozen=True)
class SlidePlan:
    """What is wanted: canvas in px and the lesions by class; nodes share the canvas side by side."""

    width: int
    height: int
    nodes: int
    lesions: tuple[str, ...]
    mpp: float


def compose_slide(
    plan: SlidePlan, *, pools: TissuePools, outlines: list[LesionOutline], rng: np.random.Generator
) -> ComposedSlide:
    """Raises NoRoom when the lesions do not fit."""
    slide = ComposedSlide(
        rgb=np.full((plan.height, plan.width, 3), GLASS_RGB, np.uint8),
        mpp=plan.mpp,
        tumour=np.zeros((plan.height, plan.width), bool),
    )
    boxes = _node_boxes(plan, rng)
    for top, left, height, width in boxes:
        _lay_node(slide, pools, top, left, height, width, rng)
    by_size = sorted(plan.lesions, key=("macro", "micro", "itc").index)
    for kind in by_size:
        _lay_lesion(slide, kind, pools, outlines, rng)
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
    target = slide.rgb[top : top + mask.shape[0], left : left + mask.shape[1]]
    mixed = target + weight[..., None] * (filling.astype(np.float32) - target)
    target[:] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return weight


def _lay_node(
    slide: ComposedSlide, pools: TissuePools, top: int, left: int, height: int, width: int, rng: np.random.Generator
) -> None:
    whole = smooth_blob(height=height, width=width, roughness=0.25, rng=rng)
    _blend(slide, whole, quilt(pools.fat, height=height, width=width, rng=rng, where=whole), top, left, rng)
    rim_y, rim_x = int(height * rng.uniform(0.04, 0.08)), int(width * rng.uniform(0.04, 0.08))
    inner = np.zeros_like(whole)
    blob = smooth_blob(height=height - 2 * rim_y, width=width - 2 * rim_x, roughness=0.18, rng=rng)
    inner[rim_y : rim_y + blob.shape[0], rim_x : rim_x + blob.shape[1]] = blob
    inner &= whole
    tissue = quilt(pools.lymphoid, height=height, width=width, rng=rng, where=inner)
    weight = _blend(slide, inner, tissue, top, left, rng)
    node = np.zeros(slide.tumour.shape, bool)
    node[top : top + height, left : left + width] = weight > 0.5
    slide.nodes.append(node)
    for _ in range(int(rng.integers(4, 9))):
        _lay_island(slide, node, pools, rng)


def _lay_island(slide: ComposedSlide, node: NDArray[np.bool_], pools: TissuePools, rng: np.random.Generator) -> None:
    """Normal tissue that classifiers take for tumour: sinuses, stroma, germinal centres."""
    height, width = (int(v) for v in rng.integers(120, 620, 2))
    shape = smooth_blob(height=height, width=width, roughness=0.4, rng=rng)
    place = _place(shape, inside=node, free_of=None, rng=rng, least_inside=0.8)
    if place is not None:
        filling = quilt(pools.other_normal, height=height, width=width, rng=rng, where=shape)
        _blend(slide, shape, filling, *place, rng)


def _lay_lesion(
    slide: ComposedSlide, kind: str, pools: TissuePools, outlines: list[LesionOutline], rng: np.random.Generator
) -> None:
    low, high = LONGEST_UM[kind]
    alike = [o for o in outlines if low * 0.5 <= o.longest_um <= high * 2.5] or outlines
    for _ in range(_TRIES):
        outline = alike[int(rng.integers(len(alike)))]
        wanted = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        if wanted / slide.mpp > max(slide.tumour.shape):
            continue
        mask = lesion_mask(outline, longest_um=wanted, mpp=slide.mpp, rng=rng)
        longest = longest_diameter_um(mask) / MAP_MPP * slide.mpp
        if size_class(longest / 1000) != kind or not low <= longest <= high * 1.3 or mask.mean() < 0.2:
            continue
        node = slide.nodes[int(rng.integers(len(slide.nodes)))]
        padded = np.pad(mask, 12)
        place = _place(padded, inside=node, free_of=slide.tumour, rng=rng, least_inside=0.97)
        if place is None:
            continue
        filling = quilt(pools.tumour, height=padded.shape[0], width=padded.shape[1], rng=rng, where=padded)
        solid = _blend(slide, padded, filling, *place, rng) > 0.5
        top, left = place
        slide.tumour[top : top + solid.shape[0], left : left + solid.shape[1]] |= solid
        polygon = affinity.translate(mask_polygon(solid, simplify=1.0), left, top)
        final = longest_diameter_um(solid) / MAP_MPP * slide.mpp / 1000
        slide.lesions.append(PlacedLesion(size_class(final), round(final, 4), polygon, outline.slide))
        return
    raise NoRoom(f"a lesion of class {kind} does not fit on a canvas of {slide.rgb.shape[1]} x {slide.rgb.shape[0]} px")


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
    for _ in range(_TRIES):
        top, left = int(rng.integers(*top_range)), int(rng.integers(*left_range))
        window = np.s_[top : top + shape.shape[0], left : left + shape.shape[1]]
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
