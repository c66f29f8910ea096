"""Outlines of tumour: ASAP XML, as CAMELYON16 and CAMELYON17 come with, and GeoJSON, as QuPath exports it.

Groups (ASAP) or classes (QuPath) `_0`, `_1`, `Tumor`, `metastases` are tumour; `_2`, `None`, `Exclusion`, `normal`
are cut out of it again. Masks (TIFF) are read by `annotation_masks`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse as parse_safely
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely.geometry import Polygon

TUMOUR_GROUPS = {"_0", "_1", "tumor", "tumour", "metastases", "metastasis"}
NORMAL_GROUPS = {"_2", "none", "exclusion", "normal"}
OUTLINE_SUFFIXES = (".xml", ".geojson", ".json")


class AnnotationError(ValueError):
    """The annotation file cannot be used; the message says why."""


@dataclass(frozen=True)
class Annotation:
    tumour: bool
    """False: normal tissue cut out of the tumour."""
    ring: NDArray[np.float64]
    """(n, 2) x, y in level-0 px."""
    holes: tuple[NDArray[np.float64], ...] = ()
    """Of this outline alone (GeoJSON); what another outline says inside them stays."""


def read_asap(path: Path) -> list[Annotation]:
    """Raises AnnotationError for a file that is not ASAP XML, an unknown group or a broken coordinate."""
    try:
        root = parse_safely(path).getroot()
    except (OSError, ElementTree.ParseError, DefusedXmlException) as problem:
        raise AnnotationError(f"{path.name} is not readable XML: {problem}") from problem
    found = []
    for element in root.iter("Annotation"):
        group = element.get("PartOfGroup", "").strip()
        if group.lower() not in TUMOUR_GROUPS | NORMAL_GROUPS:
            raise AnnotationError(f"{path.name}: unknown annotation group {group!r}")
        try:
            points = [
                (int(c.get("Order", "0")), float(c.get("X", "")), float(c.get("Y", "")))
                for c in element.iter("Coordinate")
            ]
        except ValueError as problem:
            raise AnnotationError(f"{path.name}: a coordinate is no number ({problem})") from problem
        if len(points) >= 3:
            ring = np.array([point[1:] for point in sorted(points)], np.float64)
            found.append(Annotation(tumour=group.lower() in TUMOUR_GROUPS, ring=ring))
    return found


def read_geojson(path: Path) -> list[Annotation]:
    """Polygons of a GeoJSON file in level-0 px, as QuPath's "Export objects as GeoJSON" writes them.

    The class stands in `properties.classification.name` (or `properties.group`); an object without one is tumour,
    since an unnamed outline in an annotation file is what was outlined. Objects of other kinds (points, lines) are left
    out. Raises AnnotationError for what is no GeoJSON, an unknown class or a broken coordinate.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise AnnotationError(f"{path.name} is not readable GeoJSON: {problem}") from problem
    found: list[Annotation] = []
    for feature in _features(content, path):
        geometry = feature.get("geometry") or {}
        polygons = {"Polygon": lambda c: [c], "MultiPolygon": lambda c: c}.get(str(geometry.get("type")))
        if polygons is None:
            continue
        tumour = _is_tumour(feature, path)
        try:
            for rings in polygons(geometry["coordinates"]):
                arrays = [np.array(ring, np.float64)[:, :2] for ring in rings]
                if any(not np.isfinite(ring).all() for ring in arrays):
                    raise ValueError("not finite")
                found.append(Annotation(tumour=tumour, ring=arrays[0], holes=tuple(arrays[1:])))
        except (ValueError, TypeError, KeyError, IndexError) as problem:
            raise AnnotationError(f"{path.name}: a polygon has broken coordinates ({problem})") from problem
    return found


def _features(content: Any, path: Path) -> Iterator[dict[str, Any]]:
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, dict) and content.get("type") == "Feature":
        content = [content]
    if not isinstance(content, list) or not all(isinstance(f, dict) and f.get("type") == "Feature" for f in content):
        raise AnnotationError(f"{path.name} is no GeoJSON of features")
    yield from content


def _is_tumour(feature: dict[str, Any], path: Path) -> bool:
    properties = feature.get("properties") or {}
    named = properties.get("classification") or {}
    group = str((named.get("name") if isinstance(named, dict) else named) or properties.get("group") or "tumor")
    if group.strip().lower() not in TUMOUR_GROUPS | NORMAL_GROUPS:
        raise AnnotationError(f"{path.name}: unknown class {group!r}")
    return group.strip().lower() in TUMOUR_GROUPS


def read_outlines(path: Path) -> list[Annotation]:
    """ASAP XML or GeoJSON, by the file's ending. Raises AnnotationError."""
    return read_asap(path) if path.suffix.lower() == ".xml" else read_geojson(path)


def write_asap(path: Path, polygons: list[Polygon]) -> None:
    """Level-0 px. Outer rings go to group _0, holes to group _2, as in CAMELYON16."""
    root = ElementTree.Element("ASAP_Annotations")
    listing = ElementTree.SubElement(root, "Annotations")
    rings = [("_0", p.exterior) for p in polygons] + [("_2", hole) for p in polygons for hole in p.interiors]
    for i, (group, ring) in enumerate(rings):
        attributes = {"Name": f"Annotation {i}", "Type": "Polygon", "PartOfGroup": group, "Color": "#F4FA58"}
        element = ElementTree.SubElement(listing, "Annotation", attributes)
        coordinates = ElementTree.SubElement(element, "Coordinates")
        for order, (x, y) in enumerate(list(ring.coords)[:-1]):
            ElementTree.SubElement(coordinates, "Coordinate", {"Order": str(order), "X": f"{x:.1f}", "Y": f"{y:.1f}"})
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    for name in ("_0", "_2"):
        ElementTree.SubElement(groups, "Group", {"Name": name, "PartOfGroup": "None", "Color": "#F4FA58"})
    ElementTree.indent(root)
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def paint(
    annotations: list[Annotation],
    *,
    rows: int,
    cols: int,
    cell_x0: float,
    cell_y0: float,
    left0: float = 0.0,
    top0: float = 0.0,
) -> NDArray[np.bool_]:
    """The tumour on a grid (rows, cols) whose cells are cell_x0 by cell_y0 level-0 px: tumour first, then cut-outs.

    The grid's upper left corner lies at left0, top0 (level-0 px).
    """
    image = Image.new("1", (cols, rows))
    draw = ImageDraw.Draw(image)
    origin, cell = np.array([left0, top0]), np.array([cell_x0, cell_y0])
    for annotation in sorted(annotations, key=lambda a: not a.tumour):
        outer, *holes = [_points(ring, origin, cell) for ring in (annotation.ring, *annotation.holes)]
        if not holes:
            draw.polygon(outer, fill=int(annotation.tumour))
            continue
        own = Image.new("1", (cols, rows))
        own_draw = ImageDraw.Draw(own)
        own_draw.polygon(outer, fill=1)
        for hole in holes:
            own_draw.polygon(hole, fill=0)
        image.paste(int(annotation.tumour), mask=own)
    return np.asarray(image, dtype=bool)


def _points(
    ring: NDArray[np.float64], origin: NDArray[np.float64], cell: NDArray[np.float64]
) -> list[tuple[float, ...]]:
    return [tuple(point) for point in ((ring - origin) / cell - 0.5).tolist()]
