"""Checking and measuring an outline that a reader drew."""

import math
from typing import Any

import numpy as np
from shapely import make_valid
from shapely.geometry import Polygon

from review.errors import InvalidInput
from slides.models import Slide

MAX_POINTS = 5000


def checked_outline(outline: Any, *, slide: Slide) -> list[list[list[float]]]:
    """[[ring], [hole], ...] of level-0 pixels as floats, each ring open. Raises InvalidInput with what is wrong."""
    if not isinstance(outline, list) or not outline or not all(isinstance(ring, list) for ring in outline):
        raise InvalidInput("An outline is a list of rings, each a list of [x, y].")
    if sum(len(ring) for ring in outline) > MAX_POINTS:
        raise InvalidInput(f"The outline has more than {MAX_POINTS} points.")
    rings = [_checked_ring(ring, slide) for ring in outline]
    if Polygon(rings[0]).area <= 0 and make_valid(Polygon(rings[0])).area <= 0:
        raise InvalidInput("The outline encloses nothing.")
    return rings


def measure(outline: list[list[list[float]]], *, slide: Slide) -> tuple[float | None, float | None]:
    """Longest diameter in mm and area in mm2; None for both while the slide has no scale."""
    if slide.mpp_x is None or slide.mpp_y is None:
        return None, None
    scale = np.array([slide.mpp_x, slide.mpp_y]) / 1000.0
    rings = [np.asarray(ring, dtype=float) * scale for ring in outline]
    shape = make_valid(Polygon(rings[0], rings[1:]))
    corners = np.asarray(Polygon(rings[0]).convex_hull.exterior.coords)
    gaps = corners[:, None, :] - corners[None, :, :]
    return float(np.sqrt((gaps**2).sum(axis=2)).max()), float(shape.area)


def _checked_ring(ring: list[Any], slide: Slide) -> list[list[float]]:
    points = [_checked_point(point, slide) for point in ring]
    if len(points) > 1 and points[0] == points[-1]:
        points.pop()
    if len(points) < 3:
        raise InvalidInput("An outline needs at least three points.")
    return points


def _checked_point(point: Any, slide: Slide) -> list[float]:
    if not isinstance(point, list) or len(point) != 2 or not all(_is_number(value) for value in point):
        raise InvalidInput("Each point of an outline is [x, y] in level-0 pixels.")
    x0, y0 = float(point[0]), float(point[1])
    if not (0 <= x0 <= (slide.width or 0) and 0 <= y0 <= (slide.height or 0)):
        raise InvalidInput("A point of the outline lies outside of the slide.")
    return [x0, y0]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
