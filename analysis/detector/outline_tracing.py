"""The outline of a mask as one polygon with holes."""

import numpy as np
from numpy.typing import NDArray
from shapely import box as rectangle
from shapely import unary_union
from shapely.geometry import MultiPolygon, Polygon


def mask_polygon(mask: NDArray[np.bool_], *, col0: int = 0, row0: int = 0, simplify: float = 0.7) -> Polygon:
    """In cells of the mask, moved by col0, row0. Raises ValueError for an empty mask.

    Cells that touch at a corner alone are welded there, so that an 8-connected mask gives one ring. Of several parts
    the largest is returned. `simplify` is the greatest departure from the true edge, in cells.
    """
    boxes = []
    for row, line in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        for start, end in edges.reshape(-1, 2):
            boxes.append(rectangle(col0 + start, row0 + row, col0 + end, row0 + row + 1))
    if not boxes:
        raise ValueError("an empty mask has no outline")
    whole = unary_union(boxes).buffer(0.05, join_style="mitre").simplify(simplify)
    if isinstance(whole, MultiPolygon):
        whole = max(whole.geoms, key=lambda part: part.area)
    if not isinstance(whole, Polygon):
        raise ValueError("the mask has no outline")
    return whole
