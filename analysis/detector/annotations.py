"""Annotations in ASAP XML, as CAMELYON16 and CAMELYON17 come with.

Groups `_0`, `_1`, `Tumor`, `metastases` are tumour; `_2`, `None`, `Exclusion`, `normal` are cut out of it again.
"""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse as parse_safely
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely.geometry import Polygon

TUMOUR_GROUPS = {"_0", "_1", "tumor", "tumour", "metastases"}
NORMAL_GROUPS = {"_2", "none", "exclusion", "normal"}


class AnnotationError(ValueError):
    """The annotation file cannot be used; the message says why."""


@dataclass(frozen=True)
class Annotation:
    tumour: bool
    """False: normal tissue cut out of the tumour."""
    ring: NDArray[np.float64]
    """(n, 2) x, y in level-0 px."""


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


def paint(annotations: list[Annotation], *, rows: int, cols: int, cell_x0: float, cell_y0: float) -> NDArray[np.bool_]:
    """The tumour on a grid (rows, cols) whose cells are cell_x0 by cell_y0 level-0 px: tumour first, then cut-outs."""
    image = Image.new("1", (cols, rows))
    draw = ImageDraw.Draw(image)
    for annotation in sorted(annotations, key=lambda a: not a.tumour):
        points = annotation.ring / np.array([cell_x0, cell_y0]) - 0.5
        draw.polygon([tuple(p) for p in points.tolist()], fill=int(annotation.tumour))
    return np.asarray(image, dtype=bool)
