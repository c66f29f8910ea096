"""um per pixel from the tags of a TIFF file: OME PhysicalSize, an "MPP =" in the description, the resolution tags."""

import re

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from slides.wsi import tiff_walk
from slides.wsi.properties import NO_SCALE, Scale, mpp_from_description, positive_number
from slides.wsi.tiff_walk import TiffDirectory, TiffLayout

_UM_IN = {
    "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "Å": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4,
    "m": 1e6, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip
_UM_IN_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}
_LARGEST_XML = 16 << 20


def scale_of_tiff(layout: TiffLayout) -> Scale:
    """The first source that gives both axes. Resolution tags without a unit give nothing: they are only a shape."""
    first = layout.image
    return _from_ome(first.description) or _from_text(first.description) or _from_resolution(first) or NO_SCALE


def _from_ome(description: str) -> Scale | None:
    if "<OME" not in description or len(description) > _LARGEST_XML:
        return None
    try:
        root = defusedxml.ElementTree.fromstring(description.encode("utf-8"))
    except (DefusedXmlException, SyntaxError, ValueError):
        return None
    for element in root.iter():
        if element.tag.rsplit("}", 1)[-1] == "Pixels":
            sizes = [_physical_size(element.attrib, axis) for axis in "XY"]
            return Scale(sizes[0], sizes[1], "file:ome.PhysicalSizeX") if all(sizes) else None
    return None


def _physical_size(attributes: dict[str, str], axis: str) -> float | None:
    value = positive_number(attributes.get(f"PhysicalSize{axis}", ""))
    unit = _UM_IN.get(attributes.get(f"PhysicalSize{axis}Unit", "µm").replace("μ", "µ"))
    return value * unit if value and unit else None


def _from_text(description: str) -> Scale | None:
    mpp = mpp_from_description(re.sub(r"<[^>]*>", " ", description[:65536]))
    return Scale(mpp, mpp, "file:tiff.ImageDescription") if mpp else None


def _from_resolution(directory: TiffDirectory) -> Scale | None:
    um = _UM_IN_RESOLUTION_UNIT.get(directory.number(tiff_walk.RESOLUTION_UNIT, 2))
    per_unit = [directory.rational(tag) for tag in (tiff_walk.X_RESOLUTION, tiff_walk.Y_RESOLUTION)]
    if um is None or not all(per_unit):
        return None
    sizes = [positive_number(um / value) if value else None for value in per_unit]
    return Scale(sizes[0], sizes[1], "file:tiff.XResolution") if all(sizes) else None
