"""What a slide file is and what it would become, as one JSON object for people and programs."""

from pathlib import Path
from typing import Any

from slides.wsi.errors import SlideRefused, WsiError
from slides.wsi.facts import file_facts, scale_words
from slides.wsi.sandbox import DEFAULT_LIMITS, Description, Limits, describe

READY, QUARANTINED = "ready", "quarantined"


_OWN_READER = ("tiff", "ome-tiff")


def opened_by(format_: str) -> str:
    """The reader that described a file of this SlideProperties.format."""
    if format_ in _OWN_READER:
        return "own TIFF reader"
    return "large_image" if format_ == "large_image" else "OpenSlide"


def describe_in_words(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """Never raises for a bad file: `state` is then quarantined, with `code` and `reason`."""
    try:
        return {"file": path.name, **_ready(describe(path, limits=limits))}
    except SlideRefused as refused:
        return {"file": path.name, "state": QUARANTINED, "code": refused.code.value, "reason": refused.message}
    except (WsiError, OSError) as error:
        return {"file": path.name, "state": QUARANTINED, "code": "unreadable", "reason": str(error)}


def _ready(description: Description) -> dict[str, Any]:
    properties, store = description.properties, description.store
    return {
        "state": READY,
        "reason": scale_words(properties.scale_state),
        "facts": file_facts(properties, store),
        "format": properties.format,
        "opened_by": opened_by(properties.format),
        "vendor": properties.vendor,
        "width": properties.width,
        "height": properties.height,
        "levels": [
            {"width": level.width, "height": level.height, "downsample": level.downsample}
            for level in properties.levels
        ],
        "mpp_x": properties.mpp_x,
        "mpp_y": properties.mpp_y,
        "mpp_source": properties.mpp_source,
        "scale_state": properties.scale_state,
        "objective": properties.objective,
        "icc": properties.icc,
        "associated": list(properties.associated),
        "tiles": store.kind,
        "tiles_reason": store.reason,
        "side_pyramid": store.side_pyramid,
    }
