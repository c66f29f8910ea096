"""What a slide's tiles will be: the file's own, or a converted pyramid, and why."""

from dataclasses import asdict, dataclass
from typing import Any

from slides.wsi.tile_store import CONVERTED, PASS_THROUGH

PYRAMID_TILE_SIDE = 512


@dataclass(frozen=True, slots=True)
class StorePlan:
    """`kind` is pass_through or converted, with the reason in words; `side_pyramid`: low resolutions are made beside."""

    kind: str
    reason: str
    side_pyramid: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "StorePlan":
        if data["kind"] not in (PASS_THROUGH, CONVERTED):
            raise ValueError(f"unknown store kind {data['kind']!r}")
        return cls(data["kind"], str(data["reason"])[:500], bool(data["side_pyramid"]))


def plan_store(*, pass_through_possible: bool, reason: str, width: int, height: int) -> StorePlan:
    """A slide that fits into one tile of a pyramid needs no lower resolutions."""
    if pass_through_possible:
        return StorePlan(PASS_THROUGH, reason, max(width, height) > PYRAMID_TILE_SIDE)
    return StorePlan(CONVERTED, reason, False)
