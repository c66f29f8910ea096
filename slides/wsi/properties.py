"""What a slide file says about itself, and what of it is believed."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from slides.wsi.geometry import Level

PLAUSIBLE_MPP = (0.1, 2.0)
"""um per pixel at level 0 of a scanned slide; wrong units give values far outside."""


class ScaleState(StrEnum):
    OK = "ok"
    MISSING = "missing"
    IMPLAUSIBLE = "implausible"


@dataclass(frozen=True, slots=True)
class Scale:
    """um per level-0 pixel with where it was found, for example `file:aperio.MPP`."""

    mpp_x: float | None
    mpp_y: float | None
    source: str

    @property
    def state(self) -> ScaleState:
        if self.mpp_x is None or self.mpp_y is None:
            return ScaleState.MISSING
        low, high = PLAUSIBLE_MPP
        plausible = all(low <= mpp <= high for mpp in (self.mpp_x, self.mpp_y))
        return ScaleState.OK if plausible else ScaleState.IMPLAUSIBLE


NO_SCALE = Scale(None, None, "none")


@dataclass(frozen=True, slots=True)
class SlideProperties:
    """`mpp_x`, `mpp_y` are what the file says, also where `scale_state` is implausible: use them only when it is ok."""

    format: str
    vendor: str
    width: int
    height: int
    levels: tuple[Level, ...]
    mpp_x: float | None = None
    mpp_y: float | None = None
    mpp_source: str = "none"
    scale_state: str = ScaleState.MISSING.value
    objective: float | None = None
    scanner: str = ""
    icc: bool = False
    bounds_x0: int = 0
    bounds_y0: int = 0
    bounds_width: int = 0
    bounds_height: int = 0
    quickhash: str = ""
    focal_planes: int = 1
    orientation: int = 1
    associated: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SlideProperties":
        """Raises TypeError or ValueError for anything that `to_json` could not have made."""
        fields = dict(data)
        fields["levels"] = tuple(Level(**level) for level in fields["levels"])
        fields["associated"] = tuple(str(name) for name in fields["associated"])
        properties = cls(**fields)
        _check_json(properties)
        return properties


def _check_json(properties: SlideProperties) -> None:
    sizes = [properties.width, properties.height]
    for level in properties.levels:
        sizes += [level.width, level.height, level.tile_width, level.tile_height]
    if not all(isinstance(size, int) and 0 < size < 2**31 for size in sizes):
        raise ValueError("a slide size is not a positive whole number")
    for mpp in (properties.mpp_x, properties.mpp_y, properties.objective):
        if mpp is not None and not (isinstance(mpp, float | int) and math.isfinite(mpp) and mpp > 0):
            raise ValueError(f"{mpp!r} is not a positive number")
    ScaleState(properties.scale_state)


def positive_number(text: object) -> float | None:
    """A positive finite number from metadata text; a decimal comma counts ("0,499"); anything else is None."""
    try:
        value = float(str(text).strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


_SAID_MPP = re.compile(r"\bMPP\s*=\s*([0-9.,]+)", re.IGNORECASE)
_SAID_OBJECTIVE = re.compile(r"\b(?:AppMag|Objective)\s*=\s*([0-9.,]+)", re.IGNORECASE)


def mpp_from_description(description: str) -> float | None:
    """`MPP = 0.499` as Aperio writes it into the TIFF ImageDescription."""
    found = _SAID_MPP.search(description)
    return positive_number(found.group(1)) if found else None


def objective_from_description(description: str) -> float | None:
    found = _SAID_OBJECTIVE.search(description)
    return positive_number(found.group(1)) if found else None
